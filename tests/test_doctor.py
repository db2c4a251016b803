"""The doctor finds each damage that is planted, says what to do, and puts right only what is safe."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from campaign import write_runs

from pbb_helpers import disk, doctor
from pbb_helpers.cli import main
from pbb_helpers.disk import lock
from pbb_helpers.running.run_record import read_run
from pbb_helpers.sharing.report_index import render_all
from pbb_helpers.training import model_files
from pbb_helpers.training.store import Store

KEY, RECIPE = "ab" * 32, "ef" * 32


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Returns a working folder with two finished runs, their reports, and a store with a stage, answers and a checkpoint of another."""
    monkeypatch.chdir(tmp_path)
    write_runs(Path("runs"))
    render_all("runs", "reports")
    store = Store("runs/store")
    with store.locked(KEY):
        store.finish(KEY, {"name": "stage1"}, [{"step": 1}], lambda folder: (folder / "adapter.safetensors").write_bytes(b"weights"))
    store.save_rows(KEY, "e" * 16, [{"correct": True}])
    store.remember(RECIPE, [KEY])
    store.save_checkpoint("cd" * 32, 5, lambda folder: (folder / "state").write_text("x"))
    return tmp_path


def pbb_doctor(capsys, monkeypatch, *options: str) -> tuple[int, list[str]]:
    """Returns exit status and lines of `pbb doctor`."""
    monkeypatch.setattr(sys, "argv", ["pbb", "doctor", *options])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0, capsys.readouterr().out.splitlines()
    raise AssertionError("the command line always exits")


def bad(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith(("problem", "fixed"))]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_all_is_well(project, capsys, monkeypatch):
    before = everything(project)
    status, lines = pbb_doctor(capsys, monkeypatch)
    assert status == 0 and not bad(lines), lines
    for check in ("python", "libraries", "machine", "runs/", "reports/", "model pbb-small", "store", "runs", "reports"):
        assert any(line.split(": ")[0].split(None, 1)[1] == check for line in lines), check
    assert any("1 of 1 finished stages" in line for line in lines) and any("1 unfinished stages" in line for line in lines)
    assert everything(project) == before


def test_nothing_was_run_yet(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, lines = pbb_doctor(capsys, monkeypatch)
    assert status == 0 and not bad(lines) and not list(tmp_path.iterdir())


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3] + b"?\n")


def leave(path: str, age: float = 2 * doctor.OLD) -> None:
    Path(path).parent.mkdir(exist_ok=True, parents=True)
    Path(path).write_text("half")
    os.utime(path, (time.time() - age,) * 2)


STAGE, STATE = f"runs/store/{KEY[:16]}", f"runs/store/{'cd' * 8}/checkpoint-5/state"
RUN, NOTE = "runs/one/0123456789ab", f"runs/store/.known/{RECIPE[:16]}.json"
DEAD = {"status": "running", "host": platform.node(), "pid": 2**22 + 1, "pid_started": 1.0}


@pytest.mark.parametrize(
    ("plant", "says", "after"),
    [
        (lambda: flip(Path(STAGE, "adapter/adapter.safetensors")), "adapter.safetensors has", f"{STAGE}/adapter.damaged"),
        (lambda: flip(Path(STAGE, "manifest.json")), "manifest.json cannot be read", f"{STAGE}/manifest.json.damaged"),
        (lambda: Path(STAGE, "metrics.jsonl").unlink(), "metrics.jsonl is missing", f"{STAGE}/manifest.json.damaged"),
        (lambda: flip(Path(STAGE, "rows", "e" * 16, "rows.jsonl")), "rows.jsonl has", f"{STAGE}/rows/{'e' * 16}.damaged"),
        (lambda: flip(Path(NOTE)), "is damaged: it cannot be read", f"{NOTE}.damaged"),
        (lambda: Path(NOTE).write_text(Path(NOTE).read_text().replace("ab", "ac", 1)), "is damaged: it does not say", f"{NOTE}.damaged"),
        (lambda: flip(Path(STATE)), "state has", str(Path(STATE).parent) + ".damaged"),
        (lambda: Path(STAGE, ".config.json.4194399.tmp").write_text("half"), "1 temporary files of killed processes", None),
        (lambda: Path(STAGE, "rows/.x.4194399.new.tmp").mkdir(), "1 temporary files of killed processes", None),
        (lambda: leave("reports/.index.html.4194399.tmp"), "1 temporary files of killed processes", None),
        (lambda: leave("runs/story/0123456789ab/.run.json.4194399.tmp"), "1 temporary files of killed processes", None),
        (lambda: leave("reports/scaling/.0123456789ab.html.4194399.tmp"), "1 temporary files of killed processes", None),
        (lambda: leave("runs/store/.known/.x.json.4194399.tmp"), "1 temporary files of killed processes", None),
        (lambda: flip(Path(RUN, "run.json")), "one/0123456789ab is damaged: run.json", f"{RUN}.damaged"),
        (lambda: Path(RUN, "run.json").write_text("[]"), "run.json a JSON list and not an object", f"{RUN}.damaged"),
        (lambda: Path(RUN, "one.ipynb").unlink(), "one.ipynb is missing", f"{RUN}.damaged"),
        (lambda: Path("reports/one/0123456789ab.html").unlink(), "1 of 2 are missing", "reports/one/0123456789ab.html"),
        (lambda: Path(RUN, "headline.txt").write_text("3 of 4"), "1 of 2 are missing or older", "reports/one/0123456789ab.html"),
    ],
    ids=["adapter", "manifest", "metrics", "answers", "note", "foreign note", "checkpoint", "temporary file", "temporary folder", "half a page", "half a record",
         "half a report", "half a note", "record", "foreign record",
         "no notebook", "no report", "old report"],
)  # fmt: skip
def test_damage_is_found_and_put_right(project, capsys, monkeypatch, plant, says, after):
    plant()
    before = everything(project)
    status, lines = pbb_doctor(capsys, monkeypatch)
    assert status == 1 and any(line.startswith("problem") and says in line for line in lines), lines
    assert everything(project) == before, "looking changes nothing"

    status, lines = pbb_doctor(capsys, monkeypatch, "--fix")
    assert status == 0 and bad(lines) and all(line.startswith("fixed") for line in bad(lines)), lines
    assert after is None or Path(after).exists()
    kept = set(everything(project).values())
    assert all(data in kept for name, data in before.items() if name.startswith(str(project / "runs")) and ".tmp" not in name)

    status, lines = pbb_doctor(capsys, monkeypatch, "--fix")  # a run that was set aside has a report no more
    status, lines = pbb_doctor(capsys, monkeypatch)
    assert status == 0 and not bad(lines), lines


def test_a_record_of_a_process_that_is_gone_is_corrected(project, capsys, monkeypatch):
    path = Path(RUN, "run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | DEAD))
    render_all("runs", "reports")
    status, lines = pbb_doctor(capsys, monkeypatch)
    assert status == 1 and any("says it is running, but its process is gone" in line for line in lines), lines
    assert pbb_doctor(capsys, monkeypatch, "--fix")[0] == 0
    assert json.loads(path.read_text())["status"] == read_run(path.parent)["status"] == "killed"
    assert pbb_doctor(capsys, monkeypatch)[0] == 0


def test_what_somebody_else_removed_meanwhile_is_no_error(tmp_path):
    doctor._remove([tmp_path / ".index.html.4194399.tmp"])


def test_what_a_process_works_on_is_left_alone(project, capsys, monkeypatch):
    flip(Path(STAGE, "adapter/adapter.safetensors"))
    Path(STAGE, ".config.json.1.tmp").write_text("half")
    before = everything(project)
    with lock(Path(STAGE, ".lock"), print):
        status, lines = pbb_doctor(capsys, monkeypatch, "--fix")
    assert status == 0 and any(f"{KEY[:16]} in use by a running process" in line for line in lines), lines
    assert everything(project) == before


def test_a_young_temporary_file_may_be_that_of_a_process_elsewhere(project, capsys, monkeypatch):
    leave("runs/story/0123456789ab/.run.json.4194399.tmp", age=0)
    assert pbb_doctor(capsys, monkeypatch)[0] == 0 and pbb_doctor(capsys, monkeypatch, "--fix")[0] == 0
    assert Path("runs/story/0123456789ab/.run.json.4194399.tmp").exists()


def test_where_a_disk_has_no_locks_nothing_is_swept(project, capsys, monkeypatch):
    left = Path(STAGE, "rows/.x.4194399.new.tmp")
    left.mkdir()
    monkeypatch.setattr(disk, "_try_lock", lambda handle: None)
    status, lines = pbb_doctor(capsys, monkeypatch, "--fix")
    assert status == 1 and any("1 temporary files of killed processes" in line for line in bad(lines)) and left.exists(), lines
    assert lines[-1].startswith("ok       reports"), "what comes after it is looked at as well"


def test_what_was_made_anew_since_it_was_looked_at_is_not_set_aside(project):
    store = Store("runs/store")
    path = Path(STAGE, "adapter/adapter.safetensors")
    whole = path.read_bytes()
    flip(path)
    damage = store.damage(Path(STAGE))
    path.write_bytes(whole)
    doctor._set_aside(store, Path(STAGE), damage)
    assert store.is_whole(KEY)


def test_a_manifest_that_names_files_elsewhere_is_said(project, capsys, monkeypatch, tmp_path):
    path = Path(STAGE, "manifest.json")
    manifest = json.loads(path.read_text())
    manifest["files"] |= {str(tmp_path / "mine.txt"): {"bytes": 1, "sha256": "0" * 64}}
    text = json.dumps(manifest["files"], sort_keys=True) + manifest["of"]
    path.write_text(json.dumps(manifest | {"sha256": hashlib.sha256(text.encode()).hexdigest()}))
    status, lines = pbb_doctor(capsys, monkeypatch)
    assert status == 1 and any("manifest.json names a file outside of its folder" in line for line in lines), lines


def test_a_damaged_shipped_model_is_said(project, capsys, monkeypatch, tmp_path):
    copy = tmp_path / "shipped"
    shutil.copytree(model_files.SHIPPED, copy)
    monkeypatch.setattr(model_files, "SHIPPED", copy)
    assert pbb_doctor(capsys, monkeypatch)[0] == 0
    weights = copy / "pbb-small" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-10] ^= 1
    weights.write_bytes(data)
    status, lines = pbb_doctor(capsys, monkeypatch)
    assert status == 1 and any("model pbb-small: its files are not those it was shipped with" in line for line in lines), lines
    weights.write_bytes(data[:1000])
    status, lines = pbb_doctor(capsys, monkeypatch)
    assert status == 1 and any("shipped model: " in line and "git checkout" in line for line in bad(lines)), lines


@pytest.mark.parametrize(
    ("versions", "status", "says"),
    [
        ({"peft": "0.1.0"}, 1, "problem  libraries: peft 0.1.0 (needs"),
        ({"torch": None}, 1, "problem  libraries: torch missing (needs ==2.13.0)"),
        ({"torch": "2.13.0+cu130"}, 0, "ok       libraries: torch 2.13.0+cu130"),
        ({"numpy": "2.99.0"}, 0, "note     libraries: allowed, though not those it was tested with: numpy 2.99.0 (tested with"),
    ],
)
def test_libraries_are_held_against_what_is_asked_for(project, capsys, monkeypatch, versions, status, says):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if versions.get(name, "") is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    code, lines = pbb_doctor(capsys, monkeypatch)
    assert code == status and any(line.startswith(says) for line in lines), lines


def test_a_disk_that_is_full_or_shut_is_said(project, capsys, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    status, lines = pbb_doctor(capsys, monkeypatch)
    assert status == 1 and sum("only 1 MB are free" in line for line in bad(lines)) == 2, lines
    status, lines = pbb_doctor(capsys, monkeypatch, "--runs", "/proc/runs")
    assert status == 1 and any("/proc/runs/: can't be written to" in line for line in lines), lines


def test_little_memory_is_a_note_that_says_how_many_processes(project, capsys, monkeypatch):
    monkeypatch.setattr(doctor.provenance, "hardware", lambda: {"cpu": "x", "cores": 8, "memory_gb": 5, "gpus": []})
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 4.9e9})())
    status, lines = pbb_doctor(capsys, monkeypatch)
    assert status == 0 and any(line.startswith("note") and "give -p processes 2" in line for line in lines), lines


def test_it_works_without_torch_in_seconds(project):
    code = "import sys, pbb_helpers.doctor; sys.exit('torch' in sys.modules)"
    path = os.pathsep.join(sys.path)
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}).returncode == 0
