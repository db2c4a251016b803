from __future__ import annotations

import errno
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest
from faults import flip_a_bit, gone
from notebooks_for_tests import RESULTS, write_notebook

from pbb_helpers import provenance
from pbb_helpers.parameters import read_notebook, read_parameters
from pbb_helpers.programs import UsageError
from pbb_helpers.running.run_logs import find_runs
from pbb_helpers.running.run_record import RunResult, all_runs, damage_of, latest, process_start, read_run, seal
from pbb_helpers.running.run_table import console, elapsed, runs_table
from pbb_helpers.running.runner import MODEL_PARAMETERS, fingerprint, parameters_key, run, weights_print
from pbb_helpers.sharing import report
from pbb_helpers.sharing.report_index import render_all

# A child that ignores SIGTERM: the runner must end that one too.
STUBBORN = """import os, subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"], stdout=subprocess.PIPE)
child.stdout.readline()
(Path(os.environ["PBB_RUN_DIR"]) / "child").write_text(str(child.pid))
time.sleep(60)"""  # noqa: E501


RECORD = {"status": "running", "notebook": "tiny", "parameters": {}, "started": "2026-01-01T00:00:00"}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Returns (folder, events, result) of one run that all tests may look at."""
    folder = tmp_path_factory.mktemp("done")
    body = "from pbb_helpers.notebook import Progress\nwith Progress('count', total=3) as p:\n    for _ in range(3):\n        p.advance()"
    path = write_notebook(folder / "tiny.ipynb", "## Counting", body, "print(profile, n, lr, names)", RESULTS)
    events = []
    return folder, events, run(path, {"n": 3, "lr": 1}, out_dir=folder / "runs", on_event=events.append)


def test_run_leaves_results_and_the_truth(done):
    folder, events, result = done
    assert result.status == "completed" and not result.reused and result.headline == "base answers 3 of 4"
    assert sorted(p.name for p in result.folder.iterdir()) == [
        "headline.txt",
        "kernel.log",
        "manifest.json",
        "results.csv",
        "rows.jsonl",
        "run.json",
        "tiny.ipynb",
    ]
    record = json.loads((result.folder / "run.json").read_text())
    assert record["parameters"] == {"profile": "quick", "n": 3, "lr": 1.0, "names": ["a", "b"], "seconds": 0.0}
    assert record["changed"] == ["lr", "n"] and record["title"] == "Does it run?" and record["question"] == "A question."
    assert record["cell"] == {"index": 5, "count": 6, "heading": "Counting"} and record["hardware"]["cores"] >= 1
    node = nbformat.read(result.notebook, 4)
    assert node.cells[5].outputs[0].text == "quick 3 1.0 ['a', 'b']\n"


def test_progress_reaches_the_runner_and_is_not_printed(done):
    _, events, result = done
    lines = [e["line"] for e in events if e["kind"] == "progress"]
    assert lines[0].startswith("count: 0 of 3") and lines[-1].startswith("count: 3 of 3, done in")
    assert "progress: " not in result.notebook.read_text()
    assert [e["index"] for e in events if e["kind"] == "cell"] == [0, 1, 2, 3, 4, 5]


def test_no_socket_folder_and_no_kernel_is_left(done):
    _, _, result = done
    assert not psutil.pid_exists(result.record["kernel_pid"])


def test_a_finished_run_is_not_repeated(done):
    folder, _, result = done
    start = time.monotonic()
    again = run(folder / "tiny.ipynb", {"n": "3", "lr": "1"}, out_dir=folder / "runs", typed=True)
    assert again.reused and again.folder == result.folder and time.monotonic() - start < 5


def test_other_weights_in_a_models_folder_make_another_run(tmp_path: Path, tiny_folder: Callable):
    model = tiny_folder("llama")
    for name in ("a", "b"):
        shutil.copytree(model, tmp_path / name)
    path = write_notebook(tmp_path / "tiny.ipynb", "print(model)", parameters='model = "pbb-small"  # a folder')
    first = run(path, {"model": str(tmp_path / "a")}, out_dir=tmp_path / "runs")
    assert not first.reused and run(path, {"model": str(tmp_path / "a")}, out_dir=tmp_path / "runs").reused
    os.utime(tmp_path / "a" / "model.safetensors", (1, 1))
    assert not run(path, {"model": str(tmp_path / "a")}, out_dir=tmp_path / "runs").reused


def test_another_version_of_a_library_makes_another_run(done, tmp_path: Path, monkeypatch):
    folder, _, _ = done
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    its = {"n": 3, "lr": 1}
    assert run(tmp_path / "tiny.ipynb", its, out_dir=tmp_path / "runs").reused
    installed = provenance.versions()
    monkeypatch.setattr(provenance, "versions", lambda: installed | {"matplotlib": "0.1"})
    assert not run(tmp_path / "tiny.ipynb", its, out_dir=tmp_path / "runs").reused
    assert run(tmp_path / "tiny.ipynb", its, out_dir=tmp_path / "runs").reused


def test_a_run_whose_record_says_nothing_of_libraries_is_made_again(done, tmp_path: Path):
    """Such are the records of before they were asked for: what made them is not known."""
    folder, _, result = done
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    old = RunResult(tmp_path / result.folder.relative_to(folder), json.loads((result.folder / "run.json").read_text()))
    del old.record["fingerprint"]["versions"]
    (old.folder / "run.json").write_text(json.dumps(old.record))
    (old.folder / "manifest.json").unlink()
    seal(old)
    again = run(tmp_path / "tiny.ipynb", {"n": 3, "lr": 1}, out_dir=tmp_path / "runs")
    assert not again.reused and again.status == "completed"


CACHE = """import os, shutil
from pathlib import Path
cache = Path(os.environ["HF_HUB_CACHE"], "models--someorg--tiny")
shutil.copytree(folder, cache / "snapshots" / commit, dirs_exist_ok=True)
(cache / "refs").mkdir(exist_ok=True)
(cache / "refs" / "main").write_text(commit)
print(model)"""
"""Does to the cache of models what a download does."""


def test_another_commit_of_a_hub_model_makes_another_run(tmp_path: Path, tiny_folder: Callable, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the hub is not asked
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))  # that of the kernel
    parameters = 'model = "pbb-small"  # a hub id\nfolder = ""  # its files\ncommit = ""  # and what they are of'
    path = write_notebook(tmp_path / "tiny.ipynb", CACHE, parameters=parameters)
    values = {"model": "someorg/tiny", "folder": str(tiny_folder("llama")), "commit": "a" * 40}
    first = run(path, values, out_dir=tmp_path / "runs")
    assert first.status == "completed" and first.record["fingerprint"]["someorg/tiny"] == f"someorg/tiny@{'a' * 40}", "downloaded by it"
    assert run(path, values, out_dir=tmp_path / "runs").reused
    cache = tmp_path / "hub" / "models--someorg--tiny"
    shutil.copytree(cache / "snapshots" / ("a" * 40), cache / "snapshots" / ("b" * 40))
    assert run(path, values, out_dir=tmp_path / "runs").reused, "it lies there, but is not the one that is found"
    (cache / "refs" / "main").write_text("b" * 40)
    again = run(path, values, out_dir=tmp_path / "runs")
    assert not again.reused and json.loads((again.folder / "run.json").read_text())["fingerprint"]["someorg/tiny"].endswith("b" * 40)
    assert "someorg/tiny" not in fingerprint(read_notebook(path), values | {"model": "someorg/other"}), "what is not there is not sought"


def test_the_record_says_who_trained(tmp_path: Path):
    body = (
        "from pbb_helpers.notebook import record\nfrom pbb_helpers.provenance import FromStore\n"
        "record(reused=FromStore(0.5, {'0': {'commit': 'abc', 'versions': {'torch': '1'}}, '1': {'commit': 'abc', 'versions': {'torch': '1'}}}))"
    )
    result = run(write_notebook(tmp_path / "tiny.ipynb", body), out_dir=tmp_path / "runs")
    assert result.from_store == 0.5 and damage_of(result) is None
    assert json.loads((result.folder / "run.json").read_text())["trained_by"] == [
        {"commit": "abc", "versions": {"torch": "1"}, "stages": 2}
    ]
    assert re.search(r"Trained by</dt>\s*<dd>abc \(2 stages\)", report.page(result))


@pytest.mark.parametrize("spec", ["org/name", "pbb-small", "pbb-xl", "./nowhere", "a" * 5000, "~nobody/x", "\0", ""])
def test_models_that_lie_in_no_folder_are_neither_sought_nor_hashed(spec: str, monkeypatch):
    monkeypatch.setattr("pbb_helpers.training.model_files._find_on_hub", lambda *_, **__: pytest.fail("the hub was asked"))
    monkeypatch.setattr("pbb_helpers.training.model_files.made", lambda name: None)
    assert weights_print({"model": spec, "models": [spec, 3], "sizes": None, "seeds": [0]}) == {}


def test_failure_names_cell_and_keeps_the_last_good_run(tmp_path: Path):
    path = write_notebook(tmp_path / "tiny.ipynb", "1")
    good = run(path, out_dir=tmp_path / "runs")
    write_notebook(path, "## Training", "raise ValueError('no\\nluck')", "2")
    bad = run(path, out_dir=tmp_path / "runs")
    assert bad.folder == good.folder and bad.status == "failed"
    assert bad.error == "cell 4 (Training): ValueError: no luck"
    assert [c.metadata.papermill.status for c in nbformat.read(bad.notebook, 4).cells] == ["completed"] * 3 + ["failed", "pending"]
    assert latest(tmp_path / "runs", "tiny").status == "completed"
    assert sorted(r.status for r in all_runs(tmp_path / "runs")) == ["completed", "failed"]


def test_kernel_that_kills_itself_is_killed_and_not_completed(tmp_path: Path):
    path = write_notebook(tmp_path / "tiny.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "1")
    result = run(path, out_dir=tmp_path / "runs")
    assert result.status == "killed" and "cell 3" in result.error and read_run(result.folder)["status"] == "killed"
    assert [c.metadata.papermill.status for c in nbformat.read(result.notebook, 4).cells][2:] == ["killed", "pending"]


def start(tmp_path: Path) -> tuple[subprocess.Popen, Path, int, int]:
    """Returns a runner in a process of its own, its run's folder, and the ids of its kernel and of the kernel's child."""
    path = write_notebook(tmp_path / "slow.ipynb", STUBBORN)
    code = f"from pbb_helpers.running.runner import run; run({str(path)!r}, out_dir={str(tmp_path / 'runs')!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = list((tmp_path / "runs").glob("slow/*/child"))
        if found and found[0].read_text():
            record = json.loads(found[0].with_name("run.json").read_text())
            return process, found[0].parent, record["kernel_pid"], int(found[0].read_text())
        time.sleep(0.1)
    raise AssertionError(f"the run did not start: {process.stderr.read() if process.poll() is not None else 'no time left'}")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signal_ends_kernel_and_children_within_seconds(tmp_path: Path, name: str):
    process, folder, kernel, child = start(tmp_path)
    assert read_run(folder)["status"] == "running"
    process.send_signal(getattr(signal, name))
    process.wait(timeout=15)
    assert gone(kernel, child, within=5)
    record = read_run(folder)
    assert record["status"] == "killed" and name in record["error"]["value"] and record["finished"]


def test_kill_9_on_the_runner_leaves_the_truth_and_no_processes(tmp_path: Path):
    process, folder, kernel, child = start(tmp_path)
    with pytest.raises(UsageError, match=f"going on already .*kill {process.pid}"):
        run(tmp_path / "slow.ipynb", out_dir=tmp_path / "runs")
    process.kill()
    process.wait()
    assert json.loads((folder / "run.json").read_text())["status"] == "running"  # nobody could write another
    assert read_run(folder)["status"] == "killed"
    assert gone(kernel, child, within=10)


def test_on_a_disk_without_locks_a_run_that_goes_on_is_left_alone(tmp_path: Path, monkeypatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    process, folder, kernel, child = start(tmp_path)
    monkeypatch.setattr("pbb_helpers.disk.fcntl.flock", no_locks)
    with pytest.raises(UsageError, match=f"going on already .*kill {process.pid}"):
        run(tmp_path / "slow.ipynb", out_dir=tmp_path / "runs")
    assert read_run(folder)["status"] == "running"
    process.kill()
    process.wait()
    assert gone(kernel, child, within=10)


def test_run_on_another_machine_counts_as_dead_when_it_is_silent(tmp_path: Path):
    record = RECORD | {"host": "elsewhere", "pid": 1, "pid_started": 0}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert read_run(tmp_path)["status"] == "running"
    os.utime(tmp_path / "run.json", (time.time() - 600,) * 2)
    assert read_run(tmp_path)["status"] == "killed"


def test_a_process_id_used_again_is_not_the_runner(tmp_path: Path):
    record = RECORD | {"host": platform.node(), "pid": os.getpid(), "pid_started": process_start()}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert read_run(tmp_path)["status"] == "running"
    (tmp_path / "run.json").write_text(json.dumps(record | {"pid_started": 1.0}))
    assert read_run(tmp_path)["status"] == "killed"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="moves the time at which Linux says that it started")
def test_a_clock_that_is_set_does_not_make_a_running_run_a_killed_one(tmp_path: Path, monkeypatch):
    record = RECORD | {"host": platform.node(), "pid": os.getpid(), "pid_started": process_start()}
    (tmp_path / "run.json").write_text(json.dumps(record))
    real = psutil._pslinux.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: real + 3600)
    assert read_run(tmp_path)["status"] == "running"


def test_a_beat_from_the_future_is_none(tmp_path: Path):
    (tmp_path / "run.json").write_text(json.dumps(RECORD | {"host": "elsewhere", "pid": 1, "pid_started": 0}))
    os.utime(tmp_path / "run.json", (time.time() + 86400,) * 2)
    assert read_run(tmp_path)["status"] == "killed"


BEFORE, AFTER = "2026-01-01T00:00:00.000+00:00", "2036-01-01T00:00:00.000+00:00"


def write_record(folder: Path, started: str, hours: float, **facts: object) -> None:
    """Writes a run.json of this process's run whose clock said `started`, and whose file is of so many hours from now."""
    folder.mkdir(parents=True)
    here = {"host": platform.node(), "pid": os.getpid(), "pid_started": process_start()}
    (folder / "run.json").write_text(json.dumps(RECORD | here | {"started": started, "seconds": 3.0} | facts))
    os.utime(folder / "run.json", (time.time() + hours * 3600,) * 2)


@pytest.mark.parametrize("hours", [-1e5, 0, 1e5])
def test_a_clock_that_jumped_changes_no_status(tmp_path: Path, capsys, hours: float):
    """Of a process of this machine the process itself is asked. The older runs are from the future, the newer ones from the past; and so are the files."""
    records = {
        "older": {"started": AFTER, "status": "completed"},
        "newer": {"started": BEFORE, "status": "failed"},
        "alive": {"started": BEFORE},
        "alive2": {"started": AFTER},
        "gone": {"started": BEFORE, "pid_started": 1.0},
        "here": {"started": AFTER, "host": "elsewhere"},
    }
    for name, facts in records.items():
        write_record(tmp_path / "tiny" / name, hours=0 if name == "here" else hours, **facts)
    runs = all_runs(tmp_path)
    statuses = {"older": "completed", "newer": "failed", "alive": "running", "alive2": "running", "gone": "killed", "here": "running"}
    assert {run.folder.name: run.status for run in runs} == statuses
    assert latest(tmp_path, "tiny").folder.name == "older", "a completed one comes before any other"
    assert elapsed(next(run.record for run in runs if run.folder.name == "alive2")) == 0.0
    console().print(runs_table(runs, {}))
    assert set(records) <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize(("older", "newer"), [(BEFORE, AFTER), (AFTER, BEFORE)], ids=["forth", "back"])
@pytest.mark.parametrize("status", ["completed", "running", "failed"])
def test_a_run_comes_before_the_one_it_replaces_whatever_the_clock_said(tmp_path: Path, older: str, newer: str, status: str):
    """Both are completed when it was killed just before the kept one goes."""
    write_record(tmp_path / "tiny" / "abcd.previous", older, 1e5, status="completed")
    write_record(tmp_path / "tiny" / "abcd", newer, -1e5, status=status)
    write_record(tmp_path / "tiny" / "other", "2027-01-01T00:00:00+00:00", 0, status="failed")
    assert [run.folder.name for run in find_runs(tmp_path, "abcd")] == ["abcd", "abcd.previous"], "whose log `pbb logs` prints"
    assert [run.folder.name for run in all_runs(tmp_path)][:2] == (["abcd", "other"] if newer > older else ["abcd", "abcd.previous"])
    assert latest(tmp_path, "tiny").folder.name == ("abcd" if status == "completed" else "abcd.previous")


@pytest.mark.parametrize(
    "text",
    [
        "[]", "null", '"x"', "3", "{}", '{"status": 1}', '{"status": "completed", "notebook": "a", "parameters": {}}',
        '{"status": "completed", "notebook": "a", "parameters": {}, "started": "long ago"}', '{"status": "running", "notebook": "a", "parameters": {}}', "\x00",
        '{"status": "failed", "notebook": "a", "parameters": {}, "error": {"indey": 0, "name": "x", "value": "y"}}',
        '{"status": "failed", "notebook": "a", "parameters": {}, "error": "none"}',
    ],
)  # fmt: skip
def test_valid_json_that_is_no_record_is_damaged(tmp_path: Path, text: str):
    folder = tmp_path / "runs" / "tiny" / "abc"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(text)
    assert read_run(folder)["status"] == "damaged"
    assert render_all(tmp_path / "runs", tmp_path / "reports")[1] == [], "the index and the other reports are rendered"


def test_every_file_of_a_completed_run_has_a_checksum(done, tmp_path: Path):
    folder, _, result = done
    assert damage_of(result) is None
    for name in ("run.json", "rows.jsonl", "results.csv", "headline.txt", "tiny.ipynb", "manifest.json"):
        copy = RunResult(tmp_path / name / "tiny" / result.folder.name, result.record)
        shutil.copytree(result.folder, copy.folder)
        flip_a_bit(copy.folder / name, random.Random(0))
        assert damage_of(copy) is not None, name


def test_a_run_that_was_killed_before_its_seal_is_run_again(done, tmp_path: Path):
    """Nothing would tell a digit in it that changed on the disk."""
    folder, _, result = done
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / result.folder.relative_to(folder) / "manifest.json").unlink()
    again = run(tmp_path / "tiny.ipynb", {"n": 3, "lr": 1}, out_dir=tmp_path / "runs")
    assert not again.reused and (again.folder / "manifest.json").is_file()
    assert run(tmp_path / "tiny.ipynb", {"n": 3, "lr": 1}, out_dir=tmp_path / "runs").reused


NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_that_names_models_makes_a_run_stale_when_they_change(notebook: Path):
    said = read_parameters(read_notebook(notebook))
    texts = {name for name, its in said.items() if "str" in its.type_name and not its.choices and name != "profile"}
    naming = {name for name in texts if re.search(r"\bmodels?\b", said[name].comment)}
    assert naming - {"shapes"} <= set(MODEL_PARAMETERS) and ("model" in said) == ("model" in naming)


def test_a_kernel_finds_the_models_that_were_made_here_wherever_its_run_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = tmp_path / "here" / "pretrain" / "pbb-xl"
    made.mkdir(parents=True)
    (made / "card.json").write_text("{}")
    monkeypatch.setenv("PBB_RUNS", str(tmp_path / "here"))
    code = "from pbb_helpers.training.model_files import made\nprint('found', made('pbb-xl'))"
    result = run(write_notebook(tmp_path / "tiny.ipynb", code), out_dir=tmp_path / "elsewhere")
    assert f"found {made}" in (result.folder / "tiny.ipynb").read_text()


def test_a_damaged_run_is_not_reused_and_not_deleted(done, tmp_path: Path, caplog):
    """Its numbers would be shown as they are now; the store gives them again."""
    folder, _, result = done
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    damaged = tmp_path / result.folder.relative_to(folder)
    (damaged / "rows.jsonl").write_text("{}\n")
    again = run(tmp_path / "tiny.ipynb", {"n": 3, "lr": 1}, out_dir=tmp_path / "runs")
    assert not again.reused and again.status == "completed" and again.folder == damaged
    assert (again.folder / "rows.jsonl").read_bytes() == (result.folder / "rows.jsonl").read_bytes()
    assert (damaged.with_name(damaged.name + ".damaged") / "rows.jsonl").read_text() == "{}\n" and "is damaged: rows.jsonl" in caplog.text


def test_bad_input_starts_nothing(tmp_path: Path):
    path = write_notebook(tmp_path / "tiny.ipynb", "1")
    for parameters in ({"lrr": 1.0}, {"lr": "fast"}):
        with pytest.raises(UsageError):
            run(path, parameters, out_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises((UsageError, OSError)):
        run(path, out_dir=tmp_path / "file" / "runs")


def test_key_does_not_depend_on_order_or_process():
    assert parameters_key({"a": 1, "b": [1.5, None, "x"]}) == parameters_key({"b": [1.5, None, "x"], "a": 1}) == "b3ef6b4ffe1c"
