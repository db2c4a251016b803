"""LoRA computed as a merged weight, where that is cheaper: the same function and gradients as peft's, in fewer operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn


def merging_pays(layer: LoraLinear, rank: int, tokens: int) -> bool:
    """Returns whether W + s·BA, made once for `tokens` tokens, takes fewer operations than B and A applied to each of them.

    Apart: 6·r·(i+o) per token for A and B. Merged: 2·i·o per token for the gradient of the merged weight, and 6·r·i·o once.
    """
    i, o = layer.in_features, layer.out_features
    return 6 * rank * (i + o) * tokens > 2 * i * o * tokens + 6 * rank * i * o


def is_plain(layer: LoraLinear) -> bool:
    """Returns whether the layer is LoRA as in the paper, on a plain linear layer, with one adapter and no dropout."""
    if type(layer.base_layer) is not nn.Linear or len(layer.active_adapters) != 1 or layer.merged:
        return False
    name = layer.active_adapters[0]
    dropout = layer.lora_dropout[name]
    has_dropout = isinstance(dropout, nn.Dropout) and dropout.p > 0
    return not (has_dropout or name in layer.lora_variant or layer.lora_bias[name] or layer.fan_in_fan_out)


def _merged_linear(layer: LoraLinear, x: Tensor) -> Tensor:
    name = layer.active_adapters[0]
    base, a, b = layer.base_layer, layer.lora_A[name].weight, layer.lora_B[name].weight
    with torch.autocast(x.device.type, enabled=False):  # the sum in the adapter's float32: bfloat16 would swallow a small BA beside W
        weight = torch.addmm(base.weight.to(a.dtype), b, a, alpha=layer.scaling[name])
    return F.linear(x, weight if torch.is_autocast_enabled(x.device.type) else weight.to(x.dtype), base.bias)


@contextmanager
def merged_forward(model: nn.Module, tokens: int) -> Iterator[int]:
    """Makes peft's LoRA layers compute with the merged weight W + s·BA inside the block; gradients flow to A and B as before.

    The modules, their parameters and what is saved stay peft's. Layers with dropout, a variant of LoRA or a quantised base, and layers
    where it would not pay for `tokens` tokens a batch, keep peft's forward. Yields how many layers were changed.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLinear)]
    changed = [layer for layer in layers if is_plain(layer) and merging_pays(layer, layer.r[layer.active_adapters[0]], tokens)]
    for layer in changed:
        layer.forward = partial(_merged_linear, layer)
    try:
        yield len(changed)
    finally:
        for layer in changed:
            del layer.forward


@contextmanager
def inputs_as_they_are(model: nn.Module) -> Iterator[None]:
    """Keeps peft, inside the block, from casting each input up to float32, which autocast would only cast down again.

    `peft.helpers.disable_input_dtype_casting` is for this, but fails on a model with trainable tokens (peft 0.21).
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLinear)]
    before = [layer.cast_input_dtype_enabled for layer in layers]
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for layer, enabled in zip(layers, before, strict=True):
            layer.cast_input_dtype_enabled = enabled
