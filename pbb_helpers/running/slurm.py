"""The runs of a sweep as a job array on a Slurm cluster, through submitit.

The folder of runs must be one that the cluster's nodes share. A job that Slurm preempts or that reaches its time limit is queued again and
goes on from its last checkpoint. What became of a run is read from its own record, as on one machine: no accounting database is needed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pbb_helpers.disk import write_text
from pbb_helpers.programs import UsageError
from pbb_helpers.running.run_logs import job_file, job_of
from pbb_helpers.running.sweep import Point, Sweep

POLL = 2.0  # seconds between questions to Slurm's controller, which has other users
TIMEOUTS = 100
"""How often a job that reaches its time limit is queued again."""
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
MISSING = 2  # polls without a trace of a job before it is taken for ended: a shared disk may lag behind the queue


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks of the cluster.

    Attributes:
        partition: The cluster's default when None.
        minutes: Time limit of one job; a longer run is queued again and goes on.
        cpus: Cores of a job.
        gpus: GPUs of a job.
        more: Any other option of sbatch by name, for example account or mem.
    """

    partition: str | None = None
    minutes: int = 60
    cpus: int = 1
    gpus: int = 0
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Task:
    """One run, as submitit calls it on a node."""

    notebook: str
    given: dict[str, Any]
    out_dir: str
    log: str

    def __call__(self) -> str:
        """Returns the run's folder.

        Raises:
            RuntimeError: The notebook failed: Slurm then shows the job as failed.
        """
        from pbb_helpers.running import runner
        from pbb_helpers.running.terminal import Terminal

        with open(self.log, "w", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            result = runner.run(self.notebook, self.given, out_dir=self.out_dir, on_event=Terminal().event)
        if result.status != "completed":
            raise RuntimeError(result.error)
        return str(result.folder)

    def checkpoint(self) -> Any:
        """Returns what submitit queues again: the same run, which goes on by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Slurm:
    """Runs in Slurm's queue; submits what is neither finished, running nor queued already.

    Args:
        sweep: What to run.
        jobs: At most so many jobs of the array run at once.
        options: What each job asks for.

    Raises:
        UsageError: No Slurm or no submitit here, or sbatch refuses.
    """

    def __init__(self, sweep: Sweep, jobs: int, options: SlurmOptions) -> None:
        self.sweep, self.ended = sweep, {}
        self._reasons: dict[str, str] = {}
        self._queue = queue()
        self._missing: dict[str, int] = {}
        self._polled = time.monotonic()
        waiting = []
        for point in sweep.points:
            state = sweep.state(point)
            if state == "finished":
                self.ended[point.key] = "finished"
            elif state != "running" and job_of(point.folder) not in self._queue:
                waiting.append(point)
        if waiting:
            _submit(sweep, waiting, jobs, options)
            self._queue = queue()

    def advance(self) -> bool:
        """Looks at the queue, not too often, and notices what has ended."""
        if time.monotonic() - self._polled >= POLL:
            self._queue, self._polled = queue(), time.monotonic()
            for point in self.sweep.points:
                if point.key not in self.ended:
                    self._look(point)
        return len(self.ended) < len(self.sweep.points)

    def _look(self, point: Point) -> None:
        state, job = self.sweep.state(point), job_of(point.folder)
        if state == "finished":
            self.ended[point.key] = "done"
        elif state == "running" or job in self._queue:
            self._missing.pop(point.key, None)
        else:
            self._missing[point.key] = self._missing.get(point.key, 0) + 1
            if self._missing[point.key] >= MISSING:
                final = _final_state(job)
                self.ended[point.key] = "cancelled" if final.startswith("CANCELLED") else "failed"
                self._reasons[point.key] = f"Slurm: {final}, job {job}"

    def state(self, point: Point) -> str:
        """Returns how a run stands."""
        if point.key in self.ended:
            return self.ended[point.key]
        slurm, _ = self._queue.get(job_of(point.folder), ("", ""))
        return "queued" if slurm in WAITING else "running"

    def reason(self, point: Point) -> str:
        """Returns why a job waits or how it ended, in Slurm's words."""
        if point.key in self._reasons:
            return self._reasons[point.key]
        slurm, why = self._queue.get(job_of(point.folder), ("", ""))
        return why if slurm in WAITING and why != "None" else ""

    def stop(self) -> str:
        """Leaves the jobs alone: they don't need this process."""
        jobs = sorted({job_of(point.folder).split("_")[0] for point in self.sweep.points if point.key not in self.ended})
        return f"the jobs stay in the queue; the same command watches them again, this ends them: scancel {' '.join(jobs)}"


def _submit(sweep: Sweep, points: list[Point], jobs: int, options: SlurmOptions) -> None:
    try:
        from submitit.core.utils import FailedJobError, FailedSubmissionError
        from submitit.slurm.slurm import SlurmExecutor
    except ImportError:
        raise UsageError("--on slurm needs submitit, which is not installed; install it with: pip install submitit") from None
    out_dir = points[0].folder.parent.parent
    executor = SlurmExecutor(out_dir / ".slurm", max_num_timeout=TIMEOUTS)
    more = {"requeue": True, **options.more} | ({"gpus": options.gpus} if options.gpus else {})
    executor.update_parameters(
        job_name=f"pbb-{sweep.notebook.stem}",
        time=options.minutes,
        cpus_per_task=options.cpus,
        array_parallelism=jobs,
        stderr_to_stdout=True,
        additional_parameters=more,
        **({"partition": options.partition} if options.partition else {}),
    )
    tasks = [Task(str(sweep.notebook), point.given, str(out_dir), str(point.log)) for point in points]
    for point in points:
        point.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.redirect_stderr(io.StringIO()), executor.batch():  # submitit prints an error that it raises
            submitted = [executor.submit(task) for task in tasks]
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        raise UsageError(f"sbatch refused the sweep: {' '.join(str(error).split())}") from None
    for point, job in zip(points, submitted, strict=True):
        write_text(job_file(point.folder), f"{job.job_id}\n")


def queue() -> dict[str, tuple[str, str]]:
    """Returns the state and reason of each of this user's jobs that Slurm holds, by job id ("12" or "12_0").

    Raises:
        UsageError: There is no Slurm here, or its controller does not answer.
    """
    if shutil.which("squeue") is None or shutil.which("sbatch") is None:
        raise UsageError(
            "there is no Slurm here: squeue and sbatch are not in PATH; run the sweep without --on slurm, or on the login node"
        )
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%T|%r"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"Slurm does not answer: {' '.join(done.stderr.split())}")
    rows = (line.strip().split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2)
    return {job: (state, reason) for job, state, reason in rows}


def queued_runs(out_dir: Path) -> dict[str, str]:
    """Returns "notebook/key" → state in Slurm's queue of the runs below a folder; nothing where there is no Slurm."""
    folders = [file.with_name(file.name[1:].removesuffix(".slurm")) for file in out_dir.glob("*/.*.slurm")]
    if not folders or shutil.which("squeue") is None:
        return {}
    jobs, names = queue(), {f"{folder.parent.name}/{folder.name}": job_of(folder) for folder in folders}
    return {name: "queued" if jobs[job][0] in WAITING else "running" for name, job in names.items() if job in jobs}


def _final_state(job: str) -> str:
    """Returns how a job ended; Slurm forgets that after some minutes."""
    done = subprocess.run(["scontrol", "show", "job", "--oneliner", job], capture_output=True, text=True, check=False)
    match = re.search(r"JobState=(\w+)", done.stdout)
    return match[1] if match else "no longer known"


def minutes(text: str) -> int:
    """Returns a time limit in whole minutes, from one as Slurm writes it.

    >>> minutes("90"), minutes("2:00:00"), minutes("1-12"), minutes("0:30")
    (90, 120, 2160, 1)

    Raises:
        UsageError: It is none.
    """
    match = re.fullmatch(r"(?:(\d{1,9})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?", text.strip())
    if match:
        days, first, second, third = (int(part or 0) for part in match.groups())
        if match[1] is not None:  # days-hours:minutes:seconds
            seconds = days * 86400 + first * 3600 + second * 60 + third
        elif match[4] is not None:
            seconds = first * 3600 + second * 60 + third
        else:
            seconds = first * 60 + second
        if seconds > 0:
            return -(-seconds // 60)
    raise UsageError(f"time limit {text!r} is none; write minutes, hours:minutes:seconds or days-hours, for example 4:00:00")
