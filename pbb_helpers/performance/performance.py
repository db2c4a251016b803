"""What notebook 90 measures: the sizes of its profiles, the workloads, the goals and whether they were met."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pbb_helpers import notebook
from pbb_helpers.analysis import reading
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.datasets import draw_dataset
from pbb_helpers.data.settings import Stage
from pbb_helpers.data.specs import STAGE1
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments.profiles import QUICK
from pbb_helpers.performance import benchmark
from pbb_helpers.performance.benchmark import Missing, Work
from pbb_helpers.programs import UsageError
from pbb_helpers.training.recipes import PretrainSettings


@dataclass(frozen=True)
class Plan:
    """What a profile of the notebook does.

    Attributes:
        model: The shipped model that is trained and asked.
        rounds: Of every measurement.
        threads: Of torch; the first is that of the goals, the second is measured for the two main arms only.
        batch_size: Documents per step.
        steps: Of a training of the main comparison.
        short: Steps of a training of the large model and on the axes.
        large: The shape of the large model, with random weights.
        shapes: Of the models on the axis of parameters.
        programs: Numbers of programs on their axis.
        lengths: Numbers of statements on theirs.
        seeds: Numbers of trainings on theirs.
        stacked: Seeds in a stack.
        stacked_batches: Documents per step and seed in it.
        questions: Programs asked, each once per mode.
    """

    model: str
    rounds: int = 5
    threads: tuple[int, ...] = (2, 1)
    batch_size: int = 64
    steps: int = 12
    short: int = 4
    large: PretrainSettings = PretrainSettings(name="10M", hidden=320, layers=7, intermediate=960)
    shapes: tuple[PretrainSettings, ...] = (
        PretrainSettings(name="0.5M", hidden=64, layers=4, intermediate=192),
        PretrainSettings(name="2M", hidden=128, layers=6, intermediate=384),
        PretrainSettings(name="10M", hidden=320, layers=7, intermediate=960),
    )
    programs: tuple[int, ...] = (50, 100, 200)
    lengths: tuple[int, ...] = (1, 2, 3)
    seeds: tuple[int, ...] = (1, 2, 4)
    stacked: int = 8
    stacked_batches: tuple[int, ...] = (64, 4)
    questions: int = 128

    def facts(self) -> pd.DataFrame:
        """Returns the plan as a table of two columns."""
        facts = {
            "model": self.model, "rounds, each arm once in each, in turn forwards and backwards": self.rounds,
            "threads of torch in every arm": ", ".join(map(str, self.threads)),
            "main comparison": f"{self.steps} steps of {self.batch_size} documents of stage 1 of 01_proactive, LoRA of rank 64",
            "large model": f"{self.large.name}: hidden {self.large.hidden}, {self.large.layers} layers, random weights; {self.short} steps, as on the axes", "questions": f"{self.questions} programs, source in the prompt, 3 modes",
            "arms that are missing here": "; ".join(f"{m.name}: {m.why}" for m in missing()) or "none",
        }  # fmt: skip
        return reading.facts(facts)


_TINY = PretrainSettings(name="tiny", hidden=32, layers=1, intermediate=64)
PLANS: dict[str, dict[str, Any]] = {
    "smoke": {"rounds": 2, "threads": (1,), "batch_size": 8, "steps": 2, "short": 1, "large": _TINY, "shapes": (_TINY, replace(_TINY, name="less tiny", layers=2)),
              "programs": (8, 16), "lengths": (1, 2), "seeds": (1, 2), "questions": 4,
              "stacked": 2, "stacked_batches": (8, 4)},
    "quick": {},
    "full": {"rounds": 9, "steps": 60, "short": 10, "programs": (100, 400, 1000), "seeds": (1, 2, 4, 8), "questions": 256,
             "shapes": (*Plan.shapes, PretrainSettings(name="25M", hidden=512, layers=8, intermediate=1536))},
}  # fmt: skip


def plan(values: Mapping[str, Any]) -> Plan:
    """Returns what the parameters of the notebook ask for; `values` is its `globals()`.

    Raises:
        UsageError: A parameter is not valid.
    """
    from pbb_helpers.training import models

    given = notebook.parameters(
        {"profile": tuple(PLANS), "model": str, "rounds": int | None, "threads": list[int] | None, "steps": int | None}, values
    )
    models.find(given.model)
    threads = None if given.threads is None else tuple(given.threads)
    changes: dict[str, Any] = {
        name: value for name, value in (("rounds", given.rounds), ("threads", threads), ("steps", given.steps)) if value is not None
    }
    numbers = [n for n in (given.rounds, given.steps, *(threads or ())) if n is not None]
    if min(numbers, default=1) < 1 or (threads is not None and (not threads or len(set(threads)) < len(threads))):
        raise UsageError(
            f"rounds={given.rounds}, steps={given.steps}, threads={given.threads}; give whole numbers from 1, threads each once"
        )
    return Plan(given.model, **PLANS[given.profile] | changes)


def missing() -> list[Missing]:
    """Returns the arms that are not measured here, and why."""
    from pbb_helpers.performance import peers

    if peers.trl_installed():
        return []
    return [Missing(name, "not installed: pip install -e '.[trl]'") for name in ("TRL tuned", "TRL as it comes")]


# --- workloads ----------------------------------------------------------------------------------------------------------


def documents(plan: Plan, steps: int, *, n_programs: int = QUICK.n_with_io, statements: int | None = None, seed: int = 0) -> Stage:
    """Returns a first stage of so many steps, drawn as in an experiment.

    Args:
        n_programs: Programs w/ IO; a fifth as many w/o IO.
        statements: The length of every program; None draws one to two.
    """
    settings = replace(QUICK.budget.stage1, batch_size=plan.batch_size)
    length = (("min_statements", statements), ("max_statements", statements)) if statements else ()
    experiment = replace(QUICK, n_with_io=n_programs, n_without_io=max(2, n_programs // 5), family_settings=length)
    return build_stage(STAGE1, experiment.dataset(seed), Budget(settings, settings, stage1_steps=steps))


def random_model(settings: PretrainSettings, like: Any) -> Any:
    """Returns an untrained model of a shape, with the tokenizer of a loaded one: for its speed the weights don't matter."""
    from pbb_helpers.training import models, pretrain

    key = hashlib.sha256(repr(settings).encode()).hexdigest()
    return models.LoadedModel(settings.name, pretrain.new_model(like.tokenizer, settings).to(like.model.device).eval(), like.tokenizer, key)


class Drawing:
    """An arm that draws programs and the documents of a stage, and checks them for leaks."""

    def __init__(self, plan: Plan, n_programs: int) -> None:
        self.plan, self.n_programs, self.name = plan, n_programs, f"drawing and checking, {n_programs}"

    def prepare(self) -> None:
        draw_dataset.cache_clear()
        build_stage.cache_clear()

    def run(self) -> Work:
        began = time.perf_counter()
        stage = documents(self.plan, _exposures(self.plan, self.n_programs), n_programs=self.n_programs)
        return Work(time.perf_counter() - began, len(stage.examples), 0)


def _exposures(plan: Plan, n_programs: int) -> int:
    """Returns the steps in which each program is seen as often, whatever their number."""
    return max(1, 4 * n_programs // plan.batch_size)


# --- measurements -------------------------------------------------------------------------------------------------------


def training(plan: Plan, loaded: Any, on_run: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Returns the rounds of the main comparison (suite "training"), all arms at the first number of threads, the two main ones at the others."""
    from pbb_helpers.performance import peers

    task = peers.Task(loaded, documents(plan, plan.steps))
    arms, _ = peers.arms(task)
    parts = []
    for i, threads in enumerate(plan.threads):
        chosen = arms if i == 0 else [arm for arm in arms if arm.name in ("ours", "TRL tuned")]
        peak = benchmark.MatmulPeak(task.dtype, loaded.model.device.type)
        parts.append(benchmark.measure([*chosen, peak], plan.rounds, threads=threads, on_run=on_run, suite="training", setting=plan.model))
    return pd.concat(parts, ignore_index=True)


def large(plan: Plan, loaded: Any, on_run: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Returns the rounds of the large model (suite "large"): ours, TRL tuned and the yardstick."""
    from pbb_helpers.performance import peers

    task = peers.Task(random_model(plan.large, loaded), documents(plan, plan.short))
    arms = [arm for arm in peers.arms(task)[0] if arm.name in ("ours", "TRL tuned")]
    peak = benchmark.MatmulPeak(task.dtype, loaded.model.device.type)
    return benchmark.measure([*arms, peak], plan.rounds, threads=plan.threads[0], on_run=on_run, suite="large", setting=plan.large.name)


def evaluation(plan: Plan, loaded: Any, on_run: Callable[[str], None] | None = None) -> tuple[pd.DataFrame, dict[str, float]]:
    """Returns the rounds of answering (suite "evaluation"), and the share of answers that equal those of ours, by arm."""
    from pbb_helpers.performance import answering

    questions = answering.in_context(loaded, plan.questions, seed=1)
    arms = [arm(questions) for arm in (answering.Ours, answering.PlainGenerate, answering.ContinuousBatching)]
    rows = benchmark.measure(arms, plan.rounds, threads=plan.threads[0], on_run=on_run, suite="evaluation", setting=plan.model)
    return rows, answering.agreement(arms)


def axes(plan: Plan, loaded: Any, on_run: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Returns the rounds on four axes (suite "axis", with columns axis, x and what): programs, length, seeds, parameters."""
    from pbb_helpers.performance.peers import Ours, Task

    def ours(stage: Stage, name: str, model: Any = loaded) -> Ours:
        return Ours(Task(model, stage), name)

    by_axis: dict[str, dict[float, Sequence[Any]]] = {
        "programs": {
            n: [ours(documents(plan, _exposures(plan, n), n_programs=n), f"training, {n}"), Drawing(plan, n)] for n in plan.programs
        },
        "statements": {n: [ours(documents(plan, plan.short, n_programs=40, statements=n), f"training, {n}")] for n in plan.lengths},
        "seeds": {
            n: [benchmark.Repeated(ours(documents(plan, plan.short), ""), n, f"trainings one after the other, {n}")] for n in plan.seeds
        },
        "parameters": {
            _parameters(model): [ours(documents(plan, plan.short), f"training, {model.name}", model)]
            for model in (random_model(shape, loaded) for shape in plan.shapes)
        },
    }
    parts = []
    for axis, points in by_axis.items():
        arms = [arm for some in points.values() for arm in some]
        rows = benchmark.measure(arms, plan.rounds, threads=plan.threads[0], on_run=on_run, suite="axis", setting=axis)
        places = {arm.name: x for x, some in points.items() for arm in some}
        parts.append(rows.assign(axis=axis, x=rows["arm"].map(places), what=rows["arm"].str.rpartition(",")[0]))
    return pd.concat(parts, ignore_index=True)


def _parameters(loaded: Any) -> int:
    return sum(p.numel() for p in loaded.model.parameters())


def seeds(plan: Plan, loaded: Any, on_run: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Returns the rounds of a stack of seeds against the same trainings one by one (suite "seeds"), at each batch size."""
    from pbb_helpers.performance.peers import OneByOne, Stacked, Task

    parts = []
    for size in plan.stacked_batches:
        at = replace(plan, batch_size=size)
        tasks = [Task(loaded, documents(at, plan.short, seed=seed)) for seed in range(plan.stacked)]
        arms: list[benchmark.Arm] = [Stacked(tasks, f"{plan.stacked} seeds stacked"), OneByOne(tasks, f"{plan.stacked} single runs")]
        parts.append(
            benchmark.measure(arms, plan.rounds, threads=plan.threads[0], on_run=on_run, suite=f"seeds, batch {size}", setting=plan.model)
        )
    return pd.concat(parts, ignore_index=True)


WORK = {"training": "training, shipped model", "large": "training, large model", "evaluation": "answering, shipped model"}


def profiles(plan: Plan, loaded: Any) -> dict[str, pd.DataFrame]:
    """Returns where the time of ours goes (`op_profile.by_group`), for each of `WORK`, on one thread; the first half of each is a warm-up."""
    from pbb_helpers.performance import answering, op_profile

    stage = documents(plan, 2 * plan.short)
    arm = answering.Ours(answering.in_context(loaded, plan.questions, seed=1))
    with benchmark.torch_threads(1):
        arm.run()
        return {
            "training": _profiled_training(loaded, stage, plan.short),
            "large": _profiled_training(random_model(plan.large, loaded), stage, plan.short),
            "evaluation": op_profile.by_group(lambda: [arm.complete(prompts, limit) for _, prompts, limit in arm.questions.groups]),
        }


def _profiled_training(loaded: Any, stage: Stage, steps: int) -> pd.DataFrame:
    """Returns the profile of the last `steps` steps of a training: of the loop alone, without what comes before and after it."""
    from pbb_helpers.performance.op_profile import Recording
    from pbb_helpers.training.store import Store
    from pbb_helpers.training.train import train_stage

    recording = Recording()
    stage = replace(stage, settings=replace(stage.settings, log_every=steps))
    with tempfile.TemporaryDirectory() as folder:
        tell = lambda line: recording.start() if line["step"] < line["steps"] else recording.stop()  # noqa: E731
        train_stage(loaded, stage, store=Store(Path(folder)), on_progress=tell)
    return recording.by_group()
