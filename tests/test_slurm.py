"""Sweeps through a real Slurm: one controller and one node on this machine, started in a temporary folder and stopped at the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from notebooks_for_tests import write_notebook

import pbb_helpers
from pbb_helpers.running.slurm import minutes

ROOT = Path(pbb_helpers.__file__).parent.parent
SCRIPT = Path(__file__).with_name("slurm.sh")
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
MISSING = [name for name in NEEDED if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None]
needs_slurm = pytest.mark.skipif(bool(MISSING), reason=f"no Slurm here ({', '.join(MISSING)} missing); as root: tests/slurm.sh install")

WORK = """import os, time
from pathlib import Path
assert n != 9, "nine is refused"
runs = Path(os.environ["PBB_RUNS"])
steps, allowed = runs / f"steps-{n}.txt", runs / "allowed.txt"
done = len(steps.read_text().split()) if steps.exists() else 0
with open(steps, "a") as file:
    for step in range(done, 6):
        while allowed.exists() and step >= int(allowed.read_text() or 0):  # a test holds it there
            time.sleep(0.05)
        print(step, file=file, flush=True)"""
ALL = [str(step) for step in range(6)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Returns the environment in which Slurm's commands talk to the cluster of these tests."""
    folder = tmp_path_factory.mktemp("slurm")
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "SLURM_CONF": str(folder / "slurm.conf")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with open(folder / "start.log", "w") as log:  # a pipe would stay open in the daemons
        started = subprocess.run([SCRIPT, "start", folder], env=environment, stdout=log, stderr=log, timeout=60, check=False)
    assert started.returncode == 0, (folder / "start.log").read_text()
    yield environment
    subprocess.run([SCRIPT, "stop", folder], env=environment, timeout=60, check=True)
    alive = [pid for name in ("munged", "slurmctld", "slurmd") if running(pid := read_pid(folder / f"{name}.pid"))]
    assert not alive, f"daemons left behind: {alive}"


def read_pid(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


def running(pid: int) -> bool:
    import psutil

    return pid > 0 and psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


class Project:
    """A folder with a notebook of slow steps, and the commands that a user types there."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        write_notebook(folder / "notebooks" / "steps.ipynb", "## Work", WORK)

    def pbb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Returns the finished command."""
        command = [sys.executable, "-m", "pbb_helpers", *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False)

    def sweep(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Returns the finished sweep on Slurm."""
        return self.pbb("sweep", "notebooks/steps.ipynb", *arguments, "--on", "slurm", "--partition", "low", "--time", "10", "--no-report")

    def slurm(self, *command: str) -> str:
        """Returns what a command of Slurm prints."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=True).stdout

    def record(self) -> dict:
        """Returns the run.json of the only run, {} before there is one."""
        paths = list(self.folder.glob("runs/steps/*/run.json"))
        return json.loads(paths[0].read_text()) if paths else {}

    def steps(self, n: int) -> list[str]:
        """Returns the steps that were done, in order: one is there twice if it was interrupted."""
        path = self.folder / f"runs/steps-{n}.txt"
        return path.read_text().split() if path.exists() else []

    def queued(self) -> str:
        """Returns the state of the only run's job in the queue, or "" when it has left it."""
        lines = self.slurm("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return next((state for job, state in map(str.split, lines) if job == self.job()), "")

    def hold(self) -> None:
        """Keeps runs at their first step."""
        (self.folder / "runs").mkdir(exist_ok=True)
        (self.folder / "runs" / "allowed.txt").write_text("0")

    def release(self) -> None:
        """Lets runs do all steps."""
        (self.folder / "runs" / "allowed.txt").unlink()

    def work_until(self, n: int, steps: int) -> None:
        """Lets the run do so many steps, and returns when it has."""
        (self.folder / "runs" / "allowed.txt").write_text(str(steps))
        wait_for(lambda: len(self.steps(n)) == steps)

    def job(self) -> str:
        """Returns the Slurm job of the only run."""
        (file,) = self.folder.glob("runs/steps/.*.slurm")
        return file.read_text().strip()


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


@pytest.fixture
def project(tmp_path, cluster) -> Project:
    return Project(tmp_path, cluster)


def table(text: str) -> list[list[str]]:
    """Returns the rows of the last table in a sweep's output, without the times."""
    lines = text[text.rindex("took") :].splitlines()[2:]
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[: next(i for i, line in enumerate(lines) if re.match(r"\d+ runs", line))]]
    return [[cell for cell in row if not re.fullmatch(r"\d+ s|\d+ min \d+ s", cell)] for row in rows]


@needs_slurm
def test_a_sweep_gives_the_table_that_it_gives_locally(project: Project):
    grid = ["-p", "n", "1,9"]
    there = project.sweep(*grid)
    assert there.returncode == 1 and "nine is refused" in there.stdout, there.stderr
    here = project.pbb("sweep", "notebooks/steps.ipynb", *grid, "--out", "here", "--no-report")
    assert table(there.stdout) == table(here.stdout)
    assert [row[1:3] for row in table(there.stdout)] == [["1", "done"], ["9", "failed"]]
    again = project.sweep("-p", "n", "1,2", "--dry-run")
    assert "2 runs: 1 finished, 1 to run" in again.stdout


@needs_slurm
def test_cancelled_and_killed_jobs_go_on_with_the_next_call(project: Project):
    grid = ["-p", "n", "4"]
    project.hold()
    assert project.sweep(*grid, "--no-wait").returncode == 0
    project.work_until(4, 2)
    project.slurm("scancel", project.job())
    wait_for(lambda: project.record()["status"] == "killed" and not project.queued())
    assert "goes on where it was" in project.sweep(*grid, "--dry-run").stdout

    assert project.sweep(*grid, "--no-wait").returncode == 0
    project.work_until(4, 4)
    os.kill(project.record()["pid"], signal.SIGKILL)
    wait_for(lambda: not project.queued())
    assert " killed " in project.pbb("status").stdout

    project.release()
    done = project.sweep(*grid)
    assert done.returncode == 0 and "1 run: 1 done" in done.stdout, done.stderr
    assert project.steps(4) == ALL, "a step was repeated or left out"


@needs_slurm
def test_a_preempted_job_is_queued_again_and_goes_on(project: Project):
    project.hold()
    assert project.sweep("-p", "n", "5", "--no-wait").returncode == 0
    project.work_until(5, 2)
    # By Slurm itself, for a job of a better partition that needs the whole node.
    project.slurm("sbatch", "--partition=high", "--exclusive", f"--output={project.folder}/urgent", "--wrap=sleep 1")
    wait_for(lambda: "PENDING" in project.queued())
    assert "queued" in project.pbb("status").stdout
    project.work_until(5, 4)
    # By the warning that comes before the time limit.
    project.slurm("scancel", "--signal=USR2", project.job())
    wait_for(lambda: "PENDING" in project.queued())
    project.release()
    done = project.sweep("-p", "n", "5")
    assert done.returncode == 0 and "1 run: 1 done" in done.stdout, done.stderr
    assert project.steps(5) == ALL, "a step was repeated or left out"


@needs_slurm
def test_what_sbatch_refuses_is_one_line(project: Project):
    done = project.pbb("sweep", "notebooks/steps.ipynb", "-p", "n", "1", "--on", "slurm", "--partition", "nowhere")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and "invalid partition" in lines[0]


def test_without_slurm_it_is_one_line(tmp_path):
    write_notebook(tmp_path / "tiny.ipynb")
    environment = {**os.environ, "PATH": "/nowhere", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pbb_helpers", "sweep", "tiny.ipynb", "--on", "slurm"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and "no Slurm here" in lines[0]


def test_time_limits():
    assert [minutes(text) for text in ("5", "0:59", "1:00:01", "2-0", "1-2:30")] == [5, 1, 61, 2880, 1590]
    for bad in ("", "soon", "0", "1:2:3:4", "-5", "9" * 5000):
        with pytest.raises(ValueError, match="time limit"):
            minutes(bad)
