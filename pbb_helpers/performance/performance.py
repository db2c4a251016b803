"""What notebook 90 measures: the sizes of its profiles, the workloads, the goals and whether they were met."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pbb_helpers import notebook
from pbb_helpers.analysis import reading
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.datasets import draw_dataset
from pbb_helpers.data.plan import QUICK
from pbb_helpers.data.settings import Stage
from pbb_helpers.data.specs import STAGE1
from pbb_helpers.data.stages import build_stage
from pbb_helpers.performance import benchmark
from pbb_helpers.performance.benchmark import Arm, Missing, OnRun, Work
from pbb_helpers.performance.random_models import LARGE, SHAPES, random_model, random_shape, too_large
from pbb_helpers.processes import release_memory
from pbb_helpers.programs import UsageError, did_you_mean
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
        sizes: Shapes of the models on the axis of parameters.
        programs: Numbers of programs on their axis.
        lengths: Numbers of statements on theirs.
        seeds: Numbers of trainings on theirs.
        stacked: Seeds in a stack.
        stacked_batches: Documents per step and seed in it.
        questions: Programs asked, each once per mode.
        shapes: Published models, by name in `random_models.SHAPES`, whose shapes are trained.
        backend: Of torch.compile, for the arm that compiles.
    """

    model: str
    rounds: int = 5
    threads: tuple[int, ...] = (2, 1)
    batch_size: int = 64
    steps: int = 12
    short: int = 4
    large: PretrainSettings = PretrainSettings(name="10M", hidden=320, layers=7, intermediate=960)
    sizes: tuple[PretrainSettings, ...] = (
        PretrainSettings(name="0.5M", hidden=64, layers=4, intermediate=192),
        PretrainSettings(name="2M", hidden=128, layers=6, intermediate=384),
        PretrainSettings(name="10M", hidden=320, layers=7, intermediate=960),
    )
    programs: tuple[int, ...] = (50, 100, 200)
    lengths: tuple[int, ...] = (1, 2, 3)
    seeds: tuple[int, ...] = (1, 2, 4)
    stacked: int = 8
    stacked_batches: tuple[int, ...] = (64, 4)
    questions: int = 320
    shapes: tuple[str, ...] = ()
    backend: str = "inductor"

    def facts(self) -> pd.DataFrame:
        """Returns the plan as a table of two columns."""
        facts = {
            "model": self.model, "rounds, each arm once in each, in turn forwards and backwards": self.rounds,
            "threads of torch in every arm": ", ".join(map(str, self.threads)),
            "arithmetic of training": f"{dtype_name(_device())} on {_device()}",
            "main comparison": f"{self.steps} steps of {self.batch_size} documents of stage 1 of 01_proactive, LoRA of rank 64",
            "large model": f"{self.large.name}: hidden {self.large.hidden}, {self.large.layers} layers, random weights; {self.short} steps, as on the axes", "questions": f"{self.questions} programs, source in the prompt, 3 modes",
            "compilation": f"torch.compile, backend {self.backend}" + (" (traced only, nothing is compiled)" if self.backend == "eager" else ""),
            "shapes of published models": ", ".join(self.shapes) or "none",
            "missing here": "; ".join(f"{m.name}: {m.why}" for m in missing(self)) or "nothing",
        }  # fmt: skip
        return reading.facts(facts)


_TINY = PretrainSettings(name="tiny", hidden=32, layers=1, intermediate=64)
PLANS: dict[str, dict[str, Any]] = {
    "smoke": {"rounds": 2, "threads": (1,), "batch_size": 8, "steps": 2, "short": 1, "large": _TINY, "sizes": (_TINY, replace(_TINY, name="less tiny", layers=2)),
              "programs": (8, 16), "lengths": (1, 2), "seeds": (1, 2), "questions": 4,
              "stacked": 2, "stacked_batches": (8, 4), "backend": "eager"},
    "quick": {},
    "full": {"rounds": 9, "steps": 60, "short": 10, "programs": (100, 400, 1000), "seeds": (1, 2, 4, 8), "questions": 512,
             "sizes": (*Plan.sizes, PretrainSettings(name="25M", hidden=512, layers=8, intermediate=1536))},
}  # fmt: skip


def plan(values: Mapping[str, Any]) -> Plan:
    """Returns what the parameters of the notebook ask for; `values` is its `globals()`.

    Raises:
        UsageError: A parameter is not valid.
    """
    from pbb_helpers.training.model_files import find

    kinds = {"rounds": int | None, "threads": list[int] | None, "steps": int | None, "stacked": int | None, "shapes": list[str] | None}
    given = notebook.parameters({"profile": tuple(PLANS), "model": str} | kinds, values)
    find(given.model)
    changes = {name: value for name in kinds if (value := getattr(given, name)) is not None}
    changes |= {name: tuple(value) for name, value in changes.items() if isinstance(value, list)}
    return plan_of(given.model, given.profile, **changes)


def plan_of(model: str, profile: str, **changes: Any) -> Plan:
    """Returns the plan of a profile with some values changed; on a GPU `quick` and `full` have more seeds in a stack, and the shapes of `LARGE`.

    Raises:
        UsageError: A value is not valid.
    """
    on_gpu: dict[str, Any] = {"stacked": 16, "shapes": LARGE} if _device().type == "cuda" and profile != "smoke" else {}
    plan = Plan(model, **on_gpu | PLANS[profile] | changes)
    for name in plan.shapes:
        if name not in SHAPES:
            raise did_you_mean("shape", name, SHAPES)
    each_once = all(len(set(given)) == len(given) for given in (plan.threads, plan.shapes))
    if not plan.threads or min(plan.rounds, plan.steps, plan.stacked - 1, *plan.threads) < 1 or not each_once:
        raise UsageError(f"rounds={plan.rounds}, steps={plan.steps}, stacked={plan.stacked}, threads={list(plan.threads)}, "
                         f"shapes={list(plan.shapes)}; give whole numbers from 1, stacked from 2, threads and shapes each once")  # fmt: skip
    return plan


def missing(plan: Plan) -> list[Missing]:
    """Returns what is not measured here, and why: models by their suite, arms by name."""
    from pbb_helpers.performance import peers

    asked = {name: too_large(name) for name in plan.shapes}
    not_asked = "not among the shapes of this run, by default both on a GPU and none on a CPU"
    found = [Missing(suite_of(name), why) for name in LARGE if (why := asked.get(name, not_asked))]
    found += [Missing(f"{n} seeds stacked", f"stacked is {plan.stacked} in this run") for n in (8, 16) if n != plan.stacked]
    if not peers.trl_installed():
        found += [Missing(name, "not installed: pip install -e '.[trl]'") for name in ("TRL tuned", "TRL as it comes")]
    return found


def suite_of(shape: str) -> str:
    """Returns the name of the suite in which one of `random_models.SHAPES` is measured."""
    return f"shape {shape}"


def _device() -> torch.device:
    """Returns where `models.load` puts a model."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_name(device: torch.device) -> str:
    """Returns the dtype that trainings of our own models compute in on a device."""
    from pbb_helpers.training.train import resolve_dtype

    return str(resolve_dtype(QUICK.budget.stage1.dtype, device)).removeprefix("torch.")


# --- workloads ----------------------------------------------------------------------------------------------------------


def documents(
    plan: Plan, steps: int, *, n_programs: int = QUICK.n_with_io, statements: int | None = None, seed: int = 0, **changes: Any
) -> Stage:
    """Returns a first stage of so many steps, drawn as in an experiment.

    Args:
        n_programs: Programs w/ IO; a fifth as many w/o IO.
        statements: The length of every program; None draws one to two.
        seed: Of the programs and of the training.
        changes: Of the stage's settings.
    """
    settings = replace(QUICK.budget.stage1, batch_size=plan.batch_size, **changes)
    length = (("min_statements", statements), ("max_statements", statements)) if statements else ()
    experiment = replace(QUICK, n_with_io=n_programs, n_without_io=max(2, n_programs // 5), family_settings=length)
    return build_stage(STAGE1, experiment.dataset(seed), Budget(settings, settings, stage1_steps=steps))


class Drawing(Arm):
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


def training(plan: Plan, loaded: Any, on_run: OnRun | None = None) -> pd.DataFrame:
    """Returns the rounds of the main comparison (suite "training"), all arms at the first number of threads, the two main ones at the others.

    With one thread on a CPU, ours under the conditions of an experiment is another arm.
    """
    from pbb_helpers.performance import peers

    task = peers.Task(loaded, documents(plan, plan.steps))
    arms, _ = peers.arms(task)
    parts = []
    for i, threads in enumerate(plan.threads):
        chosen = [arm for arm in arms if i == 0 or arm.name in ("ours", "TRL tuned")]
        with contextlib.ExitStack() as opened:
            if threads == 1 and loaded.model.device.type == "cpu":
                chosen.append(opened.enter_context(contextlib.closing(peers.InExperiment(plan.model, task.stage))))
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
    from pbb_helpers.performance import peers

    task = peers.Task(random_model(plan.large, loaded), documents(plan, plan.short))
    with benchmark.torch_threads(plan.threads[0]):
        return Large(task, peers.compiled(task, plan.backend))


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
    from pbb_helpers.performance.gate import one_batch

    shapes = [shape_gate(plan, name, loaded) for name in plan.shapes if not too_large(name)]
    return pd.concat([one_batch(model.task, model.arms), *shapes], ignore_index=True)


def shape_gate(plan: Plan, name: str, loaded: Any) -> pd.DataFrame:
    """Returns `gate.one_batch` of one of `random_models.SHAPES`, on four documents: more of them would say no more, and take more memory."""
    from pbb_helpers.performance.gate import one_batch
    from pbb_helpers.performance.peers import Task

    table = one_batch(Task(random_shape(name, loaded), _shape_documents(plan, name, 1, batch_size=4)))
    _free()
    return table


def shape(plan: Plan, name: str, loaded: Any, on_run: OnRun | None = None) -> pd.DataFrame:
    """Returns the rounds of one of `random_models.SHAPES` (suite "shape NAME"): ours, TRL tuned and the yardstick; its memory is free again after them."""
    from pbb_helpers.performance.peers import Task

    rows = _main_arms(plan, Task(random_shape(name, loaded), _shape_documents(plan, name, plan.steps)), suite_of(name), on_run)
    _free()
    return rows


def shapes(plan: Plan, loaded: Any, on_run: OnRun | None = None) -> pd.DataFrame:
    """Returns the rounds of all shapes of the plan for which there is memory; `missing` names the others."""
    return pd.concat(
        [pd.DataFrame(), *(shape(plan, name, loaded, on_run) for name in plan.shapes if not too_large(name))], ignore_index=True
    )


def _main_arms(plan: Plan, task: Any, suite: str, on_run: OnRun | None, further: Sequence[Arm] = ()) -> pd.DataFrame:
    """Returns the rounds of the two main arms, further ones and the yardstick."""
    from pbb_helpers.performance import peers

    arms = [arm for arm in peers.arms(task)[0] if arm.name in ("ours", "TRL tuned")]
    peak = benchmark.MatmulPeak(task.dtype, task.loaded.model.device.type)
    columns = {"suite": suite, "setting": task.loaded.name, "dtype": _name(task)}
    return benchmark.measure([*arms, *further, peak], plan.rounds, threads=plan.threads[0], on_run=on_run, **columns)


def _shape_documents(plan: Plan, name: str, steps: int, batch_size: int | None = None) -> Stage:
    # The names of programs are several tokens in the published models' own tokenizers, and have no rows to train.
    return documents(replace(plan, batch_size=batch_size or SHAPES[name].batch_size), steps, dtype="bfloat16", train_names=False)


def _free() -> None:
    """Gives back the memory of a model that nothing holds any more."""
    gc.collect()
    release_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _name(task: Any) -> str:
    return str(task.dtype).removeprefix("torch.")


def evaluation(plan: Plan, loaded: Any, on_run: OnRun | None = None) -> tuple[pd.DataFrame, dict[str, float]]:
    """Returns the rounds of answering (suite "evaluation"), and the share of answers that equal those of ours, by arm."""
    from pbb_helpers.performance import answering

    questions = answering.in_context(loaded, plan.questions, seed=1)
    arms = answering.arms(questions)
    columns = {"suite": "evaluation", "setting": plan.model, "dtype": str(loaded.model.dtype).removeprefix("torch.")}
    rows = benchmark.measure(arms, plan.rounds, threads=plan.threads[0], on_run=on_run, **columns)
    return rows, answering.agreement(arms)


def axes(plan: Plan, loaded: Any, on_run: OnRun | None = None) -> pd.DataFrame:
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
    from pbb_helpers.performance.peers import OneByOne, Stacked, Task

    parts = []
    for size in plan.stacked_batches:
        at = replace(plan, batch_size=size)
        tasks = [Task(loaded, documents(at, plan.short, seed=seed)) for seed in range(plan.stacked)]
        arms: list[Arm] = [Stacked(tasks, f"{plan.stacked} seeds stacked"), OneByOne(tasks, f"{plan.stacked} single runs")]
        columns = {"suite": f"seeds, batch {size}", "setting": plan.model, "dtype": _name(tasks[0])}
        parts.append(benchmark.measure(arms, plan.rounds, threads=plan.threads[0], on_run=on_run, **columns))
    return pd.concat(parts, ignore_index=True)


WORK = {
    "training": "training, shipped model", "large": "training, large model", "evaluation": "answering, shipped model",
    "seeds, batch 64": "training, a stack of seeds", "seeds, batch 64, one by one": "training, the same seeds one by one",
}  # fmt: skip


def profiles(plan: Plan, loaded: Any) -> dict[str, pd.DataFrame]:
    """Returns where the time of ours goes (`op_profile.by_group`), on one thread, by suite; `WORK` says them in words.

    Those of trainings have further columns, the same in each line: see `profiled_training`. The first half of each is a warm-up.
    """
    from pbb_helpers.performance import answering, op_profile

    stage = documents(plan, 2 * plan.short)
    arm = answering.Ours(answering.in_context(loaded, plan.questions, seed=1))
    with benchmark.torch_threads(1):
        arm.run()
        found = {
            "training": profiled_training(loaded, [stage], plan.short),
            "large": profiled_training(random_model(plan.large, loaded), [stage], plan.short),
            "evaluation": op_profile.by_group(lambda: [arm.complete(prompts, limit) for _, prompts, limit in arm.questions.groups]),
            **profiled_stack(plan, loaded),
        }
        for name in (name for name in plan.shapes if not too_large(name)):
            found |= profiled_shape(plan, name, loaded)
    return found


def profiled_shape(plan: Plan, name: str, loaded: Any) -> dict[str, pd.DataFrame]:
    """Returns by its suite where the time of ours goes in the training of one of `random_models.SHAPES`."""
    found = profiled_training(random_shape(name, loaded), [_shape_documents(plan, name, 2 * plan.short)], plan.short)
    _free()
    return {suite_of(name): found}


def profiled_stack(plan: Plan, loaded: Any) -> dict[str, pd.DataFrame]:
    """Returns by its suite where the time of a stack goes, at the first of the plan's batch sizes, and that of the same seeds one by one."""
    at = replace(plan, batch_size=plan.stacked_batches[0])
    stages = [documents(at, 2 * plan.short, seed=seed) for seed in range(plan.stacked)]
    suite = f"seeds, batch {at.batch_size}"
    single = pd.concat([profiled_training(loaded, [stage], plan.short) for stage in stages])
    sums = ["seconds", "calls", "flops", "useful_flops", "useful_lora", "tokens", "computed"]
    single = single.groupby("group", as_index=False, sort=False).agg(dict.fromkeys(sums, "sum") | {"peak_flops_per_s": "max"})
    single = single.assign(share=single["seconds"] / single["seconds"].sum()).sort_values("seconds", ascending=False, ignore_index=True)
    stack = profiled_training(loaded, stages, plan.short)
    return {suite: stack, f"{suite}, one by one": single[stack.columns]}


def profiled_training(loaded: Any, stages: Sequence[Stage], steps: int) -> pd.DataFrame:
    """Returns the profile of the last `steps` steps of a training, or of a stack: of the loop alone, without what comes before and after it.

    Beside `op_profile`'s columns: useful_flops, useful_lora (what of them LoRA's own products are counted as), tokens and computed (positions, padding included) of these steps, and peak_flops_per_s, of
    `benchmark.MatmulPeak` on the same one thread.
    """
    from pbb_helpers.performance.op_profile import Recording
    from pbb_helpers.performance.peers import Task
    from pbb_helpers.training.stacked import train_stages
    from pbb_helpers.training.store import Store

    recording, tasks = Recording(), [Task(loaded, stage) for stage in stages]
    stages = [replace(stage, settings=replace(stage.settings, log_every=steps)) for stage in stages]

    def tell(number: int, line: dict) -> None:
        if line["step"] < line["steps"] and number == len(stages) - 1:
            recording.start()
        elif line["step"] == line["steps"] and number == 0:
            recording.stop()

    with tempfile.TemporaryDirectory() as folder, benchmark.torch_threads(1):
        train_stages(loaded, stages, store=Store(Path(folder)), on_progress=tell)
        peak = benchmark.MatmulPeak(tasks[0].dtype, loaded.model.device.type)
        peak.prepare()
        fastest = peak.run()
    counts = _counts(tasks, steps) | {"peak_flops_per_s": fastest.flops / fastest.seconds}
    return recording.by_group(_weights(tasks[0])).assign(**counts)


def _weights(task: Any) -> Any:
    """Returns by which the matrix products of a training are told apart."""
    from peft.tuners.lora.layer import Linear as LoraLinear

    from pbb_helpers.performance.op_profile import Weights

    base = task.loaded.model
    bodies = [tuple(m.base_layer.weight.shape) for m in task.model().modules() if isinstance(m, LoraLinear)]
    return Weights(frozenset([*bodies, tuple(base.get_output_embeddings().weight.shape)]), task.stage.settings.rank)


def _counts(tasks: Sequence[Any], steps: int) -> dict[str, float]:
    """Returns the useful FLOPs, tokens and positions of the last `steps` steps of trainings side by side."""
    from pbb_helpers.performance.peers import unpadded
    from pbb_helpers.training.batches import side_by_side

    each = [list(task.batches())[-steps:] for task in tasks]
    shape = benchmark.shape_of(tasks[0].model())
    lengths = [len(row["input_ids"]) - 1 for batches in each for batch in batches for row in unpadded(batch)]
    supervised = sum(len(batch.targets) for batches in each for batch in batches)
    computed = sum(side_by_side(together).input_ids.numel() for together in zip(*each, strict=True))
    useful = benchmark.training_flops(shape, lengths, supervised)
    return {"useful_flops": useful, "useful_lora": 6 * shape.lora * sum(lengths), "tokens": sum(lengths), "computed": computed}
