"""Whether the others compute what ours does: losses and gradients beside each other, before anybody compares their speed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pbb_helpers.performance import peers
from pbb_helpers.performance.benchmark import torch_threads
from pbb_helpers.performance.peers import IGNORED, BareLoop, HuggingFace, Ours, Task
from pbb_helpers.programs import UsageError
from pbb_helpers.training.loss import loss
from pbb_helpers.training.merged import merged_forward


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
    in_order = [row for batch in task.batches() for row in peers.unpadded(batch)]
    options: dict[str, Any] = {"train_sampling_strategy": "sequential", "rows": in_order}
    others: list[Any] = [BareLoop(task), HuggingFace(task, "Trainer", trl=False, **options)]
    others += [HuggingFace(task, "TRL", trl=True, gradient_checkpointing=False, **options)] if peers.trl_installed() else []
    with torch_threads(1):
        rows = [*_first_step(task, others, loss_tolerance, gradient_tolerance), *_final_losses(task, others, final_tolerance)]
    for row in rows:
        if not row["difference"] <= row["tolerance"]:
            raise UsageError(f"{row['arm']} and ours differ in {row['quantity']} by {row['difference']:.2g} (tolerance {row['tolerance']:.2g}): "
                             "they don't do the same work, so their times can't be compared")  # fmt: skip
    return pd.DataFrame(rows)


def _first_step(task: Task, others: list[Any], loss_tolerance: float, gradient_tolerance: float) -> Iterator[dict[str, Any]]:
    batch = next(task.batches())
    model = _moved(task.model())
    with merged_forward(model, batch.tokens):
        value = loss(model, batch.to(model.device))
        value.backward()
    mine = _gradients(model)
    for arm in others:
        arm.prepare()
        other = _moved(arm.model).train()
        if isinstance(arm, HuggingFace):
            inputs = arm.trainer.data_collator(peers.unpadded(batch))
            its = float(arm.trainer.training_step(other, dict(inputs), num_items_in_batch=inputs["labels"].ne(IGNORED).sum()))
        else:
            result = other(**{name: tensor.to(model.device) for name, tensor in peers.padded(batch).items()}, use_cache=False).loss
            result.backward()
            its = result.item()
        theirs = _gradients(other)
        worst = max(float((theirs[name] - g).norm() / g.norm()) for name, g in mine.items())
        difference = abs(its - value.item()) / value.item()
        yield {"arm": arm.name, "quantity": "loss of the first step", "ours": value.item(), "other": its, "difference": difference, "tolerance": loss_tolerance}  # fmt: skip
        norms = (sum(float(g.norm() ** 2) for g in each.values()) ** 0.5 for each in (mine, theirs))
        yield {"arm": arm.name, "quantity": "gradients of the first step", "ours": next(norms), "other": next(norms), "difference": worst, "tolerance": gradient_tolerance}  # fmt: skip


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
