"""Jobs, the parts of an experiment that run apart: each trains stages and asks questions, but for what the store holds."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbb_helpers.data.conditions import Condition, condition
from pbb_helpers.data.datasets import Dataset
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.specs import StageSpec
from pbb_helpers.experiments.questions import calls_asked, questions, recorded_mode, shown_pairs
from pbb_helpers.experiments.trained import trained
from pbb_helpers.processes import lean_memory, release_memory
from pbb_helpers.training.model_files import find
from pbb_helpers.training.store import Store, digest

EVALUATION_FORMAT = 1
"""Part of every evaluation key: raise it when the same questions to the same weights no longer give the same rows."""
STACK_SIZE = 8
"""Seeds trained as one stack, at most: part of what a stack's results depend on."""
SMALL = 100_000_000
"""Bytes of weights below which a GPU waits for launches rather than for arithmetic."""
ANSWER_COST = 1
"""Answers weigh this many training documents in the bar: about what they take on a CPU."""


@dataclass(frozen=True)
class Job:
    """Conditions that begin with the same stage, done one after the other by one process; the stages of several seeds are trained as a stack."""

    experiment: Experiment
    seeds: tuple[int, ...]
    conditions: tuple[str, ...]

    @property
    def documents(self) -> int:
        """Number of documents that are trained on; a stage that conditions share counts once."""
        specs = {spec for name in self.conditions for spec in condition(name).stages}
        return len(self.seeds) * sum(self.experiment.budget.documents(spec) for spec in specs)

    @property
    def questions(self) -> int:
        """Number of questions that are asked."""
        experiment = self.experiment
        if experiment.n_composed_without_io:  # how many parts are asked depends on what was drawn
            asked = [calls for seed in self.seeds for calls in calls_asked(experiment, experiment.dataset(seed)).values()]
            n_calls, programs = sum(map(len, asked)), sum(len({program for program, _ in calls}) for calls in asked)
        else:
            programs = len(self.seeds) * (experiment.n_without_io + min(experiment.n_with_io_asked, experiment.n_with_io))
            n_calls = experiment.inputs_per_program * programs
        held_out = sum(
            programs if mode in ("source", "description") else n_calls for name in self.conditions for mode in condition(name).modes
        )
        last = [stages[-1] for name in self.conditions if (stages := condition(name).stages)]
        return held_out + sum(
            len(shown_pairs(experiment, experiment.dataset(seed), spec)) for spec in last if spec.pairs for seed in self.seeds
        )

    @property
    def work(self) -> int:
        """What it adds to the length of the progress bar."""
        return self.documents + ANSWER_COST * self.questions


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
    return sorted(found, key=lambda job: -job.documents)


def stacking_pays(experiment: Experiment) -> bool:
    """Returns whether the seeds of an experiment are trained as a stack: a rule and not a timing, since results depend on it.

    On a GPU a small model waits for its kernels to be launched, and a stack of seeds launches about as many as one (not measured by us).
    On a CPU it is arithmetic that takes the time, of which a stack has no less, and its activations are more than the caches hold: at batch 64
    it is no faster than one seed after the other, at batch 4 it is (`figures/90_performance`).
    """
    import torch

    budget = experiment.budget
    can = all(settings.method == "lora" and not settings.dropout for settings in (budget.stage1, budget.stage2))
    return torch.cuda.is_available() and can and _weight_bytes(experiment.model) < SMALL


def _weight_bytes(model: str) -> int:
    folder, _ = find(model)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def run_job(job: Job, root: Path, events: Any = None) -> tuple[list[dict], list[dict]]:
    """Returns the rows and the training log of a job's conditions."""
    lean_memory()
    import torch

    from pbb_helpers.training import models

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
            where = [{"condition": chosen.name, "seed": seed, "stage": spec.name} for seed in job.seeds]
            tell = functools.partial(_tell_step, events, spec, where)
            parents = keys if number else None
            keys = trained(loaded, spec, datasets, experiment.budget, store=store, parents=parents, count=count, on_progress=tell)
            whole = experiment.budget.documents(spec)  # what was announced: a stage matched in tokens may have another number
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
    from pbb_helpers.training import evaluate
    from pbb_helpers.training.train import load_stage

    model = None
    rows: list[dict] = []
    for asked in questions(job.experiment, dataset, chosen.modes, chosen.templates, chosen.stages[-1] if chosen.stages else None):
        evaluation_key = digest(EVALUATION_FORMAT, key, *asked)
        found = store.load_rows(key, evaluation_key)
        if new := found is None:
            model = model or load_stage(loaded, store, key, merge=True)
            found = evaluate.evaluate(loaded, model, asked)
            store.save_rows(key, evaluation_key, found)
            release_memory()
        rows += found
        note = f"{chosen.name}, seed {dataset.seed}: answering {asked[0].kind}"
        _tell(events, (dataset.seed, chosen.name), ANSWER_COST * len(rows), note, new=new)
    return [row | {"mode": recorded_mode(chosen, row["mode"])} for row in rows]


def _tell(events: Any, which: Any, amount: float, note: str, line: dict | None = None, *, new: bool = False) -> None:
    """Says how much of `which` is there, and whether something of it was made just now or all of it came from the store."""
    if events is not None:
        events.put((which, amount, note, line, new))


def _tell_step(events: Any, spec: StageSpec, seeds: list[dict], number: int, line: dict) -> None:
    where = seeds[number]
    note = f"{where['condition']}, seed {where['seed']}: training {where['stage']}, loss {line['loss']:.3f}"
    _tell(events, (where["seed"], spec), line["examples"], note, where | line, new=True)
