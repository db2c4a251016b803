"""Whether the others compute what ours does: losses and gradients beside each other, before anybody compares their speed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pbb_helpers.performance import peers, tasks
from pbb_helpers.performance.benchmark import torch_threads
from pbb_helpers.performance.compiled import Compiled
from pbb_helpers.performance.ours import Ours
from pbb_helpers.performance.packed import Packed
from pbb_helpers.performance.peers import BareLoop, HuggingFace
from pbb_helpers.performance.tasks import IGNORED, Task
from pbb_helpers.programs import UsageError
from pbb_helpers.training.loss import autocast, loss
from pbb_helpers.training.merged import inputs_as_they_are, merged_forward

TOLERANCES = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (2**-8, 0.04)}
"""Relative, of the loss and of the gradients, by the dtype computed in.

bfloat16 rounds by 2**-9 relative at most, and each arm at other places: the losses of two may be a rounding of each apart. Over hundreds of tokens
that averages out (2e-5 seen with 10M parameters), over a few tens it does not (1e-3). With random weights a loss says little about labels; the
gradients do. All together they are 0.01 apart by rounding, which adds up over layers (with 7 as with 2 here; four times that leaves room for 36),
and 0.08 with the labels of the shortest of four documents left out, 0.05 with one of sixteen.
"""


def gate(task: Task, *, loss_tolerance: float = 1e-5, gradient_tolerance: float = 1e-4, final_tolerance: float = 1e-4) -> pd.DataFrame:
    """Returns how far the others are from ours, in float32: columns arm, quantity, ours, other, difference, tolerance.

    First the loss of the first batch and the gradients of every trained tensor, at weights moved off their start (where half of LoRA's
    gradients are zero); then the loss over all documents after training on the same batches in the same order at a constant rate. A
    difference is relative: of a gradient, the norm of the difference by the norm; the worst tensor counts.

    Raises:
        UsageError: One is beyond its tolerance: the arms don't do the same work, and their times are not to be compared.
    """
    settings = replace(task.stage.settings, dtype="float32", decay="constant", warmup=0.0)
    # Of whole batches: with others a short one comes last, with ours at its place in the order.
    whole = len(task.stage.examples) // settings.batch_size * settings.batch_size
    task = Task(task.loaded, replace(task.stage, settings=settings, examples=task.stage.examples[: whole or None]))
    others = _others(task)
    with torch_threads(1):
        rows = [*_first_step(task, others, loss_tolerance, gradient_tolerance), *_final_losses(task, others, final_tolerance)]
    return _checked(rows)


def one_batch(task: Task, further: Sequence[Any] = ()) -> pd.DataFrame:
    """Returns how far the others are from ours on the first batch, in the task's own dtype and within its `TOLERANCES`: columns as of `gate`, model and dtype.

    Args:
        further: Arms beside the usual ones, which stay prepared for what comes after (what is compiled, is compiled once).

    Raises:
        UsageError: One is beyond its tolerance.
    """
    rows = _checked(list(_first_step(task, [*_others(task), *further], *TOLERANCES[task.dtype])))
    return rows.assign(model=task.loaded.name, dtype=str(task.dtype).removeprefix("torch."))


def _others(task: Task) -> list[Any]:
    """Returns the arms that ours is held to, on its batches in its order."""
    in_order = [row for batch in task.batches() for row in tasks.unpadded(batch)]
    options: dict[str, Any] = {"train_sampling_strategy": "sequential", "rows": in_order}
    others: list[Any] = [BareLoop(task), HuggingFace(task, "Trainer", trl=False, **options)]
    return others + ([HuggingFace(task, "TRL", trl=True, gradient_checkpointing=False, **options)] if peers.trl_installed() else [])


def _checked(rows: list[dict[str, Any]]) -> pd.DataFrame:
    for row in rows:
        if not row["difference"] <= row["tolerance"]:
            raise UsageError(f"{row['arm']} and ours differ in {row['quantity']} by {row['difference']:.2g} (tolerance {row['tolerance']:.2g}): "
                             "they don't do the same work, so their times can't be compared")  # fmt: skip
    return pd.DataFrame(rows)


def _first_step(task: Task, others: list[Any], loss_tolerance: float, gradient_tolerance: float) -> Iterator[dict[str, Any]]:
    batch = next(task.batches())
    model = _moved(task.model())
    device, bfloat16 = task.loaded.model.device, task.dtype != torch.float32
    with merged_forward(model, batch.tokens), inputs_as_they_are(model) if bfloat16 else nullcontext():
        with autocast(device, task.dtype):
            value = loss(model, batch.to(device))
        value.backward()
    mine = _gradients(model)
    for arm in others:
        arm.prepare()
        other = _moved(arm.model).train()
        if isinstance(arm, HuggingFace):
            inputs = arm.trainer.data_collator(tasks.unpadded(batch))
            its = float(arm.trainer.training_step(other, dict(inputs), num_items_in_batch=inputs["labels"].ne(IGNORED).sum()))
        else:
            with autocast(device, task.dtype):
                result = (
                    arm.loss(next(arm.batches()))
                    if isinstance(arm, (Compiled, Packed))
                    else other(**{name: tensor.to(device) for name, tensor in tasks.padded(batch).items()}, use_cache=False).loss
                )
            result.backward()
            its = result.item()
        theirs = _gradients(other)
        arm.release()
        apart, norms = ([float(g.norm()) for g in some] for some in ((theirs[name] - g for name, g in mine.items()), mine.values()))
        # In bfloat16 a tensor whose gradient nearly cancels out is all rounding: there all of them count together.
        off = math.hypot(*apart) / math.hypot(*norms) if bfloat16 else max(a / n for a, n in zip(apart, norms, strict=True))
        difference = abs(its - value.item()) / value.item()
        yield {"arm": arm.name, "quantity": "loss of the first step", "ours": value.item(), "other": its, "difference": difference, "tolerance": loss_tolerance}  # fmt: skip
        both = (math.hypot(*(float(g.norm()) for g in each.values())) for each in (mine, theirs))
        yield {"arm": arm.name, "quantity": "gradients of the first step", "ours": next(both), "other": next(both), "difference": off, "tolerance": gradient_tolerance}  # fmt: skip


def _final_losses(task: Task, others: list[Any], tolerance: float) -> Iterator[dict[str, Any]]:
    finals = []
    for arm in (Ours(task), *others):
        arm.prepare()
        arm.run()
        finals.append(_mean_loss(task, arm.model))
    for arm, its in zip(others, finals[1:], strict=True):
        yield {"arm": arm.name, "quantity": "loss after training", "ours": finals[0], "other": its, "difference": abs(its / finals[0] - 1), "tolerance": tolerance}  # fmt: skip


@torch.no_grad()
def _mean_loss(task: Task, model: Any) -> float:
    model.eval()
    losses = [(loss(model, batch.to(model.device)).item(), len(batch.targets)) for batch in task.batches()]
    return sum(value * n for value, n in losses) / sum(n for _, n in losses)


@torch.no_grad()
def _moved(model: Any) -> Any:
    """Returns the model after moving its adapter off the start, each time by the same."""
    generator = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p += 0.02 * torch.randn(p.shape, generator=generator).to(p.device)
    return model


def _gradients(model: Any) -> dict[str, Tensor]:
    return {name: p.grad.float() for name, p in model.named_parameters() if p.requires_grad}
