"""The plan of a sweep: its runs, which of them are finished, and how long the rest will take, judged by past runs."""

from __future__ import annotations

import heapq
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbb_helpers.disk import held
from pbb_helpers.experiments import plans
from pbb_helpers.parameters import read_notebook, read_parameters, resolve
from pbb_helpers.programs import UsageError
from pbb_helpers.provenance import cores
from pbb_helpers.running.grid import MOST
from pbb_helpers.running.run_logs import log_of
from pbb_helpers.running.run_record import RunResult, all_runs, read_run
from pbb_helpers.running.runner import fingerprint, is_current, parameters_key, weights_print


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        given: The parameters that are not left at their defaults, by name.
        values: Every parameter of the notebook.
        folder: Where the run goes: the very folder of `pbb run` with these parameters.
    """

    given: dict[str, Any]
    values: dict[str, Any]
    folder: Path

    @property
    def key(self) -> str:
        """Returns the name of the run: 12 hex digits."""
        return self.folder.name

    @property
    def log(self) -> Path:
        """Returns the file that takes what the run prints."""
        return log_of(self.folder)


@dataclass(frozen=True)
class Sweep:
    """What to run.

    Attributes:
        notebook: Path of the .ipynb.
        points: The runs, in the order of the grid; the last name varies fastest.
        varied: Names with more than one value.
        prints: `runner.fingerprint` but for the models: a finished run with another is repeated.
    """

    notebook: Path
    points: tuple[Point, ...]
    varied: tuple[str, ...]
    prints: dict[str, str]

    def record(self, point: Point) -> dict[str, Any] | None:
        """Returns the run.json of a point as it is now, or None before it first ran."""
        return read_run(point.folder)

    def state(self, point: Point) -> str:
        """Returns "finished" (nothing to do), "running" (by whomever), "failed", "stopped" (it goes on where it was), or "new"."""
        record = self.record(point)
        if record is None:
            return "new"
        if is_current(point.folder, record, self.prints | weights_print(point.values)):
            return "finished"
        if record["status"] == "completed" and held(point.folder.parent / f".{point.folder.name}.lock"):
            return "running"  # about to be sealed, or made again
        return {"running": "running", "failed": "failed", "killed": "stopped"}.get(record["status"], "new")


def make_sweep(notebook: Path | str, grid: Mapping[str, Sequence[Any]], out_dir: Path | str = "runs") -> Sweep:
    """Returns the runs of every combination of the values in `grid`; equal ones count once.

    Raises:
        UsageError: Unknown notebook or parameter, a value of the wrong type, or too many combinations.
    """
    path = Path(notebook)
    node = read_notebook(path)
    known = read_parameters(node, path)
    points: dict[str, Point] = {}
    for combination in itertools.islice(itertools.product(*grid.values()), MOST + 1):
        given = dict(zip(grid, combination, strict=True))
        values = resolve(known, given)
        plans.check(path.stem, values)
        key = parameters_key(values)
        points.setdefault(key, Point(given, values, Path(out_dir).absolute() / path.stem / key))
    if len(points) > MOST:
        raise UsageError(f"the grid has more than {MOST} combinations; give fewer values")
    varied = tuple(name for name, values in grid.items() if len(values) > 1)
    return Sweep(path, tuple(points.values()), varied, fingerprint(node, {}))


def default_jobs(points: Sequence[Point]) -> int:
    """Returns how many runs at once leave no core idle and give none to two: a run takes its `processes`, or all cores if that is not set."""
    taken = [point.values.get("processes") or cores() for point in points]
    return max(1, cores() // max(taken, default=1))


def estimates(sweep: Sweep, out_dir: Path | str) -> dict[str, float]:
    """Returns key → seconds that a run will take: the median of the finished runs of this notebook whose parameters are the most alike.

    Runs of another profile don't count, for that changes the size of everything: without any other run there is no estimate.
    """
    past = [run for run in all_runs(out_dir, sweep.notebook.stem) if run.status == "completed" and run.record.get("seconds")]
    found = {}
    for point in sweep.points:
        alike = [
            (_differing(run, point), run.record["seconds"]) for run in past if _profile(run.record["parameters"]) == _profile(point.values)
        ]
        least = min((number for number, _ in alike), default=None)
        if least is not None:
            found[point.key] = statistics.median(seconds for number, seconds in alike if number == least)
    return found


def _differing(run: RunResult, point: Point) -> int:
    parameters = run.record["parameters"]
    return sum(parameters.get(name, value) != value for name, value in point.values.items())


def _profile(values: Mapping[str, Any]) -> Any:
    return values.get("profile")


def time_left(running: Sequence[float | None], waiting: Sequence[float | None], jobs: int) -> float | None:
    """Returns the seconds until all are done, each slot taking the next run in turn; None while any time is unknown.

    >>> time_left([10.0, 20.0], [30.0], jobs=2)
    40.0
    """
    if None in running or None in waiting:
        return None
    slots = sorted(seconds for seconds in running if seconds is not None)
    slots += [0.0] * max(jobs - len(slots), 0)
    heapq.heapify(slots)
    for seconds in waiting:
        heapq.heapreplace(slots, slots[0] + (seconds or 0.0))
    return max(slots, default=0.0)
