"""Runs a sweep on this machine, one process a run, and watches it: the same loop and table serve a cluster's queue."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Group
from rich.live import Live
from rich.text import Text

from pbb_helpers.markup import visible
from pbb_helpers.progress import duration
from pbb_helpers.running.run_logs import tail
from pbb_helpers.running.run_record import RunResult
from pbb_helpers.running.run_table import Status, console, elapsed, note, settings, summary, sweep_table
from pbb_helpers.running.sweep import Point, Sweep, time_left

POLL = 0.5  # seconds
GRACE = 15.0  # seconds that runs get to end after Ctrl-C before they are killed
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Backend(Protocol):
    """Where the runs of a sweep are executed."""

    def advance(self) -> bool:
        """Starts what can be started, notices what has ended, and returns whether anything is still to come."""

    def state(self, point: Point) -> str:
        """Returns the state of a run, a word as in `Status`."""

    def reason(self, point: Point) -> str:
        """Returns why a run ended badly or waits, where its own record doesn't know, or ""."""

    def stop(self) -> str:
        """Ends or leaves what is going on, and returns what that means for the user."""


@dataclass
class _Slot:
    """A place for one run at a time: cores and a GPU of its own, so that runs don't take them from each other."""

    cores: list[int]
    gpu: str | None
    point: Point | None = None
    process: subprocess.Popen[bytes] | None = None


class Local:
    """Runs on this machine, at most `jobs` at once.

    Args:
        sweep: What to run.
        jobs: How many at once; the cores are shared out among them.
        gpus: CUDA's numbers of the GPUs, shared out in turn; none leaves the environment as it is.
    """

    def __init__(self, sweep: Sweep, jobs: int, gpus: Sequence[str] = ()) -> None:
        self.sweep = sweep
        self.slots = [_Slot(_share(i, jobs), gpus[i % len(gpus)] if gpus else None) for i in range(jobs)]
        self.waiting = deque(sweep.points)
        self.elsewhere: list[Point] = []
        self.ended: dict[str, str] = {}
        self._tried: set[str] = set()

    def advance(self) -> bool:
        """Notices what has ended and fills the free slots."""
        for slot in self.slots:
            if slot.process is not None and slot.process.poll() is not None and slot.point is not None:
                self.ended[slot.point.key] = "failed" if slot.process.returncode else "done"
                slot.process = slot.point = None
        for point in [point for point in self.elsewhere if self.sweep.state(point) != "running"]:
            self.elsewhere.remove(point)  # another sweep ran it; if it did not finish, this one does
            self.waiting.append(point)
        free = deque(slot for slot in self.slots if slot.process is None)
        while free and self.waiting:
            point = self.waiting.popleft()
            state = self.sweep.state(point)
            if state == "running":
                self.elsewhere.append(point)
            elif state == "finished":
                self.ended[point.key] = "finished"
            else:
                _start(self.sweep, point, free.popleft())
        return bool(self.waiting or self.elsewhere) or any(slot.process is not None for slot in self.slots)

    def state(self, point: Point) -> str:
        """Returns how a run stands."""
        if point.key in self.ended:
            return self.ended[point.key]
        return "running" if point in self.elsewhere or any(slot.point is point for slot in self.slots) else "waiting"

    def reason(self, point: Point) -> str:
        """Returns the last line that a failed run printed: it may have failed before it had a record."""
        return "".join(tail(point.log, 1)) if self.ended.get(point.key) == "failed" else ""

    def stop(self) -> str:
        """Asks the runs to end, which they do cleanly, and kills what has not after a while."""
        running = [(slot.point, slot.process) for slot in self.slots if slot.process is not None and slot.point is not None]
        for _, process in running:
            process.terminate()
        deadline = time.monotonic() + GRACE
        for point, process in running:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self.ended[point.key] = "stopped"
        return "the same command goes on where it was"


def _share(number: int, jobs: int) -> list[int]:
    """Returns the cores of a slot; none where there is no choice."""
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    return cores[number * len(cores) // jobs : (number + 1) * len(cores) // jobs] or [cores[number % len(cores)]]


def _start(sweep: Sweep, point: Point, slot: _Slot) -> None:
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": slot.gpu} if slot.gpu is not None else {})
    point.log.parent.mkdir(parents=True, exist_ok=True)
    with open(point.log, "wb") as log:
        slot.process = subprocess.Popen(
            command(sweep, point), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    slot.point = point
    if slot.cores:
        # Before it has imported anything: number of threads and of processes follow from the cores that it may use.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(slot.process.pid, slot.cores)


def command(sweep: Sweep, point: Point) -> list[str]:
    """Returns the command line of one run."""
    given = (f"{name}={value if isinstance(value, str) else repr(value)}" for name, value in point.given.items())
    pairs = [part for pair in given for part in ("-p", pair)]
    return [
        sys.executable,
        "-m",
        "pbb_helpers",
        "run",
        str(sweep.notebook),
        *pairs,
        "--out",
        str(point.folder.parent.parent),
        "--no-report",
    ]


class Signals:
    """Notes Ctrl-C and its like instead of dying of them, so that the runs can be ended in order.

    Attributes:
        came: The name of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.came: str | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for name in SIGNALS:
            if hasattr(signal, name):
                number = getattr(signal, name)
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        self.came = signal.Signals(number).name


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes:
        statuses: How each run stands, by key.
        signal: The name of the signal that stopped it, or None.
        advice: What that means for the user, or "".
    """

    statuses: dict[str, Status]
    signal: str | None = None
    advice: str = ""


def watch(sweep: Sweep, backend: Backend, times: Mapping[str, float], jobs: int) -> Outcome:
    """Returns how the sweep ended, after showing a live table (in a log: a line at every change) until it did.

    Args:
        sweep: What runs.
        backend: Where.
        times: Seconds that a run takes by past runs, by key; those of this sweep stand in where there are none.
        jobs: How many run at once.
    """
    with Signals() as signals, _Screen(sweep, times, jobs) as screen:
        try:
            going_on = True
            while going_on and not signals.came:
                going_on = backend.advance()
                screen.show(_statuses(sweep, backend, times))
                if going_on:
                    time.sleep(POLL)
        except BaseException:
            backend.stop()
            raise
        if signals.came:
            screen.stopping()
        advice = backend.stop() if signals.came else ""
        return Outcome(_statuses(sweep, backend, times), signals.came, advice)


class _Screen:
    """The live table, or in a log its lines."""

    def __init__(self, sweep: Sweep, times: Mapping[str, float], jobs: int) -> None:
        self.sweep, self.times, self.jobs = sweep, times, jobs
        self._console = console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
        self._began = time.monotonic()
        self._before: dict[str, Status] = {}

    def __enter__(self) -> _Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, statuses: dict[str, Status]) -> None:
        """Shows how it stands now."""
        if self._live:
            caption = Text(_caption(statuses, self.times, self.jobs, self._began))
            self._live.update(Group(sweep_table(self.sweep, statuses, live=True), caption), refresh=True)
        else:
            self._print_changes(statuses)
        self._before = statuses

    def stopping(self) -> None:
        """Says that it will end soon."""
        if self._live:
            self._live.update(Text("stopping …"), refresh=True)

    def _print_changes(self, statuses: dict[str, Status]) -> None:
        for point in self.sweep.points:
            status, last = statuses[point.key], self._before.get(point.key, Status("waiting"))
            if status.state == last.state:
                continue
            values = " ".join(f"{name}={value}" for name, value in zip(self.sweep.varied, settings(self.sweep, point), strict=True))
            took = f" after {duration(status.seconds)}" if status.state in ("done", "failed") and status.seconds is not None else ""
            why = f": {status.note}" if status.state in ("failed", "cancelled") and status.note else ""
            line = f"[{duration(time.monotonic() - self._began)}] {point.key} {values}: {status.state}{took}{why}"
            print(visible(line), file=sys.stderr, flush=True)


def _statuses(sweep: Sweep, backend: Backend, times: Mapping[str, float]) -> dict[str, Status]:
    return {point.key: _status(sweep, backend, point, times) for point in sweep.points}


def _status(sweep: Sweep, backend: Backend, point: Point, times: Mapping[str, float]) -> Status:
    state, record = backend.state(point), None
    if state not in ("waiting", "queued"):
        record = sweep.record(point)
    if record is None:
        return Status(state, backend.reason(point))
    if state == "running":
        if record["status"] != "running":  # of the time before: its process has not got to the record yet
            return Status(state, "starting", None, times.get(point.key))
        left = (record.get("progress") or {}).get("left")
        if left is None and point.key in times:
            left = max(times[point.key] - elapsed(record), 0.0)
        return Status(state, note(RunResult(point.folder, record)), elapsed(record), left)
    own = note(RunResult(point.folder, record))
    said = own if record["status"] in ("failed", "completed") else "; ".join(filter(None, (own, backend.reason(point))))
    return Status(state, said, record.get("seconds"))


def _caption(statuses: Mapping[str, Status], times: Mapping[str, float], jobs: int, began: float) -> str:
    done = [status.seconds for status in statuses.values() if status.state == "done" and status.seconds is not None]
    typical = sum(done) / len(done) if done else None
    running = [status.left if status.left is not None else typical for status in statuses.values() if status.state == "running"]
    waiting = [times.get(key, typical) for key, status in statuses.items() if status.state in ("waiting", "queued")]
    left = time_left(running, waiting, jobs)
    still = f"{duration(left)} left" if left is not None else "time left not known yet"
    return f"{summary(statuses.values())}; {duration(time.monotonic() - began)}, {still}"
