"""Sweeps on one machine: the values that are tried, the plan, the runs, Ctrl-C, and what `status`, `logs` and `clean` make of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from notebooks_for_tests import write_notebook

import pbb_helpers
from pbb_helpers.cli import main
from pbb_helpers.disk import MANIFEST, lock
from pbb_helpers.parameters import parse_cell
from pbb_helpers.programs import UsageError
from pbb_helpers.running.cleaning import delete, leftovers
from pbb_helpers.running.grid import read_grid, read_values
from pbb_helpers.running.run_logs import find_runs, log_of
from pbb_helpers.running.run_record import RunResult, seal
from pbb_helpers.running.runner import fingerprint
from pbb_helpers.running.sweep import default_jobs, estimates, make_sweep
from pbb_helpers.running.sweep_run import Local, _share, command

ROOT = Path(pbb_helpers.__file__).parent.parent
KNOWN = parse_cell("""
profile = "quick"  # smoke | quick | full: how much
model = "small"
lr: float | None = None
n = 1
flag = False
seeds: list[int] | None = None
names: list[str] = []
""")

PARAMETERS = 'n = 1\nseconds = 0.0\nmodel = "a"\nseeds: list[int] | None = None\nprocesses: int | None = None'
WORK = """import os, time
from pathlib import Path
print("number", n)
with open(Path(os.environ["PBB_RUNS"]) / "log.txt", "a") as file:
    print(n, len(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES"), file=file)
assert n != 9, "nine is refused"
time.sleep(seconds)"""


# --- values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("n", "5", [5]),
        ("n", "3,1,2", [3, 1, 2]),
        ("n", "0:5", [0, 1, 2, 3, 4]),
        ("n", "10:0:-5", [10, 5]),
        ("lr", "1e-3, 3e-4,none", [1e-3, 3e-4, None]),
        ("lr", "1:3", [1.0, 2.0]),
        ("lr", "[0.1, 0.2]", [0.1, 0.2]),
        ("flag", "yes,no", [True, False]),
        ("model", "a,./b:1", ["a", "./b:1"]),
        ("model", "0:5", ["0:5"]),
        ("model", "it's,b", ["it's", "b"]),
        ("model", '["a,b", "c"]', ["a,b", "c"]),
        ("profile", "smoke,full", ["smoke", "full"]),
        ("seeds", "0:3", [[0], [1], [2]]),
        ("seeds", "[0],[1,2],none", [[0], [1, 2], None]),
        ("seeds", "[0,1]", [[0, 1]]),
        ("seeds", "4", [[4]]),
        ("names", "[a,b],[c]", [["a", "b"], ["c"]]),
    ],
)
def test_values_of_a_text(name, text, values):
    found = read_values(KNOWN[name], text)
    assert found == values and [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("n", "1,two", "takes int, not 'two'"),
        ("n", "1,,2", "empty value"),
        ("n", "", "empty value"),
        ("n", "5:0", "gives 0 values"),
        ("n", "0:99999999999999999999", "gives 99999999999999999999 values"),
        ("model", "[]", "is an empty list"),
        ("n", "0:5:0", "gives 0 values"),
        ("n", "0:99999999", "give 1 to"),
        ("n", "0.5:2", "takes int"),
        ("n", "[1", "not a JSON list"),
        ("profile", "smoke,quik", "did you mean 'quick'"),
        ("seeds", "0,1", "write [0,1] for one run with all, [0],[1] for a run each"),
        ("seeds", "[0],1", "may be one or several"),
        ("names", "a,b", "write [a,b] for one run"),
        ("seeds", "[x]", "takes list[int] | None"),
    ],
)
def test_bad_values_say_what_is_valid(name, text, says):
    with pytest.raises(UsageError) as error:
        read_values(KNOWN[name], text)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_values(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("lr: [1e-3, 0.5]\nmodel: a\nseeds: [[0], [1, 2]]\nn: [1, 2]\n")
    grid = read_grid(KNOWN, [("n", "7"), ("flag", "true")], path)
    assert grid == {"lr": [1e-3, 0.5], "model": ["a"], "seeds": [[0], [1, 2]], "n": [7], "flag": [True]}
    path.write_text(json.dumps({"n": [1, 2]}))
    assert read_grid(KNOWN, [], path) == {"n": [1, 2]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seeds: [0, 1]", "write a list of lists: seeds: [[0, 1]]"),
        ("seed: [0]", "did you mean 'seeds'"),
        ("n: [1.5]", "takes int, not 1.5"),
        ("n: []", "has no values"),
        ("- n", "not a mapping"),
        ("n: [1", "not valid YAML"),
        ("[" * 3000, "nested too deep"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_a_bad_file_says_why(tmp_path, text, says):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_grid(KNOWN, [], path)
    assert says in str(error.value) and "\n" not in str(error.value)


# --- the plan -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def notebook(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_notebook(tmp_path / "work.ipynb", "## Work", WORK, parameters=PARAMETERS)


def fake_run(sweep, number: int, status: str = "completed", seconds: float = 10.0, **prints: str) -> Path:
    """Returns the folder of a made-up run of a point of a sweep."""
    point = sweep.points[number]
    point.folder.mkdir(parents=True)
    (point.folder / "work.ipynb").write_text("{}")
    record = {"status": status, "notebook": "work", "parameters": point.values, "seconds": seconds, "fingerprint": sweep.prints | prints}
    record["started"] = "2026-01-01T00:00:00.000+00:00"
    error = {"error": {"index": 0, "heading": "", "name": "Stopped", "value": "by a test"}} if status != "completed" else {}
    (point.folder / "run.json").write_text(json.dumps(record | error))
    if status == "completed":
        seal(RunResult(point.folder, record))
    return point.folder


def test_the_points_are_all_combinations_and_equal_ones_count_once(notebook):
    sweep = make_sweep(notebook, {"model": ["a", "b"], "n": [1, 2, 1]})
    assert [(point.values["model"], point.values["n"]) for point in sweep.points] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    with pytest.raises(UsageError, match="more than"):
        make_sweep(notebook, {"n": list(range(200)), "seeds": [[i] for i in range(200)]})


def test_the_plan_knows_what_is_finished_and_what_was_stopped(notebook):
    sweep = make_sweep(notebook, {"n": [1, 2, 3, 4, 5]})
    fake_run(sweep, 0)
    fake_run(sweep, 1, "killed")
    fake_run(sweep, 2, package="another")
    fake_run(sweep, 3, "failed")
    assert [sweep.state(point) for point in sweep.points] == ["finished", "stopped", "new", "failed", "new"]
    (sweep.points[0].folder / MANIFEST).unlink()  # killed before its seal
    assert sweep.state(sweep.points[0]) == "new"


def test_the_estimate_is_that_of_the_most_similar_runs(notebook):
    sweep = make_sweep(notebook, {"model": ["a", "b"], "n": [1, 2, 3]})
    assert estimates(sweep, "runs") == {}
    for number, seconds in ((0, 10.0), (1, 30.0), (3, 500.0)):
        fake_run(sweep, number, seconds=seconds)
    times = estimates(sweep, "runs")
    assert times[sweep.points[0].key] == 10.0, "the very run"
    assert times[sweep.points[2].key] == 20.0, "the median of those that differ in n only"
    assert times[sweep.points[5].key] == 500.0


def test_cores_are_shared_out(notebook, monkeypatch):
    monkeypatch.setattr("pbb_helpers.running.sweep.cores", lambda: 8)
    assert default_jobs(make_sweep(notebook, {}).points) == 1
    assert default_jobs(make_sweep(notebook, {"processes": [2]}).points) == 4
    assert default_jobs(make_sweep(notebook, {"processes": [1, 3]}).points) == 2
    assert default_jobs(make_sweep(notebook, {"processes": [99]}).points) == 1
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3, 8})
    assert [_share(i, 2) for i in range(2)] == [[0, 1], [2, 3, 8]]
    assert _share(0, 1) == [] and sorted(core for i in range(7) for core in _share(i, 7))[-1] == 8


def test_the_command_of_a_run_gives_back_the_same_parameters(notebook, tmp_path):
    from pbb_helpers.parameters import resolve

    known = parse_cell(PARAMETERS)
    sweep = make_sweep(notebook, {"model": ["007", "a,b", "x=y"], "seeds": [[0, 1], None], "seconds": [1e-7]})
    for point in sweep.points:
        arguments = command(sweep, point)
        pairs = [arguments[i + 1].partition("=") for i, argument in enumerate(arguments) if argument == "-p"]
        assert resolve(known, {name: text for name, _, text in pairs}, typed=True) == point.values


# --- running ------------------------------------------------------------------------------------------------------------


def pbb(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=400)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    environment.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, "-m", "pbb_helpers", *arguments]
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """Returns a folder in which a sweep over three values, one of which fails, was run; what was printed is in out and err."""
    folder = tmp_path_factory.mktemp("swept")
    write_notebook(folder / "work.ipynb", "## Work", WORK, parameters=PARAMETERS)
    done = pbb("sweep", "work.ipynb", "-p", "n", "1,9,2", "--jobs", "2", "--gpus", "5,6", cwd=folder)
    assert done.returncode == 1, done.stderr
    (folder / "out").write_text(done.stdout)
    (folder / "err").write_text(done.stderr)
    return folder


def test_a_failure_stops_no_other_run_and_is_listed_with_its_log(swept):
    out = (swept / "out").read_text()
    assert "3 runs: 0 finished, 3 to run, 2 at once" in out and "3 runs: 2 done, 1 failed" in out
    listed = out[out.index("1 failed") :]
    assert "AssertionError: nine is refused" in listed and "--> " in listed and "report: reports/work.html" in listed
    assert (swept / "err").read_text().count(": done") == 2 and ": failed" in (swept / "err").read_text()


def test_runs_share_out_cores_and_gpus(swept):
    lines = [line.split() for line in (swept / "runs" / "log.txt").read_text().splitlines()]
    assert sorted(line[0] for line in lines) == ["1", "2", "9"] and {line[3] for line in lines} == {"5", "6"}
    if (cores := len(os.sched_getaffinity(0))) > 1:
        assert all(line[1] == line[2] and int(line[1]) < cores for line in lines)


def test_a_second_call_runs_only_what_is_not_finished(swept):
    before = (swept / "runs" / "log.txt").read_text()
    dry = pbb("sweep", "work.ipynb", "-p", "n=1,9,2,3", "--dry-run", cwd=swept)
    assert dry.returncode == 0 and "4 runs: 2 finished, 2 to run, 1 at once; about" in dry.stdout
    assert dry.stdout.count("finished, not repeated") == 2 and dry.stdout.count("failed before, will run again") == 1
    assert (swept / "runs" / "log.txt").read_text() == before
    again = pbb("sweep", "work.ipynb", "-p", "n=1,2", cwd=swept)
    assert again.returncode == 0 and "2 runs: 2 finished" in again.stdout
    assert (swept / "runs" / "log.txt").read_text() == before


def test_status_and_logs(swept, monkeypatch, capsys):
    monkeypatch.chdir(swept)
    out = call(monkeypatch, capsys, "status")
    assert out.count("completed") == 2 and "n=9" in out and "AssertionError: nine is refused" in out
    (failed,) = (run for run in find_runs(Path("runs"), "work") if run.status == "failed")
    assert "AssertionError: nine is refused" in call(monkeypatch, capsys, "logs", failed.folder.name[:6], "-n", "3")
    assert call(monkeypatch, capsys, "status", failed.folder.name).count("completed") == 0


def call(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["pbb", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    return capsys.readouterr().out


def test_ctrl_c_ends_the_runs_and_the_next_call_goes_on(tmp_path):
    write_notebook(tmp_path / "work.ipynb", "## Work", WORK, parameters=PARAMETERS)
    process = start("sweep", "work.ipynb", "-p", "n", "1,2", "-p", "seconds", "60", "--jobs", "1", "--no-report", cwd=tmp_path)
    deadline = time.monotonic() + 240
    while not (tmp_path / "runs" / "log.txt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    (path,) = tmp_path.glob("runs/work/*/run.json")
    kernel = json.loads(path.read_text())["kernel_pid"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130 and "stopped by SIGINT; the same command goes on where it was" in err
    assert "2 runs: 1 stopped, 1 waiting" in out and json.loads(path.read_text())["status"] == "killed"
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)
    dry = pbb("sweep", "work.ipynb", "-p", "n", "1,2", "-p", "seconds", "60", "--dry-run", cwd=tmp_path)
    assert dry.stdout.count("goes on where it was") == 1 and dry.stdout.count("will run") == 1


def test_a_run_that_goes_on_elsewhere_is_watched_and_not_started_twice(notebook):
    sweep = make_sweep(notebook, {"n": [1]})
    folder = fake_run(sweep, 0, "running")
    record = json.loads((folder / "run.json").read_text())
    import platform

    (folder / "run.json").write_text(json.dumps(record | {"host": platform.node() + "-other", "pid": 1, "pid_started": 0.0}))
    local = Local(sweep, 1)
    assert local.advance() and local.advance() and local.state(sweep.points[0]) == "running"
    (folder / "run.json").write_text(json.dumps(record | {"status": "completed"}))
    with lock(folder.parent / f".{folder.name}.lock", print):  # its process, which has not yet sealed it
        assert local.advance() and local.state(sweep.points[0]) == "running"
        seal(RunResult(folder, record | {"status": "completed"}))
    local.advance()
    assert local.state(sweep.points[0]) == "finished" and not local.advance()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sweep", "work.ipynb", "-p", "m", "1"], "unknown parameter 'm'"),
        (["sweep", "work.ipynb", "-p", "n", "1,x"], "takes int, not 'x'"),
        (["sweep", "work.ipynb", "-p", "n", "1", "-p", "n", "2"], "given twice"),
        (["sweep", "work.ipynb", "-p", "=1"], "not a name and values"),
        (["sweep", "work.ipynb", "--grid", "nowhere.yaml"], "nowhere.yaml can't be read"),
        (["sweep", "work.ipynb", "--jobs", "0"], "give at least 1"),
        (["sweep", "work.ipynb", "--gpus", "a"], "no numbers of GPUs"),
        (["sweep", "work.ipynb", "--on", "slrum"], "did you mean 'slurm'"),
        (["sweep", "work.ipynb", "--time", "soon"], "time limit"),
        (["sweep", "work.ipynb", "--slurm", "account"], "not a name and a value"),
        (["sweep", "wrk.ipynb"], "did you mean"),
        (["status"], "no runs in runs"),
        (["logs", "abcd"], "no runs in runs"),
        (["clean", "abcd"], "no runs in runs"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(notebook, arguments, says, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pbb", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    assert stop.value.code == 2 and says in captured.err and len(captured.err.strip().splitlines()) == 1 and not captured.out
    assert not (notebook.parent / "runs").exists()


# --- cleaning -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(notebook) -> list[Path]:
    """Returns the folders of a finished, a failed, a killed and a running run."""
    sweep = make_sweep(notebook, {"n": [1, 2, 3, 4]})
    folders = [fake_run(sweep, i, status) for i, status in enumerate(("completed", "failed", "killed", "running"))]
    record = json.loads((folders[3] / "run.json").read_text())
    import platform

    (folders[3] / "run.json").write_text(json.dumps(record | {"host": platform.node() + "-other", "pid": 1, "pid_started": 0.0}))
    log_of(folders[1]).write_text("log")
    return folders


def test_clean_takes_only_what_ended_badly(kept, monkeypatch, capsys):
    out = call(monkeypatch, capsys, "clean")
    assert (
        "would delete" in out
        and kept[1].exists()
        and sorted(line.split(":")[1].split(",")[0].strip() for line in out.splitlines()[:2])
        == [
            "failed",
            "killed",
        ]
    )
    call(monkeypatch, capsys, "clean", "--yes")
    assert [folder.exists() for folder in kept] == [True, False, False, True] and not log_of(kept[1]).exists()
    assert "nothing to delete" in call(monkeypatch, capsys, "clean", "--yes")


def test_clean_takes_a_finished_run_only_by_its_key_and_a_running_one_never(kept):
    assert {item.paths[0] for item in leftovers(Path("runs"), ["work"])} == {folder.relative_to(Path.cwd()) for folder in kept[1:3]}
    delete(leftovers(Path("runs"), [kept[0].name]))
    assert not kept[0].exists()
    with pytest.raises(UsageError, match="is going on; stop it first"):
        leftovers(Path("runs"), [kept[3].name])
    stale = leftovers(Path("runs"))
    record = json.loads((kept[3] / "run.json").read_text())
    for folder in kept[1:3]:  # started again between the list and the deletion
        (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="was started again"):
        delete(stale)
    assert kept[1].exists() and kept[2].exists()


def test_what_was_listed_as_stopped_and_has_finished_since_stays(kept):
    stale = leftovers(Path("runs"), [kept[2].name])
    record = json.loads((kept[2] / "run.json").read_text())
    (kept[2] / "run.json").write_text(json.dumps(record | {"status": "completed"}))
    with pytest.raises(UsageError, match="was started again"):
        delete(stale)
    assert kept[2].exists()


def test_a_run_of_another_notebook_with_the_same_key_is_another_run(kept):
    """A key is of the parameters alone: a copy of a notebook has the same ones."""
    failed, other = kept[1], Path("runs") / "copy" / kept[1].name
    shutil.copytree(kept[0], other)
    assert [item.paths[0] for item in leftovers(Path("runs"), [f"work/{failed.name}"])] == [failed.relative_to(Path.cwd())]
    assert [run.folder for run in find_runs(Path("runs"), f"copy/{failed.name}")] == [other]
    with pytest.raises(UsageError, match=f"{failed.name} may be any of copy/{failed.name}, work/{failed.name}; give one of these"):
        leftovers(Path("runs"), [failed.name])
    with pytest.raises(UsageError, match="unknown run"):
        leftovers(Path("runs"), [f"nowhere/{failed.name}"])


def test_who_takes_the_lock_of_a_run_while_it_is_cleaned_holds_it_alone(kept, monkeypatch):
    path = kept[1].parent / f".{kept[1].name}.lock"
    with lock(path, print):
        pass
    there = path.stat().st_ino
    delete(leftovers(Path("runs")))
    assert not kept[1].exists() and path.stat().st_ino == there


def test_fingerprint_is_what_a_run_is_recognised_by(notebook):
    from pbb_helpers.parameters import read_notebook

    before = fingerprint(read_notebook(notebook), {})
    write_notebook(notebook, "## Work", WORK + "\n# more", parameters=PARAMETERS)
    after = fingerprint(read_notebook(notebook), {})
    assert before["notebook"] != after["notebook"] and before["package"] == after["package"]
