"""Where the time of a piece of work goes, by kind of operation, as torch's profiler sees it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

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


class Recording:
    """What torch's profiler saw between `start` and `stop`, for work that can only be profiled from within.

    With a GPU its time is what counts: that of the kernels that an operation started.
    """

    def __init__(self) -> None:
        self._on_gpu = torch.cuda.is_available()
        self._profile = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._on_gpu else [])])

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

    def by_group(self) -> pd.DataFrame:
        """Returns columns group, seconds, share (of the whole), calls, the largest first.

        With one thread the times of the operations sum up to less than the whole: the rest passes between them. The profiler itself costs
        time with each call, which falls on the groups of many small operations.
        """
        # On a GPU each kernel is there twice, by its own name and in the operation that started it.
        events = [event for event in self._profile.key_averages() if event.device_type == DeviceType.CPU]
        clock = "self_device_time_total" if self._on_gpu else "self_cpu_time_total"
        rows = [{"group": group_of(event.key), "seconds": getattr(event, clock) / 1e6, "calls": event.count} for event in events]
        table = pd.DataFrame(rows).groupby("group", as_index=False).sum()
        rest = {"group": BETWEEN, "seconds": max(0.0, self._whole - table["seconds"].sum()), "calls": 0}
        table = pd.concat([table, pd.DataFrame([rest])], ignore_index=True)
        table["share"] = table["seconds"] / table["seconds"].sum()
        return table.sort_values("seconds", ascending=False, ignore_index=True)[["group", "seconds", "share", "calls"]]

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()


def by_group(work: Callable[[], Any]) -> pd.DataFrame:
    """Returns `Recording.by_group` of one call of `work`."""
    recording = Recording()
    recording.start()
    work()
    recording.stop()
    return recording.by_group()
