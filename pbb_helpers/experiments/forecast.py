"""How long experiments take on this machine: their documents and questions, and how fast a short trial of each model gets through its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pbb_helpers.data.budget import Budget
from pbb_helpers.data.conditions import condition
from pbb_helpers.data.plan import Experiment
from pbb_helpers.experiments.experiment import run
from pbb_helpers.experiments.jobs import jobs
from pbb_helpers.experiments.pool import default_processes

STEPS = 40, 20
"""Of the trial's two stages: a line of its log comes every 20 steps, and the first one starts the clock."""
PROGRAMS = 16
"""Of each group that the trial asks."""


class Part(NamedTuple):
    """One experiment of a notebook: what it trains on and asks, and how long that takes if the store holds none of it."""

    name: str
    documents: int
    questions: int
    seconds: float


@dataclass
class Clock:
    """Stands where `experiment.run` expects a progress bar, and notes when how much was done."""

    seen: list[tuple[float, int]] = field(default_factory=list)

    def update(self, done: int, *, total: int, note: str) -> None:
        """Notes how much is done by now."""
        self.seen.append((time.perf_counter(), done))

    @property
    def rate(self) -> float:
        """Documents per second, from the first note on: what comes before is the start of the processes and the model's way into memory."""
        (start, first), (end, last) = self.seen[0], self.seen[-1]
        return (last - first) / (end - start)


def forecast(
    experiments: Mapping[str, Experiment], *, processes: int | None = None, tell: Callable[[str], None] | None = None
) -> list[Part]:
    """Returns how long each of a notebook's experiments takes.

    Args:
        experiments: By name.
        processes: As `experiment.run` takes it.
        tell: Gets a line before the trial of each model, and what came of it.
    """
    processes = default_processes() if processes is None else processes
    rates: dict[tuple[str, str], float] = {}
    parts = []
    for name, planned in experiments.items():
        kind = planned.model, planned.family
        if kind not in rates:
            rates[kind] = measure(planned, processes, tell or (lambda line: None))
        todo = jobs(planned)
        documents, questions = sum(job.documents for job in todo), sum(job.questions for job in todo)
        # Processes that have nothing left to do wait for the longest job.
        work = max(sum(job.work for job in todo), processes * max(job.work for job in todo))
        parts.append(Part(name, documents, questions, work / rates[kind]))
    return parts


def trial(planned: Experiment, processes: int) -> Experiment:
    """Returns a short piece of an experiment: one condition that trains, in few steps, with a seed for each process."""
    first = next(name for name in sorted(planned.conditions, key=lambda name: name != "proactive") if condition(name).stages)
    settings = planned.budget
    budget = Budget(settings.stage1, settings.stage2, *STEPS)
    asked = {"n_without_io": PROGRAMS, "n_with_io_asked": PROGRAMS, "inputs_per_program": 1}
    composed = {"n_composed_without_io": 2} if planned.n_composed_without_io else asked
    changes: dict[str, Any] = {"conditions": (first,), "seeds": tuple(range(processes)), "budget": budget} | composed
    return replace(planned, **changes)


def measure(planned: Experiment, processes: int, tell: Callable[[str], None]) -> float:
    """Returns how many documents and answers a second all processes together get through, in a store that is thrown away."""
    piece, clock = trial(planned, processes), Clock()
    each = f", in {processes} processes" if processes > 1 else ""
    tell(f"trial of {planned.model}: {sum(STEPS)} steps of {piece.budget.stage1.batch_size} documents{each}")
    with tempfile.TemporaryDirectory(prefix="pbb-trial-") as folder:
        run(piece, Path(folder), processes=processes, progress=clock)
    tell(f"  {clock.rate:,.0f} documents a second")
    return clock.rate
