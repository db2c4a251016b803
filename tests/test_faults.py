"""A seeded campaign of faults: after each nothing that was finished is lost, no row is wrong, and the same command gives the same table.

A short one by default. A long one, for example of 500: PBB_FAULTS=500 python -m pytest tests/test_faults.py (PBB_FAULTS_SEED draws others).
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults
import psutil
import pytest
from campaign import FILES, KINDS, Campaign, wanted
from notebooks_for_tests import write_notebook

from pbb_helpers.parameters import read_notebook, read_parameters
from pbb_helpers.programs import UsageError
from pbb_helpers.running.run_record import all_runs, read_run

COUNT, SEED = int(os.environ.get("PBB_FAULTS", 32)), int(os.environ.get("PBB_FAULTS_SEED", 0))
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
"""A namespace in which a process may mount a small file system; not every machine permits one."""


def may_mount(folder: Path) -> bool:
    """Returns whether a file system of a few pages can be mounted in a namespace of its own."""
    command = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def campaign(shipped_like, tmp_path_factory) -> list[dict]:
    """Returns what campaign.py says of each fault."""
    folder = tmp_path_factory.mktemp("campaign")
    mount = may_mount(folder)
    command = [sys.executable, str(faults.TESTS / "campaign.py"), str(shipped_like), str(folder), str(COUNT), str(SEED)]
    done = subprocess.run(
        [*UNSHARE, *command, "mount"] if mount else [*command, "inject"], capture_output=True, text=True, env=faults.environment()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_survives(campaign, kind):
    lines = [line for line in campaign if line["kind"] == kind]
    bad = [line for line in lines if line["bad"] is not None]
    assert len(lines) == wanted(kind, COUNT) and not bad, json.dumps(bad, indent=1)
    faults.SURVIVED[kind] += len(lines)


def test_every_file_had_every_harm(campaign):
    done = {line["what"].split(":")[0] for line in campaign if line["kind"] == "damaged or foreign file"}
    assert done == {f"{harm.__name__} {pattern}" for harm in faults.HARMS for pattern in (*FILES, "*/checkpoint-*/*")}


def test_what_was_no_fault_is_drawn_again_and_not_counted():
    """A signal that came too late, the same bytes: what ends in nothing time and again is said to be wrong."""
    never = object.__new__(Campaign)
    names = ("training", "answers", "rendering", "disk", "damage", "foreign_folder", "two", "clock")
    answers = {name: iter([None, ("cut", None)] * 50) for name in names} | {"two": iter([None] * 100)}
    for name in names:
        setattr(never, name, functools.partial(next, answers[name]))
    lines = list(never.run(32))
    assert {kind: sum(line["kind"] == kind for line in lines) for kind in KINDS} == {kind: wanted(kind, 32) for kind in KINDS}
    assert {line["kind"] for line in lines if line["bad"]} == {"two processes on one store"} and all(line["what"] for line in lines)


def test_damaged_model_and_notebook_files_are_one_line_or_another_key(shipped_like, tmp_path):
    """No answers of a damaged model can pass for those of the whole one: it is refused, or known by another key."""
    from pbb_helpers.training import models

    draws, key, total, counted = random.Random(SEED), models.load(str(shipped_like), device="cpu").key, max(12, COUNT // 4), 0
    for number in range(total):
        folder = tmp_path / str(number)
        shutil.copytree(shipped_like, folder)
        path = write_notebook(folder / "tiny.ipynb") if number % 4 == 0 else draws.choice(sorted(folder.glob("*.*")))
        old = path.read_bytes()
        faults.HARMS[number % 3](path, draws)
        assert path.read_bytes() != old
        try:
            if number % 4 == 0:
                read_parameters(read_notebook(path), path)
            else:
                assert models.load(str(folder), device="cpu").key != key, path
                counted += 1
        except UsageError as error:
            assert "\n" not in str(error), f"{path}: {error}"
            counted += 1
    assert counted >= total * 3 // 4, "a notebook in which a letter became another is one still: no fault"
    faults.SURVIVED["damaged model or notebook"] += counted


# ---------------------------------------------------------------- a notebook

BODY = """import time
from pbb_helpers.training.store import Store
store = Store(notebook.runs_root() / "store")
for seed in range(8):
    if store.load_rows("a" * 64, str(seed)) is None:
        time.sleep(seconds)
        store.save_rows("a" * 64, str(seed), [{"condition": "base", "seed": seed, "correct": seed % 3 == 0}])
rows = [row for seed in range(8) for row in store.load_rows("a" * 64, str(seed))]"""
RESULTS = """import pandas as pd
table = pd.DataFrame([{"condition": "base", "mode": "direct", "group": "without_io", "seed": "all", "n": 8, "accuracy": 3 / 8}])
notebook.record(rows=rows, results=table, headline="3 of 8")"""


class Project:
    """A folder with a notebook that answers eight questions, one after the other, into a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_notebook(folder / "tiny.ipynb", "## Work", "from pbb_helpers import notebook", BODY, "## Results", RESULTS)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Returns `pbb run` on its way."""
        command = [sys.executable, "-m", "pbb_helpers", "run", "tiny.ipynb", "-p", "seconds", "0.1", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=faults.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str]:
        """Returns exit status and error output of `pbb run`."""
        process = self.start(*arguments)
        _, err = process.communicate(timeout=120)
        return process.returncode, err

    def results(self) -> dict[str, bytes]:
        """Returns the files that people read of the one completed run."""
        (run,) = (run for run in all_runs(self.folder / "runs") if run.status == "completed")
        return {name: (run.folder / name).read_bytes() for name in ("rows.jsonl", "results.csv", "headline.txt")}

    def answered(self) -> dict[Path, int]:
        """Returns the finished answers with the times they were written."""
        return {path: path.stat().st_mtime_ns for path in self.folder.glob("runs/store/*/rows/[0-7]/manifest.json")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[dict[str, bytes], float]:
    """Returns the results of a notebook run without faults, and its seconds."""
    project, began = Project(tmp_path_factory.mktemp("whole")), time.monotonic()
    assert project.run()[0] == 0
    return project.results(), time.monotonic() - began


def test_notebook_survives_signals(whole, tmp_path):
    """One run stopped again and again, from start-up to the report; the last call goes on from all of them."""
    draws, project, seconds = random.Random(SEED), Project(tmp_path), whole[1]
    total, number = max(3, COUNT // 15), 0
    for _ in range(10 * total):
        which, before = faults.SIGNALS[number % 3], project.answered()
        process, began, family = project.start(), time.monotonic(), set()
        after = draws.uniform(0.1, 0.9) * seconds
        while time.monotonic() < began + after and process.poll() is None:
            family |= {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
            time.sleep(0.05)
        if process.poll() is None:
            process.send_signal(which)
        _, err = process.communicate(timeout=60)
        if process.returncode == 0:  # finished before the signal: no fault
            assert project.results() == whole[0]
            shutil.rmtree(tmp_path / "runs")
            continue
        said = f"{which.name} after {after:.1f} s, exit {process.returncode}: {err[-1500:]}"
        assert faults.gone(*family, within=15), f"{said}: processes left"
        assert "Traceback" not in err, said
        assert process.returncode in ((-which,) if which == signal.SIGKILL else (-which, 128 + which)), said
        assert which == signal.SIGKILL or process.returncode < 0 or f"stopped by {which.name}" in err, said
        for record in (tmp_path / "runs").glob("tiny/*/run.json"):
            assert read_run(record.parent)["status"] in ("killed", "completed"), said
        assert before.items() <= project.answered().items(), said
        number += 1
        if number == total:
            break
    assert number == total, "signals that came too late are no faults"
    faults.SURVIVED["signal while a notebook runs"] += number
    before = project.answered()
    assert project.run()[0] == 0 and project.results() == whole[0]
    assert before.items() <= project.answered().items()


@pytest.mark.parametrize(
    ("cell", "status", "says"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed", "the kernel died: killed, or out of memory"),
        ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\nx = bytearray(2**32)", "failed", "MemoryError"),
    ],
    ids=["killed for want of memory", "limited"],
)
def test_kernel_out_of_memory_is_said_and_loses_nothing(whole, tmp_path, cell, status, says):
    project = Project(tmp_path)
    mended = (tmp_path / "tiny.ipynb").read_bytes()
    write_notebook(tmp_path / "tiny.ipynb", "## Work", "from pbb_helpers import notebook", BODY, "## Large", cell)
    code, err = project.run()
    last = err.strip().splitlines()[-1]
    assert code == 1 and says in last and "(Large)" in last and "Traceback" not in err, err
    (record,) = (read_run(path.parent) for path in (tmp_path / "runs").glob("tiny/*/run.json"))
    assert record["status"] == status
    before = project.answered()
    (tmp_path / "tiny.ipynb").write_bytes(mended)
    assert len(before) == 8 and project.run()[0] == 0 and project.results() == whole[0] and project.answered() == before
    faults.SURVIVED["kernel out of memory"] += 1


def test_notebook_survives_a_full_disk(whole, tmp_path):
    """Really full, where a small file system can be mounted: each call gets a little more room than the one before."""
    if not may_mount(tmp_path):
        pytest.skip("this machine lets no process mount a file system; the campaign injects the error instead")
    project = Project(tmp_path)
    command = f"{sys.executable} -m pbb_helpers run tiny.ipynb -p seconds 0.0"
    steps = [f"mkdir runs; mount -t tmpfs -o size=24k tmpfs runs; {command}; echo exit $?"]
    steps += [f"mount -o remount,size={size}k runs; {command}; echo exit $?" for size in (72, 2**16)]
    steps += ["cp -a runs after"]
    done = subprocess.run([*UNSHARE, "sh", "-c", "\n".join(steps)], cwd=tmp_path, env=faults.environment(), capture_output=True, text=True)
    exits = [line for line in done.stdout.splitlines() if line.startswith("exit")]
    assert exits == ["exit 2", "exit 2", "exit 0"] and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert done.stderr.lower().count("no space left on") == 2, done.stderr
    (tmp_path / "runs").rmdir()
    (tmp_path / "after").rename(tmp_path / "runs")
    assert project.results() == whole[0]
    faults.SURVIVED["full disk under a notebook"] += 2
