"""Where the time of a piece of work goes, by kind of operation, as torch's profiler sees it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
from torch.profiler import ProfilerActivity, profile

from pbb_helpers.benchmark import torch_threads

BETWEEN = "between operations (Python, dispatch)"
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


def by_group(work: Callable[[], Any], *, threads: int = 1) -> pd.DataFrame:
    """Returns columns group, seconds, share (of the whole), calls, the largest first.

    With one thread the times of the operations sum up to less than the whole: the rest passes between them. The profiler itself costs
    time with each call, which falls on the groups of many small operations.
    """
    with torch_threads(threads), profile(activities=[ProfilerActivity.CPU]) as found:
        began = time.perf_counter()
        work()
        whole = time.perf_counter() - began
    rows = [{"group": group_of(event.key), "seconds": event.self_cpu_time_total / 1e6, "calls": event.count} for event in found.key_averages()]
    table = pd.DataFrame(rows).groupby("group", as_index=False).sum()
    rest = pd.DataFrame([{"group": BETWEEN, "seconds": max(0.0, whole - table["seconds"].sum()), "calls": 0}])
    table = pd.concat([table, rest], ignore_index=True)
    table["share"] = table["seconds"] / table["seconds"].sum()
    return table.sort_values("seconds", ascending=False, ignore_index=True)[["group", "seconds", "share", "calls"]]
