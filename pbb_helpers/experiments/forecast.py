"""How long experiments take on this machine: their documents and questions, and how fast a short trial of each model gets through its own."""

from __future__ import annotations

import heapq
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pbb_helpers.data.budget import Budget
from pbb_helpers.data.plan import Experiment
from pbb_helpers.experiments.experiment import run
from pbb_helpers.experiments.jobs import STACK_SIZE, jobs, stacking_pays
from pbb_helpers.programs import UsageError

STEPS = 60
"""Of the trial, at most: it ends when each of its trainings has been measured for `SECONDS`."""
EVERY = 2
"""Steps between two lines of the trial's log."""
SECONDS = 20.0
ASKED = 4
"""Programs of each group that the trial draws; none is asked if it ends before."""


class Part(NamedTuple):
    """One experiment of a notebook: what it trains on and asks, and for how long that keeps one process busy."""

    name: str
    documents: int
    questions: int
    seconds: float


class _Enough(Exception):  # noqa: N818
    """The trial has been measured for long enough."""


@dataclass
class Meter:
    """Stands where `experiment.run` expects live curves, and reads how fast the trainings of a trial are off the lines of their logs."""

    trainings: int
    lines: dict[int, list[tuple[float, int]]] = field(default_factory=dict)

    def add(self, line: Mapping[str, Any]) -> None:
        """Takes a line: examples so far, and the seconds they took in the process that trained on them."""
        self.lines.setdefault(line["seed"], []).append((line["seconds"], line["examples"]))
        seen = self.lines.values()
        if len(seen) == self.trainings and min(map(len, seen)) > 1 and min(its[-1][0] - its[0][0] for its in seen) >= SECONDS:
            raise _Enough

    @property
    def rate(self) -> float:
        """Documents per second of all trainings together; the first lines start the clock, for the first steps are slower than any other."""
        return sum((its[-1][1] - its[0][1]) / (its[-1][0] - its[0][0]) for its in self.lines.values())


def forecast(
    pools: Sequence[Mapping[str, Experiment]], *, processes: int, tell: Callable[[str], None] = lambda line: None
) -> tuple[list[Part], float]:
    """Returns the parts of a notebook, and the seconds that all of them take.

    An answer counts as a document, which it is on a CPU. What is shared with another part, or held by a store, is counted all the same, and
    stages matched in tokens are taken to have as many documents as others.

    Args:
        pools: What runs at the same time, experiments by name, one group after the other.
        processes: How many jobs run at once.
        tell: Gets a line before the trial of each model, and what came of it.

    Raises:
        UsageError: A trial failed.
    """
    rates: dict[tuple[str, str], float] = {}
    parts, seconds = [], 0.0
    for pool in pools:
        lengths: list[float] = []
        for name, planned in pool.items():
            todo = jobs(planned, stack=stacking_pays(planned))
            kind = planned.model, planned.family
            if kind not in rates:
                rates[kind] = measure(planned, min(processes, len(todo)), tell)
            lengths += (its := [job.work / rates[kind] for job in todo])
            parts.append(Part(name, sum(job.documents for job in todo), sum(job.questions for job in todo), sum(its)))
        seconds += makespan(lengths, processes)
    return parts, seconds


def makespan(lengths: Sequence[float], processes: int) -> float:
    """Returns when the last of some jobs is done, each begun, in their order, by the first process that is free.

    >>> makespan([3, 3, 3], 2), makespan([5, 1, 1, 1], 2)
    (6.0, 5.0)
    """
    free = [0.0] * processes
    for length in lengths:
        heapq.heappush(free, heapq.heappop(free) + length)
    return max(free)


def trial(planned: Experiment, processes: int) -> Experiment:
    """Returns a short piece of an experiment, which trains as many seeds as train at the same time."""
    seeds = planned.seeds[:STACK_SIZE] if stacking_pays(planned) else tuple(range(processes))
    first = replace(planned.budget.stage1, log_every=EVERY, checkpoint_every=STEPS)
    few = {name: min(ASKED, getattr(planned, name)) for name in ("n_without_io", "n_with_io_asked", "n_composed_without_io")}
    if planned.n_composed_without_io:
        few["n_without_io"] = planned.n_without_io  # they are what is composed
    return replace(planned, conditions=("stage1_only",), seeds=seeds, budget=Budget(first, planned.budget.stage2, STEPS, 1), **few)


def measure(planned: Experiment, processes: int, tell: Callable[[str], None]) -> float:
    """Returns how many documents a second each of so many processes gets through.

    Raises:
        UsageError: The model cannot be trained so.
    """
    piece = trial(planned, processes)
    meter = Meter(len(piece.seeds))
    each = f" in each of {processes} processes" if processes > 1 else ""
    tell(f"trial of {planned.model}: up to {STEPS} steps of {piece.budget.stage1.batch_size} documents{each}")
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="pbb-trial-") as folder:
            run(piece, Path(folder), processes=processes, curves=meter)
    except _Enough:
        pass
    except UsageError:
        raise
    except Exception as error:  # of torch, peft or transformers, on a model that nobody has tried: what a run would say in its report
        raise UsageError(f"the trial of {planned.model} failed: {type(error).__name__}: {error}") from error
    rate = meter.rate / processes
    tell(f"  {rate:,.0f} documents a second and process, told in {time.monotonic() - began:.0f} seconds")
    return rate
