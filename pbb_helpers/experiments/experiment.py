"""Conditions × seeds → one tidy table of answers. Stages that conditions share are trained once; what is finished is never repeated."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pbb_helpers.data.plan import Experiment
from pbb_helpers.experiments.jobs import jobs, run_job, stacking_pays
from pbb_helpers.experiments.pool import default_processes, in_processes
from pbb_helpers.experiments.questions import floors
from pbb_helpers.programs import UsageError
from pbb_helpers.training.store import Store


@dataclass(frozen=True)
class Results:
    """What an experiment gives.

    Attributes:
        rows: One line per answer.
        metrics: The log of training: condition, seed, stage, step, loss, …
        floors: seed, floor, accuracy: what can be had without knowing the program.
    """

    rows: pd.DataFrame
    metrics: pd.DataFrame
    floors: pd.DataFrame


def run(
    experiment: Experiment, root: Path, *, processes: int | None = None, stack: bool | None = None, progress: Any = None, curves: Any = None
) -> Results:
    """Returns the rows, the training log and the floors; trains and asks only what the store below `root` does not hold.

    Args:
        experiment: What to run.
        root: The folder of the store.
        processes: How many jobs run at once, each on one thread; by default one per core on a CPU, and one on a GPU. The result does not
            depend on it.
        stack: Whether the seeds' stages are trained together (`stacked.train_stages`); None: where `jobs.stacking_pays`. A stack's results are
            others than those of its seeds alone, in the last bits, and are stored apart.
        progress: A `notebook.Progress` that is moved on.
        curves: A `notebook.LiveCurves` that gets every line of the training log as it is written.

    Raises:
        UsageError: Something that was asked for can't be done; what was finished is kept.
    """
    Store(root)  # says at once if it can't be written to
    processes = default_processes() if processes is None else processes
    if processes < 1:
        raise UsageError(f"{processes} processes; give at least 1")
    todo = jobs(experiment, stack=stacking_pays(experiment) if stack is None else stack)
    total = sum(job.work for job in todo)
    done: dict[Any, float] = {}

    def report(event: tuple[Any, float, str, dict | None]) -> None:
        which, amount, note, line = event
        done[which] = amount
        if curves is not None and line is not None:
            curves.add(line)
        if progress is not None:
            progress.update(int(sum(done.values())), total=total, note=note)

    parts = list(in_processes(functools.partial(run_job, root=root), todo, processes, report))
    rows = pd.DataFrame([row for rows, _ in parts for row in rows])
    order = {name: i for i, name in enumerate(experiment.conditions)}
    rows = (
        rows.sort_values("condition", key=lambda c: c.map(order), kind="stable").sort_values("seed", kind="stable").reset_index(drop=True)
    )
    metrics = pd.DataFrame([line for _, lines in parts for line in lines])
    return Results(rows, metrics, floors(experiment))
