"""Conditions × seeds → one tidy table of answers. Stages that conditions share are trained once; what is finished is never repeated."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pbb_helpers.data.plan import Experiment
from pbb_helpers.experiments.jobs import Job, jobs, run_job, stacking_pays
from pbb_helpers.experiments.pool import default_processes, in_processes
from pbb_helpers.experiments.questions import floors
from pbb_helpers.programs import UsageError
from pbb_helpers.provenance import FromStore
from pbb_helpers.training.store import Store


@dataclass(frozen=True)
class Results:
    """What an experiment gives.

    Attributes:
        rows: One line per answer.
        metrics: The log of training: condition, seed, stage, step, loss, …
        floors: seed, floor, accuracy: what can be had without knowing the program.
        reused: The share of the work that the store held before: 0 where everything was trained and asked by this call, 1 where nothing was.
            With it goes who trained: a stage of the store is often of an earlier commit than the call.
    """

    rows: pd.DataFrame
    metrics: pd.DataFrame
    floors: pd.DataFrame
    reused: FromStore = FromStore()


def run(
    experiment: Experiment, root: Path, *, processes: int | None = None, stack: bool | None = None, progress: Any = None, curves: Any = None
) -> Results:
    """Returns the rows, the training log and the floors; trains and asks only what the store below `root` does not hold.

    Args:
        experiment: What to run.
        root: The folder of the store.
        processes: How many jobs run at once, each on one thread; by default one per core on a CPU, and one on a GPU. The result does not
            depend on it.
        stack: Whether the seeds' stages are trained together (`stacked.train_stages`); None: where `jobs.stacking_pays`. All seeds of a stack have
            their batches in one order, each alone in its own: the results are those of another training, and are stored apart.
        progress: A `notebook.Progress` that is moved on.
        curves: A `notebook.LiveCurves` that gets every line of the training log as it is written.

    Raises:
        UsageError: Something that was asked for can't be done; what was finished is kept.
    """
    return run_each([experiment], root, processes=processes, stack=stack, progress=progress, curves=curves)[0]


def run_each(experiments: Sequence[Experiment], root: Path, *, names: Sequence[str] = (), processes: int | None = None, stack: bool | None = None, progress: Any = None,
             curves: Any = None) -> list[Results]:  # fmt: skip
    """Returns what `run` gives for each of several experiments: their jobs share the processes, so that none waits for the end of another.

    Args:
        experiments: What to run.
        names: What to call each of them beside the bar.
        root, processes, stack, progress, curves: As `run` takes them.
    """
    Store(root)  # says at once if it can't be written to
    processes = default_processes() if processes is None else processes
    if processes < 1:
        raise UsageError(f"{processes} processes; give at least 1")
    split = [jobs(one, stack=stacking_pays(one) if stack is None else stack) for one in experiments]
    todo = [(number, job) for number, part in enumerate(split) for job in part]
    total = sum(job.work for _, job in todo)
    done: dict[Any, float] = {}
    made: set[Any] = set()

    def report(event: tuple[int, Any, float, str, dict | None, bool]) -> None:
        number, which, amount, note, line, new = event
        done[number, which] = amount
        if new:
            made.add((number, which))
        if curves is not None and line is not None:
            curves.add(line)
        if progress is not None:
            progress.update(int(sum(done.values())), total=total, note=f"{names[number]}: {note}" if names else note)

    parts = in_processes(functools.partial(_run_job, root=root), todo, processes, report)
    found: list[list[Any]] = [[] for _ in experiments]
    for (number, _), part in zip(todo, parts, strict=True):
        found[number].append(part)
    shares = [_reused(done, made, number) for number in range(len(split))]
    return [_results(one, its, share, root) for one, its, share in zip(experiments, found, shares, strict=True)]


def _reused(done: dict[Any, float], made: set[Any], number: int) -> float:
    """Returns the share of an experiment's work, in documents and answers, of which nothing was made by this call."""
    total = sum(amount for key, amount in done.items() if key[0] == number)
    return sum(amount for key, amount in done.items() if key[0] == number and key not in made) / max(1, total)


def reused(*results: Results) -> FromStore:
    """Returns the share of the work of several results together that the store held before, weighted by their answers."""
    share = sum(each.reused * len(each.rows) for each in results) / max(1, sum(len(each.rows) for each in results))
    return FromStore(share, {name: its for each in results for name, its in each.reused.trainings.items()})


def trainings(root: Path, runs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns the provenance of the stages whose models gave answers, and of those that they went on from, by the names of their folders.

    Args:
        root: The folder of the store.
        runs: The column `run` of the answers; the base model's are of no stage.
    """
    store, found, todo = Store(root), {}, set(runs)
    while todo:
        name = todo.pop()
        path = store.root / name / "config.json"
        if name in found or not re.fullmatch("[0-9a-f]{16}", name) or not path.is_file():
            continue
        config = json.loads(path.read_text(encoding="utf-8"))
        found[name] = config.get("provenance") or {}
        todo |= {store.folder(parent).name for parent in [config.get("parent")] if parent}
    return found


class _Numbered:
    """The queue of events of one experiment among several."""

    def __init__(self, number: int, events: Any) -> None:
        self.number, self.events = number, events

    def put(self, event: tuple[Any, ...]) -> None:
        self.events.put((self.number, *event))


def _run_job(item: tuple[int, Job], root: Path, events: Any) -> tuple[list[dict], list[dict]]:
    number, job = item
    return run_job(job, root, events=_Numbered(number, events))


def _results(experiment: Experiment, parts: Sequence[tuple[list[dict], list[dict]]], share: float, root: Path) -> Results:
    rows = pd.DataFrame([row for rows, _ in parts for row in rows])
    order = {name: i for i, name in enumerate(experiment.conditions)}
    rows = (
        rows.sort_values("condition", key=lambda c: c.map(order), kind="stable").sort_values("seed", kind="stable").reset_index(drop=True)
    )
    metrics = pd.DataFrame([line for _, lines in parts for line in lines])
    return Results(rows, metrics, floors(experiment), FromStore(share, trainings(root, rows["run"])))
