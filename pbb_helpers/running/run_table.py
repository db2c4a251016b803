"""Tables of runs for a terminal or a file: what a sweep plans, how far it is, and what lies in the folder of runs."""

from __future__ import annotations

import datetime
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pbb_helpers.markup import visible
from pbb_helpers.progress import duration
from pbb_helpers.running.run_record import RunResult
from pbb_helpers.running.sweep import Point, Sweep

COLOURS = {"finished": "dim", "done": "green", "failed": "red", "cancelled": "red", "running": "cyan", "stopped": "yellow"}
PLANNED = {
    "finished": "finished, not repeated",
    "running": "running already",
    "failed": "failed before, will run again",
    "stopped": "goes on where it was",
    "new": "will run",
}
LIVE_ROWS = 20  # of a live table; the caption counts the rest


@dataclass(frozen=True)
class Status:
    """How a run of a sweep stands.

    Attributes:
        state: A word: "finished" (before this sweep), "done", "failed", "cancelled", "stopped", "running", "queued" or "waiting".
        note: Where it is, or what went wrong.
        seconds: How long it took or has been running; None before it starts.
        left: Seconds still to go, or None where that can't be told.
    """

    state: str
    note: str = ""
    seconds: float | None = None
    left: float | None = None


def console(stderr: bool = False) -> Console:
    """Returns a console; what goes to a file or a pipe is as wide as it needs to be."""
    live = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=shutil.get_terminal_size().columns if live else 200, highlight=False, soft_wrap=not live)


def settings(sweep: Sweep, point: Point) -> list[str]:
    """Returns the values of a point that tell it from the others."""
    return [str(point.values[name]) for name in sweep.varied]


def plan_table(sweep: Sweep, times: Mapping[str, float]) -> Table:
    """Returns a row a run: its values, what will happen to it, and about how long that takes."""
    table = _table(["run", *sweep.varied, "plan", "about"])
    for point in sweep.points:
        state = sweep.state(point)
        about = duration(times[point.key]) if state != "finished" and point.key in times else ""
        _add(table, [point.key, *settings(sweep, point), PLANNED[state], about], state)
    return table


def sweep_table(sweep: Sweep, statuses: Mapping[str, Status], *, live: bool = False) -> Table:
    """Returns a row a run: its values, its state, how far it is, how long it took and has to go; a live one leaves out what waits or is over."""
    table = _table(["run", *sweep.varied, "state", "took", "left", ""])
    points = list(sweep.points)
    if live and len(points) > LIVE_ROWS:
        points = [point for point in points if statuses[point.key].state in ("running", "failed", "cancelled")][-LIVE_ROWS:]
    for point in points:
        status = statuses[point.key]
        took = duration(status.seconds) if status.seconds is not None else ""
        left = duration(status.left) if status.left is not None else ""
        _add(table, [point.key, *settings(sweep, point), status.state, took, left, status.note], status.state)
    return table


def summary(statuses: Iterable[Status]) -> str:
    """Returns how many runs are in which state, in words.

    >>> summary([Status("done"), Status("failed"), Status("done")])
    '3 runs: 2 done, 1 failed'
    """
    states = [status.state for status in statuses]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    return f"{len(states)} run{'s' if len(states) != 1 else ''}: " + ", ".join(f"{n} {state}" for state, n in counts.items())


def runs_table(runs: Sequence[RunResult], queue: Mapping[str, str]) -> Table:
    """Returns a row a run of `pbb status`; `queue` holds the state in Slurm's queue of those that are there, by "notebook/key"."""
    table = _table(["notebook", "run", "parameters", "state", "took", "left", ""])
    seen = set()
    for run in runs:
        record, name = run.record, f"{run.record['notebook']}/{run.folder.name}"
        seen.add(name)
        queued = queue.get(name) if run.status not in ("running", "completed") else None
        left = (record.get("progress") or {}).get("left") if run.status == "running" else None
        cells = [record["notebook"], run.folder.name, changed(record), queued or run.status, duration(elapsed(record))]
        _add(table, [*cells, duration(left) if left is not None else "", note(run)], run.status)
    for name in sorted(set(queue) - seen):
        notebook, _, key = name.rpartition("/")
        _add(table, [notebook, key, "", queue[name], "", "", ""], "queued")
    return table


def changed(record: Mapping[str, Any]) -> str:
    """Returns the parameters of a run that are not at their defaults."""
    values = record.get("parameters", {})
    return " ".join(f"{name}={values[name]}" for name in record.get("changed", []) if name in values) or "defaults"


def note(run: RunResult) -> str:
    """Returns where a running run is, what went wrong with one that ended badly, or the headline of a finished one."""
    if run.status != "running":
        return run.headline if run.status == "completed" else run.error
    record = run.record
    if record.get("progress"):
        return record["progress"]["line"]
    cell = record.get("cell")
    return f"{cell['index'] + 1}/{cell['count']} {cell['heading']}" if cell else "starting"


def elapsed(record: Mapping[str, Any]) -> float:
    """Returns the seconds that a run has been going or took."""
    if record.get("status") != "running":
        return record.get("seconds") or 0.0
    started = datetime.datetime.fromisoformat(record["started"])
    started = started if started.tzinfo else started.replace(tzinfo=datetime.timezone.utc)  # ours says so itself
    return max((datetime.datetime.now(datetime.timezone.utc) - started).total_seconds(), 0.0)


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("run", "state", "took", "left"))
    return table


def _add(table: Table, cells: Sequence[str], state: str) -> None:
    # Text, not str: brackets in a value are no markup of rich.
    table.add_row(*(Text(visible(cell).replace("\n", " ")) for cell in cells), style=COLOURS.get(state, ""))
