"""Where the time of ours goes: the workloads of the benchmark once more, under the profiler, on one thread."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from peft.tuners.lora.layer import Linear as LoraLinear

from pbb_helpers.data.settings import Stage
from pbb_helpers.performance import answering, benchmark, op_profile
from pbb_helpers.performance.performance_plan import Plan, suite_of
from pbb_helpers.performance.random_models import free, random_model, random_shape, too_large
from pbb_helpers.performance.tasks import Task, unpadded
from pbb_helpers.performance.workloads import documents, shape_documents
from pbb_helpers.training.batches import side_by_side
from pbb_helpers.training.stacked import in_one_order, train_stages
from pbb_helpers.training.store import Store

WORK = {
    "training": "training, shipped model", "large": "training, large model", "evaluation": "answering, shipped model",
    "seeds, batch 64": "training, a stack of seeds", "seeds, batch 64, one by one": "training, the same seeds one by one",
}  # fmt: skip


def profiles(plan: Plan, loaded: Any) -> dict[str, pd.DataFrame]:
    """Returns where the time of ours goes (`op_profile.by_group`), on one thread, by suite; `WORK` says them in words.

    Those of trainings have further columns, the same in each line: see `profiled_training`. The first half of each is a warm-up.
    """
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
    found = profiled_training(random_shape(name, loaded), [shape_documents(plan, name, 2 * plan.short)], plan.short)
    free()
    return {suite_of(name): found}


def profiled_stack(plan: Plan, loaded: Any) -> dict[str, pd.DataFrame]:
    """Returns by its suite where the time of a stack goes, at the first of the plan's batch sizes, and that of the same seeds one by one."""
    at = replace(plan, batch_size=plan.stacked_batches[0])
    stages = in_one_order([documents(at, 2 * plan.short, seed=seed) for seed in range(plan.stacked)])
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
    recording, tasks = op_profile.Recording(), [Task(loaded, stage) for stage in stages]
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
    base = task.loaded.model
    bodies = [tuple(m.base_layer.weight.shape) for m in task.model().modules() if isinstance(m, LoraLinear)]
    return op_profile.Weights(frozenset([*bodies, tuple(base.get_output_embeddings().weight.shape)]), task.stage.settings.rank)


def _counts(tasks: Sequence[Any], steps: int) -> dict[str, float]:
    """Returns the useful FLOPs, tokens and positions of the last `steps` steps of trainings side by side."""
    each = [list(task.batches())[-steps:] for task in tasks]
    shape = benchmark.shape_of(tasks[0].model())
    lengths = [len(row["input_ids"]) - 1 for batches in each for batch in batches for row in unpadded(batch)]
    supervised = sum(len(batch.targets) for batches in each for batch in batches)
    computed = sum(side_by_side(together).input_ids.numel() for together in zip(*each, strict=True))
    useful = benchmark.training_flops(shape, lengths, supervised)
    return {"useful_flops": useful, "useful_lora": 6 * shape.lora * sum(lengths), "tokens": sum(lengths), "computed": computed}
