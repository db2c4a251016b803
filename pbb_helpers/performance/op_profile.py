"""Where the time of a piece of work goes, by kind of operation, as torch's profiler sees it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

FROZEN = "matrix products with frozen weights, attention"
TRAINED = "matrix products for trained weights"
"""The two groups of a training: the second makes merged weights and the gradients of them, of LoRA's factors and of the head's rows of names."""
OPERANDS = {"aten::mm": (0, 1), "aten::bmm": (0, 1), "aten::addmm": (1, 2), "aten::baddbmm": (1, 2)}
"""Which inputs of an operation are multiplied."""
BETWEEN = "between operations (Python, dispatch)"
"""On a GPU: what it waits for."""
GROUPS = {
    "matrix products": r"aten::(mm|addmm|bmm|baddbmm|matmul|linear|_addmm\w*|mkldnn_\w+)$|mkldnn",
    "copies, casts, memory": r"aten::(copy_|_to_copy|to|clone|contiguous|cat|empty\w*|zero\w*|fill_|resize_|new_\w+|full\w*|ones\w*|stack|constant_pad_nd)$",
    "softmax": r"softmax",
    "optimizer and clipping": r"fused_adam|_foreach|Optimizer|linalg_vector_norm",
    "indexing": r"embedding|index|gather|scatter|aten::(isin|where|nonzero|argmax|masked_fill\w*|sort|amax|max)$",
    "elementwise and sums": r"aten::(add|sub|mul|div|pow|exp|log|neg|sigmoid|silu|rsqrt|mean|sum|cos|sin|reciprocal|sqrt|clamp)\w*$|threshold",
}
"""Kinds of operation, by the first pattern that is found in the name; what none fits is "other"."""


def group_of(name: str) -> str:
    """Returns the kind of an operation.

    >>> group_of("aten::mm"), group_of("aten::_softmax_backward_data"), group_of("aten::view")
    ('matrix products', 'softmax', 'other')
    """
    return next((group for group, pattern in GROUPS.items() if re.search(pattern, name)), "other")


@dataclass(frozen=True)
class Weights:
    """By which the matrix products of a training are told apart: the shapes (out, in) of the frozen weights, head included, and LoRA's rank.

    A batch of exactly as many positions as a weight has rows would be mistaken for one; there is about none.
    """

    shapes: frozenset[tuple[int, int]]
    rank: int

    def group(self, m: int, k: int, n: int) -> str:
        """Returns the kind of a product of (m, k) and (k, n).

        A result in the shape of a frozen weight is a merged weight or the gradient of one; with the rank on one side and such a shape on the
        other two it is the gradient of a factor. All else has positions in it: layers and head forwards and backwards, attention.
        """
        sides = [(m, n), *([(m, k)] if n == self.rank else []), *([(k, n)] if m == self.rank else [])]
        return TRAINED if any(side in self.shapes or side[::-1] in self.shapes for side in sides) else FROZEN


class Recording:
    """What torch's profiler saw between `start` and `stop`, for work that can only be profiled from within.

    With a GPU its time is what counts: that of the kernels that an operation started.
    """

    def __init__(self) -> None:
        self._on_gpu = torch.cuda.is_available()
        self._profile = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._on_gpu else [])], record_shapes=True)

    def start(self) -> None:
        """Begins to record."""
        self._wait()
        self._profile.start()
        self._began = time.perf_counter()

    def stop(self) -> None:
        """Ends it, once for all."""
        self._wait()
        self._whole = time.perf_counter() - self._began
        self._profile.stop()

    def by_group(self, weights: Weights | None = None) -> pd.DataFrame:
        """Returns columns group, seconds, share (of the whole), calls, flops (of matrix products), the largest first.

        With `weights` matrix products are in two groups, `FROZEN` and `TRAINED`. With one thread the times of the operations sum up to less than the whole: the rest passes between them. The profiler itself costs
        time with each call, which falls on the groups of many small operations.
        """
        # On a GPU each kernel is there twice, by its own name and in the operation that started it.
        events = [event for event in self._profile.key_averages(group_by_input_shape=True) if event.device_type == DeviceType.CPU]
        clock = "self_device_time_total" if self._on_gpu else "self_cpu_time_total"
        rows = []
        for event in events:
            batch, *sides = product(event.key, event.input_shapes) or (0, 0, 0, 0)
            group = weights.group(*sides) if weights and batch else group_of(event.key)
            flops = 2.0 * event.count * batch * sides[0] * sides[1] * sides[2]
            rows.append({"group": group, "seconds": getattr(event, clock) / 1e6, "calls": event.count, "flops": flops})
        table = pd.DataFrame(rows).groupby("group", as_index=False).sum()
        if weights:  # what is left of "matrix products" is the way to them
            table = table.replace({"group": {"matrix products": "other"}}).groupby("group", as_index=False).sum()
        rest = {"group": BETWEEN, "seconds": max(0.0, self._whole - table["seconds"].sum()), "calls": 0, "flops": 0.0}
        table = pd.concat([table, pd.DataFrame([rest])], ignore_index=True)
        table["share"] = table["seconds"] / table["seconds"].sum()
        return table.sort_values("seconds", ascending=False, ignore_index=True)[["group", "seconds", "share", "calls", "flops"]]

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()


def product(name: str, shapes: list[list[int]]) -> tuple[int, int, int, int] | None:
    """Returns (b, m, k, n) of an operation that multiplies b times (m, k) and (k, n), None of any other.

    >>> product("aten::addmm", [[7], [3, 5], [5, 7]]), product("aten::add", [[3, 5], [3, 5]])
    ((1, 3, 5, 7), None)
    """
    if name not in OPERANDS:
        return None
    (*batch, m, k), (*_, n) = (shapes[place] for place in OPERANDS[name])
    return (batch[0] if batch else 1), m, k, n


def by_group(work: Callable[[], Any]) -> pd.DataFrame:
    """Returns `Recording.by_group` of one call of `work`."""
    recording = Recording()
    recording.start()
    work()
    recording.stop()
    return recording.by_group()
