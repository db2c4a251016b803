"""The training loss: cross entropy where an example is supervised, without the logits of a whole batch in memory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn

from pbb_helpers.training.batches import Batch

RESCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Config fields of models whose logits are more than `lm_head(hidden)`: these take the model's own, slower, forward."""
GPU_LOGITS = 2**28
"""Logits held at once on a GPU (1 GiB in float32); on a CPU 256 rows at a time stay close to the cache."""


class HeadLoss(torch.autograd.Function):
    """Mean cross entropy of `hidden @ weight.T` against targets, whose gradients are computed in the forward pass, chunk by chunk.

    On a CPU the plain way spends as much time on moving (supervised, vocabulary) floats four times as on the matrix products.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, chunk: int) -> Tensor:
        n, h, w = len(targets), hidden.to(dtype), weight.to(dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_h = torch.empty_like(h) if ctx.needs_input_grad[0] else None
        grad_w = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for i in range(0, n, chunk):
            rows, target = h[i : i + chunk], targets[i : i + chunk, None]
            logits = (rows @ w.t()).float()
            top = logits.amax(1, keepdim=True)
            gold = logits.gather(1, target)
            probs = logits.sub_(top).exp_()
            norm = probs.sum(1, keepdim=True)
            total += (norm.log() + top - gold).sum()
            grad = probs.div_(norm).scatter_add_(1, target, torch.full_like(gold, -1.0)).to(dtype)
            if grad_h is not None:
                torch.mm(grad, w, out=grad_h[i : i + chunk])
            if grad_w is not None:
                grad_w += grad.t() @ rows
        ctx.n, ctx.dtypes = n, (hidden.dtype, weight.dtype)
        ctx.save_for_backward(grad_h, grad_w)
        return total / n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scale = grads[0] / ctx.n
        grad_h, grad_w = ctx.saved_tensors
        scaled = (None if g is None else (g.float() * scale).to(d) for g, d in zip((grad_h, grad_w), ctx.dtypes, strict=True))
        return (*scaled, None, None, None)


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross entropy in nats, a float32 scalar.

    Args:
        hidden: (supervised, d).
        weight: (vocabulary, d) of a language-model head without bias.
        targets: (supervised,) int64.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    chunk = 256 if device == "cpu" else max(256, GPU_LOGITS // len(weight))
    return HeadLoss.apply(hidden, weight, targets, dtype, chunk)


def causal_lm(model: nn.Module) -> Any:
    """Returns the causal language model itself, unwrapped from peft."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_weight(head: nn.Module) -> Tensor | None:
    """Returns the (vocabulary, d) weight of a head that is one matrix, trained name tokens included, or None for any other head."""
    if isinstance(head, TrainableTokensWrapper):
        return head.weight if head_weight(head.original_module) is not None else None
    return head.weight if type(head) is nn.Linear and head.bias is None else None


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Returns the cross entropy in nats per supervised token, a float32 scalar: the mean over the supervised tokens of the batch.

    The language-model head, which costs the most where the vocabulary is large, is applied at the supervised positions only.
    `use_cache=False` is not only faster: with a cache the examples of packed rows would see each other.
    """
    lm = causal_lm(model)
    inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False}
    if any(getattr(lm.config, field, None) for field in RESCALED_LOGITS):
        logits = lm(**inputs).logits.flatten(0, 1)[batch.positions]
        return F.cross_entropy(logits.float(), batch.targets)
    decoder, head = getattr(lm, lm.base_model_prefix), lm.get_output_embeddings()
    hidden = decoder(**inputs).last_hidden_state.flatten(0, 1)[batch.positions]
    weight = head_weight(head)
    return head_loss(hidden, weight, batch.targets) if weight is not None else F.cross_entropy(head(hidden).float(), batch.targets)


def autocast(device: torch.device | str, dtype: torch.dtype) -> AbstractContextManager:
    """Returns the context a forward pass runs in: bfloat16 arithmetic on float32 weights, or, with float32, nothing."""
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32)
