"""Conditions × seeds → one tidy table of answers. Stages that conditions share are trained once; what is finished is never repeated."""

from __future__ import annotations

import functools
import multiprocessing
import os
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any

import pandas as pd

from pbb_helpers.budget import Budget
from pbb_helpers.conditions import MAIN, Condition, condition
from pbb_helpers.datasets import Dataset, draw_dataset, generator
from pbb_helpers.documents import (
    N_TEMPLATES,
    Example,
    call_document,
    description_document,
    source_document,
    way_of_answering,
)
from pbb_helpers.model_files import find
from pbb_helpers.processes import follow_parent, lean_memory, release_memory
from pbb_helpers.programs import Program, UsageError, family
from pbb_helpers.specs import StageSpec
from pbb_helpers.stages import build_stage
from pbb_helpers.store import Store, digest

EVALUATION_FORMAT = 1
"""Part of every evaluation key: raise it when the same questions to the same weights no longer give the same rows."""
STACK_SIZE = 8
"""Seeds trained as one stack, at most: part of what a stack's results depend on."""
SMALL = 100_000_000
"""Bytes of weights below which a GPU waits for launches rather than for arithmetic."""
ANSWER_COST = 1
"""Answers weigh this many training documents in the bar: about what they take on a CPU."""


@dataclass(frozen=True)
class Experiment:
    """What to run. A seed draws programs, inputs, documents, initial adapters and order: it is the unit of replication.

    Attributes:
        model: A shipped name, a folder or a hub id.
        family: The name of a family of programs.
        family_settings: Its settings, as pairs.
        conditions: Names in `conditions.CONDITIONS`.
        seeds: Of stage 1, and with it of everything after.
        n_with_io: Number of programs with source and I/O.
        n_without_io: Number of programs with source only.
        n_eval_inputs: Number of inputs that no training question has.
        inputs_per_program: How many of those each program is asked.
        n_with_io_asked: How many w/ IO programs are asked after training (forgetting).
        budget: Length and settings of the stages.
        trust_remote_code: Whether Python code that a model brings with it is run.
    """

    model: str = "pbb-small"
    family: str = "arithmetic"
    family_settings: tuple[tuple[str, Any], ...] = ()
    conditions: tuple[str, ...] = MAIN
    seeds: tuple[int, ...] = (0,)
    n_with_io: int = 400
    n_without_io: int = 80
    n_eval_inputs: int = 10
    inputs_per_program: int = 2
    n_with_io_asked: int = 80
    budget: Budget = field(default_factory=Budget)
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in self.conditions:
            condition(name)
        if not self.conditions or not self.seeds:
            raise UsageError(f"conditions {self.conditions} and seeds {self.seeds}; give at least one of each")
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.conditions)) < len(self.conditions):
            raise UsageError(f"conditions {self.conditions} and seeds {self.seeds}; name each once")
        if min(self.seeds) < 0:
            raise UsageError(f"seeds {self.seeds}; give whole numbers from 0")
        if self.n_with_io_asked < 1:
            raise UsageError(f"{self.n_with_io_asked} w/ IO programs asked; give at least 1: forgetting is part of every result")
        if not 1 <= self.inputs_per_program <= self.n_eval_inputs:
            raise UsageError(
                f"{self.inputs_per_program} inputs per program of {self.n_eval_inputs} held-out ones; give 1 to {self.n_eval_inputs}"
            )

    def dataset(self, seed: int) -> Dataset:
        """Returns the programs and inputs of a seed."""
        programs = family(self.family, **dict(self.family_settings))
        return draw_dataset(programs, n_with_io=self.n_with_io, n_without_io=self.n_without_io, n_eval_inputs=self.n_eval_inputs, seed=seed)


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


# ---------------------------------------------------------------- questions


def questions(experiment: Experiment, dataset: Dataset, modes: Sequence[str], templates: int = N_TEMPLATES) -> Iterator[list[Example]]:
    """Yields the questions of each group and mode; a program is asked the same held-out inputs in every mode."""
    for group, programs in (("without_io", dataset.without_io), ("with_io", dataset.with_io[: experiment.n_with_io_asked])):
        inputs = held_out_inputs(experiment, dataset, group, len(programs))
        for mode in modes:
            draws = generator(dataset.seed, f"evaluation template {group} {mode}")
            if mode == "source":
                yield [source_document(program, group, int(draws.integers(templates))) for program in programs]
            elif mode == "description":
                yield [description_document(program, group, int(draws.integers(templates))) for program in programs]
            else:
                asked = [(program, x) for program, some in zip(programs, inputs, strict=True) for x in some]
                yield [call_document(program, group, mode, x, int(draws.integers(templates))) for program, x in asked]


def modes_of(name: str) -> tuple[str, ...]:
    """Returns the modes that rows of a condition have: of the untuned model in context these are plain "direct", "cot", "recall"."""
    chosen = condition(name)
    return chosen.modes if chosen.stages else tuple(way_of_answering(mode)[0] for mode in chosen.modes)


def held_out_inputs(experiment: Experiment, dataset: Dataset, group: str, count: int) -> list[list[Any]]:
    """Returns the inputs that each of `count` programs is asked."""
    draws = generator(dataset.seed, f"evaluation inputs {group}")
    return [
        [dataset.eval_inputs[i] for i in draws.permutation(len(dataset.eval_inputs))[: experiment.inputs_per_program]] for _ in range(count)
    ]


def floors(experiment: Experiment, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """Returns, for each seed, what the best answers that ignore the program would score on the w/o IO questions.

    They are fitted on the true outputs of the w/ IO programs at the very inputs that are asked, which no model is trained on: more than
    any model could know of an unknown program. See `statistics.floors`; `by=["length"]` scores each number of statements apart.
    """
    from pbb_helpers import statistics

    fitted, asked = [], []
    for seed in experiment.seeds:
        dataset = experiment.dataset(seed)
        fitted += [_pair(seed, program, x) for program in dataset.with_io for x in dataset.eval_inputs]
        inputs = held_out_inputs(experiment, dataset, "without_io", len(dataset.without_io))
        asked += [_pair(seed, program, x) for program, some in zip(dataset.without_io, inputs, strict=True) for x in some]
    return statistics.floors(pd.DataFrame(fitted), pd.DataFrame(asked), by=by)


def _pair(seed: int, program: Program, x: Any) -> dict[str, Any]:
    return {"seed": seed, "program": program.name, "input": x, "gold": str(program.run(x)), "length": program.length}


# ---------------------------------------------------------------- jobs


@dataclass(frozen=True)
class Job:
    """Conditions that begin with the same stage, done one after the other by one process; the stages of several seeds are trained as a stack."""

    experiment: Experiment
    seeds: tuple[int, ...]
    conditions: tuple[str, ...]


def jobs(experiment: Experiment, *, stack: bool = False) -> list[Job]:
    """Returns the jobs, of one seed each or, with `stack`, of `STACK_SIZE`; the longest first, so that processes finish together."""
    seeds = experiment.seeds
    size = STACK_SIZE if stack else 1
    chosen = [condition(name) for name in experiment.conditions]
    first = {c.name: c.stages[0] if c.stages else None for c in chosen}
    found = []
    for stage in dict.fromkeys(first.values()):
        names = tuple(name for name, its in first.items() if its == stage)
        found += [Job(experiment, seeds[i : i + size], names) for i in range(0, len(seeds), size)]
    return sorted(found, key=lambda job: -_work(job))


def _work(job: Job) -> int:
    specs = {spec for name in job.conditions for spec in condition(name).stages}
    return len(job.seeds) * sum(job.experiment.budget.documents(spec) for spec in specs)


def run(
    experiment: Experiment, root: Path, *, processes: int | None = None, stack: bool | None = None, progress: Any = None, curves: Any = None
) -> Results:
    """Returns the rows, the training log and the floors; trains and asks only what the store below `root` does not hold.

    Args:
        experiment: What to run.
        root: The folder of the store.
        processes: How many jobs run at once, each on one thread; by default one per core on a CPU, and one on a GPU. The result does not
            depend on it.
        stack: Whether the seeds' stages are trained together (`stacked.train_stages`); None: where `stacking_pays`. A stack's results are
            others than those of its seeds alone, in the last bits, and are stored apart.
        progress: A `notebook.Progress` that is moved on.
        curves: A `notebook.LiveCurves` that gets every line of the training log as it is written.

    Raises:
        UsageError: Something that was asked for can't be done; what was finished is kept.
    """
    Store(root)  # says at once if it can't be written to
    processes = _default_processes() if processes is None else processes
    if processes < 1:
        raise UsageError(f"{processes} processes; give at least 1")
    todo = jobs(experiment, stack=stacking_pays(experiment) if stack is None else stack)
    total = sum(_work(job) + ANSWER_COST * _answers(job) for job in todo)
    done: dict[Any, float] = {}

    def report(event: tuple[Any, float, str, dict | None]) -> None:
        which, amount, note, line = event
        done[which] = amount
        if curves is not None and line is not None:
            curves.add(line)
        if progress is not None:
            progress.update(int(sum(done.values())), total=total, note=note)

    parts = list(_in_processes(todo, root, processes, report))
    rows = pd.DataFrame([row for rows, _ in parts for row in rows])
    order = {name: i for i, name in enumerate(experiment.conditions)}
    rows = (
        rows.sort_values("condition", key=lambda c: c.map(order), kind="stable").sort_values("seed", kind="stable").reset_index(drop=True)
    )
    metrics = pd.DataFrame([line for _, lines in parts for line in lines])
    return Results(rows, metrics, floors(experiment))


def stacking_pays(experiment: Experiment) -> bool:
    """Returns whether the seeds of an experiment are trained as a stack: a rule and not a timing, since results depend on it in the last bits.

    On a GPU a small model waits for its kernels to be launched, and a stack of seeds launches about as many as one (not measured by us).
    On a CPU the padding costs more than that: each seed shuffles its batches of short and long documents in an order of its own, and a
    stack is as wide as the widest. At batch 64 eight seeds took 2.3 times the processor time of one after the other.
    """
    import torch

    budget = experiment.budget
    can = all(settings.method == "lora" and not settings.dropout for settings in (budget.stage1, budget.stage2))
    return torch.cuda.is_available() and can and _weight_bytes(experiment.model) < SMALL


def _weight_bytes(model: str) -> int:
    folder, _ = find(model)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _answers(job: Job) -> int:
    experiment = job.experiment
    programs = experiment.n_without_io + min(experiment.n_with_io_asked, experiment.n_with_io)
    asked = (
        1 if mode in ("source", "description") else experiment.inputs_per_program
        for name in job.conditions
        for mode in condition(name).modes
    )
    return len(job.seeds) * sum(asked) * programs


def _default_processes() -> int:
    import torch

    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(todo: list[Job], root: Path, processes: int, report: Callable[[tuple], None]) -> Iterator[tuple[list[dict], list[dict]]]:
    """Yields what each job gives, in the order of the jobs. The first error stops the rest; what they finished stays in the store."""
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(follow_parent)
    with manager:
        events = manager.Queue()
        pool = ProcessPoolExecutor(min(processes, len(todo)), mp_context=context, initializer=follow_parent)
        try:
            futures = [pool.submit(run_job, job, root, events) for job in todo]
            waiting: set[Future] = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=0.5)
                for event in _drain(events):
                    report(event)
                for future in finished:
                    future.result()
        except BaseException as error:
            for process in list((pool._processes or {}).values()):  # a job may have minutes to go; the store makes ending it safe
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise UsageError(
                    f"one of {min(processes, len(todo))} processes was killed from outside, perhaps for want of memory; what is finished is "
                    "kept: run the same command again, with fewer processes if memory is short"
                ) from None
            raise
        pool.shutdown()
        yield from (future.result() for future in futures)


def _drain(events: Any) -> Iterator[tuple]:
    while True:
        try:
            yield events.get_nowait()
        except queue.Empty:
            return


def run_job(job: Job, root: Path, events: Any = None) -> tuple[list[dict], list[dict]]:
    """Returns the rows and the training log of a job's conditions."""
    lean_memory()
    import torch

    from pbb_helpers import models
    from pbb_helpers.stacked import train_stages

    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # sums are taken in another order with more: one thread gives the same bits on any number of cores
    experiment, store = job.experiment, Store(root)
    loaded = models.load(experiment.model, trust_remote_code=experiment.trust_remote_code)
    datasets = [experiment.dataset(seed) for seed in job.seeds]
    count = models.token_counter(loaded.tokenizer)
    rows: list[dict] = []
    metrics: list[dict] = []
    for chosen in map(condition, job.conditions):
        keys, name = [loaded.key] * len(datasets), "untuned"
        for number, spec in enumerate(chosen.stages):
            stages = [build_stage(spec, dataset, experiment.budget, count) for dataset in datasets]
            where = [{"condition": chosen.name, "seed": seed, "stage": spec.name} for seed in job.seeds]
            tell = functools.partial(_tell_step, events, spec, where)
            keys = train_stages(loaded, stages, store=store, parents=keys if number else None, on_progress=tell)
            whole = experiment.budget.documents(spec)  # what was announced: a stage matched in tokens may have fewer
            for key, which in zip(keys, where, strict=True):
                seed = which["seed"]
                _tell(events, (seed, spec), whole, f"{chosen.name}, seed {seed}: trained {spec.name}")
                metrics += [which | line for line in store.metrics(key)]
            name = spec.name
        for dataset, key in zip(datasets, keys, strict=True):
            common = {
                "run": store.folder(key).name,
                "model": loaded.name,
                "family": experiment.family,
                "condition": chosen.name,
                "seed": dataset.seed,
                "stage": name,
            }
            rows += [common | row for row in answers(job, chosen, loaded, store, key, dataset, events)]
    return rows, metrics


def answers(job: Job, chosen: Condition, loaded: Any, store: Store, key: str, dataset: Dataset, events: Any) -> list[dict]:
    """Returns the rows of a condition's questions; each group and mode is stored as soon as it is answered."""
    from pbb_helpers import evaluate
    from pbb_helpers.train import load_stage

    model = None
    rows: list[dict] = []
    for asked in questions(job.experiment, dataset, chosen.modes, chosen.templates):
        evaluation_key = digest(EVALUATION_FORMAT, key, *asked)
        found = store.load_rows(key, evaluation_key)
        if found is None:
            model = model or load_stage(loaded, store, key, merge=True)
            found = evaluate.evaluate(loaded, model, asked)
            store.save_rows(key, evaluation_key, found)
            release_memory()
        rows += found
        note = f"{chosen.name}, seed {dataset.seed}: answering {asked[0].kind}"
        _tell(events, (dataset.seed, chosen.name), ANSWER_COST * len(rows), note)
    if chosen.stages:
        return rows
    # What the untuned model does with the source in its prompt is a condition of its own, the ceiling of each way of answering.
    return [row | {"mode": way_of_answering(row["mode"])[0]} for row in rows]


def _tell(events: Any, which: Any, amount: float, note: str, line: dict | None = None) -> None:
    if events is not None:
        events.put((which, amount, note, line))


def _tell_step(events: Any, spec: StageSpec, seeds: list[dict], number: int, line: dict) -> None:
    where = seeds[number]
    note = f"{where['condition']}, seed {where['seed']}: training {where['stage']}, loss {line['loss']:.3f}"
    _tell(events, (where["seed"], spec), line["examples"], note, where | line)


def leak_report(experiment: Experiment, seed: int | None = None) -> pd.DataFrame:
    """Returns, for each stage of each condition, how many documents of which group and kind it holds, after checking every one for leaks."""
    dataset = experiment.dataset(experiment.seeds[0] if seed is None else seed)
    count = None
    if experiment.budget.match == "tokens":
        from pbb_helpers import models

        count = models.token_counter(models.load(experiment.model).tokenizer)
    lines = []
    for name in experiment.conditions:
        for spec in condition(name).stages:
            stage = build_stage(spec, dataset, experiment.budget, count)
            counts = (
                pd.Series([f"{e.group} {e.kind}" if e.group != "replay" else "replay" for e in stage.examples]).value_counts().to_dict()
            )
            lines.append({"condition": name, "stage": spec.name, "documents": len(stage.examples), "leaks": 0} | counts)
    return pd.DataFrame(lines).fillna(0).astype({c: int for line in lines for c in line if c not in ("condition", "stage")})


def small(experiment: Experiment) -> Experiment:
    """Returns the experiment at the smallest size that still runs through everything."""
    budget = experiment.budget
    tiny = Budget(replace(budget.stage1, batch_size=16), replace(budget.stage2, batch_size=16), stage1_steps=6, stage2_steps=4)
    return replace(experiment, n_with_io=12, n_without_io=6, n_eval_inputs=4, inputs_per_program=1, n_with_io_asked=4, budget=tiny)
