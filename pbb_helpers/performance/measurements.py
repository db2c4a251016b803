"""What notebook 90 and the GPU command measure: the rounds of each suite, and the gates before them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from pbb_helpers.data.settings import Stage
from pbb_helpers.performance import answering, benchmark, compiled, gate, peers
from pbb_helpers.performance.benchmark import Arm, Missing, OnRun
from pbb_helpers.performance.ours import InExperiment, OneByOne, Ours, Stacked
from pbb_helpers.performance.packed import Packed
from pbb_helpers.performance.performance_plan import Plan, dtype_name, suite_of
from pbb_helpers.performance.random_models import free, random_model, random_shape, too_large
from pbb_helpers.performance.tasks import Task
from pbb_helpers.performance.workloads import Drawing, documents, exposures, shape_documents
from pbb_helpers.training.stacked import in_one_order


def training(plan: Plan, loaded: Any, on_run: OnRun | None = None) -> pd.DataFrame:
    """Returns the rounds of the main comparison (suite "training"), all arms at the first number of threads, the two main ones at the others.

    With one thread on a CPU, ours under the conditions of an experiment is another arm.
    """
    task = Task(loaded, documents(plan, plan.steps))
    arms, _ = peers.arms(task)
    parts = []
    for i, threads in enumerate(plan.threads):
        chosen = [arm for arm in arms if i == 0 or arm.name in ("ours", "TRL tuned")]
        with contextlib.ExitStack() as opened:
            if threads == 1 and loaded.model.device.type == "cpu":
                chosen.append(opened.enter_context(contextlib.closing(InExperiment(plan.model, task.stage))))
            columns = {"suite": "training", "setting": plan.model, "dtype": _name(task)}
            arms_and_peak = [*chosen, benchmark.MatmulPeak(task.dtype, loaded.model.device.type)]
            parts.append(benchmark.measure(arms_and_peak, plan.rounds, threads=threads, on_run=on_run, **columns))
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True)
class Large:
    """The training of the large model, with the arm that compiles, compiled, or why there is none."""

    task: Any
    compiled: Any

    @property
    def arms(self) -> list[Any]:
        """Returns the arm that compiles, if there is one."""
        return [] if isinstance(self.compiled, Missing) else [self.compiled]

    @property
    def absent(self) -> list[Missing]:
        """Returns the arm that cannot be measured here."""
        return [self.compiled] if isinstance(self.compiled, Missing) else []


def large_model(plan: Plan, loaded: Any) -> Large:
    """Returns the large model's training, compiled once: the gate and the rounds take the same arm."""
    task = Task(random_model(plan.large, loaded), documents(plan, plan.large_steps))
    with benchmark.torch_threads(plan.threads[0]):
        return Large(task, compiled.compiled(task, plan.backend))


def large(plan: Plan, model: Large, on_run: OnRun | None = None) -> pd.DataFrame:
    """Returns the rounds of the large model (suite "large"): ours, TRL tuned, ours compiled and the yardstick; what compiling took has the phase "compile"."""
    rows = _main_arms(plan, model.task, "large", on_run, model.arms)
    compiling = [
        rows.iloc[0].to_dict() | {"arm": arm.name, "phase": "compile", "round": 0, "seconds": arm.compiling, "peak_mb": None}
        for arm in model.arms
    ]
    return pd.concat([rows, pd.DataFrame(compiling)], ignore_index=True) if compiling else rows


def gates(plan: Plan, loaded: Any, model: Large) -> pd.DataFrame:
    """Returns `gate.one_batch` of the large model and of each shape that there is memory for."""
    shapes = [shape_gate(plan, name, loaded) for name in plan.shapes if not too_large(name)]
    return pd.concat([gate.one_batch(model.task, model.arms), *shapes], ignore_index=True)


def shape_gate(plan: Plan, name: str, loaded: Any) -> pd.DataFrame:
    """Returns `gate.one_batch` of one of `random_models.SHAPES`, on four documents: more of them would say no more, and take more memory."""
    task = Task(random_shape(name, loaded), shape_documents(plan, name, 1, batch_size=4))
    table = gate.one_batch(task, [Packed(task)])
    free()
    return table


def shape(plan: Plan, name: str, loaded: Any, on_run: OnRun | None = None) -> pd.DataFrame:
    """Returns the rounds of one of `random_models.SHAPES` (suite "shape NAME"): ours, TRL tuned, ours packed and the yardstick; its memory is free again after them."""
    task = Task(random_shape(name, loaded), shape_documents(plan, name, plan.steps))
    rows = _main_arms(plan, task, suite_of(name), on_run, [Packed(task)])
    free()
    return rows


def shapes(plan: Plan, loaded: Any, on_run: OnRun | None = None) -> pd.DataFrame:
    """Returns the rounds of all shapes of the plan for which there is memory; `missing` names the others."""
    return pd.concat(
        [pd.DataFrame(), *(shape(plan, name, loaded, on_run) for name in plan.shapes if not too_large(name))], ignore_index=True
    )


def _main_arms(plan: Plan, task: Any, suite: str, on_run: OnRun | None, further: Sequence[Arm] = ()) -> pd.DataFrame:
    """Returns the rounds of the two main arms, further ones and the yardstick."""
    arms = [arm for arm in peers.arms(task)[0] if arm.name in ("ours", "TRL tuned")]
    peak = benchmark.MatmulPeak(task.dtype, task.loaded.model.device.type)
    columns = {"suite": suite, "setting": task.loaded.name, "dtype": _name(task)}
    return benchmark.measure([*arms, *further, peak], plan.rounds, threads=plan.threads[0], on_run=on_run, **columns)


def _name(task: Any) -> str:
    return str(task.dtype).removeprefix("torch.")


def evaluation(plan: Plan, loaded: Any, on_run: OnRun | None = None) -> tuple[pd.DataFrame, dict[str, float]]:
    """Returns the rounds of answering (suite "evaluation"), and the share of answers that equal those of ours, by arm."""
    questions = answering.in_context(loaded, plan.questions, seed=1)
    arms = answering.arms(questions)
    columns = {"suite": "evaluation", "setting": plan.model, "dtype": str(loaded.model.dtype).removeprefix("torch.")}
    rows = benchmark.measure(arms, plan.rounds, threads=plan.threads[0], on_run=on_run, **columns)
    return rows, answering.agreement(arms)


def axes(plan: Plan, loaded: Any, on_run: OnRun | None = None) -> pd.DataFrame:
    """Returns the rounds on four axes (suite "axis", with columns axis, x and what): programs, length, seeds, parameters."""

    def ours(stage: Stage, name: str, model: Any = loaded) -> Ours:
        return Ours(Task(model, stage), name)

    by_axis: dict[str, dict[float, Sequence[Any]]] = {
        "programs": {
            n: [ours(documents(plan, exposures(plan, n), n_programs=n), f"training, {n}"), Drawing(plan, n)] for n in plan.programs
        },
        "statements": {n: [ours(documents(plan, plan.short, n_programs=40, statements=n), f"training, {n}")] for n in plan.lengths},
        "seeds": {
            n: [benchmark.Repeated(ours(documents(plan, plan.short), ""), n, f"trainings one after the other, {n}")] for n in plan.seeds
        },
        "parameters": {
            _parameters(model): [ours(documents(plan, plan.short), f"training, {model.name}", model)]
            for model in (random_model(size, loaded) for size in plan.sizes)
        },
    }
    parts = []
    for axis, points in by_axis.items():
        arms = [arm for some in points.values() for arm in some]
        columns = {"suite": "axis", "setting": axis, "dtype": dtype_name(loaded.model.device)}
        rows = benchmark.measure(arms, plan.rounds, threads=plan.threads[0], on_run=on_run, **columns)
        places = {arm.name: x for x, some in points.items() for arm in some}
        parts.append(rows.assign(axis=axis, x=rows["arm"].map(places), what=rows["arm"].str.rpartition(",")[0]))
    return pd.concat(parts, ignore_index=True)


def _parameters(loaded: Any) -> int:
    return sum(p.numel() for p in loaded.model.parameters())


def seeds(plan: Plan, loaded: Any, on_run: OnRun | None = None) -> pd.DataFrame:
    """Returns the rounds of a stack of seeds against the same trainings one by one (suites "seeds, batch N"), at each batch size."""
    parts = []
    for size in plan.stacked_batches:
        at = replace(plan, batch_size=size)
        stages = in_one_order([documents(at, plan.short, seed=seed) for seed in range(plan.stacked)])
        tasks = [Task(loaded, stage) for stage in stages]
        arms: list[Arm] = [Stacked(tasks, f"{plan.stacked} seeds stacked"), OneByOne(tasks, f"{plan.stacked} single runs")]
        columns = {"suite": f"seeds, batch {size}", "setting": plan.model, "dtype": _name(tasks[0])}
        parts.append(benchmark.measure(arms, plan.rounds, threads=plan.threads[0], on_run=on_run, **columns))
    return pd.concat(parts, ignore_index=True)
