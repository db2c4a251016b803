"""Timing side by side: arms that take turns (A B B A) in one process, so that what slows the machine for a while slows all of them.

A single time says little on a shared machine; what is reported is the ratio of two arms within a round, its median and range over rounds.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pbb_helpers.processes import release_memory
from pbb_helpers.programs import UsageError

RATES = {"examples_per_s": "examples", "tokens_per_s": "tokens", "flops_per_s": "flops", "exact_per_s": "exact"}
"""Column of `rates` → what it counts per second."""


@dataclass(frozen=True)
class Work:
    """What one run of an arm did.

    Attributes:
        seconds: Of the work itself, without what `Arm.prepare` does.
        examples: Documents trained on, or questions answered.
        tokens: Without padding: trained on, or written.
        flops: Useful ones, see `training_flops`; NaN where none are counted.
        exact: Answers that are exactly right; NaN for a training.
        computed: Positions that went through the model, padding included; NaN where nobody compares them.
        peak_mb: Its peak of memory, where the arm works in a process of its own; NaN: that of this process.
    """

    seconds: float
    examples: int
    tokens: int
    flops: float = math.nan
    exact: float = math.nan
    computed: float = math.nan
    peak_mb: float = math.nan


def total(works: Iterable[Work], seconds: float) -> Work:
    """Returns the work of several runs that took so many seconds together."""
    works = list(works)
    return Work(seconds, **{name: sum(getattr(work, name) for work in works) for name in ("examples", "tokens", "flops", "computed")})


OnRun = Callable[[dict[str, Any]], None]
"""What is told of each run as soon as it is done: gets its row."""


class Arm:
    """One way of doing the work: `prepare`, `run`, `release`, over and over. A run times itself: only it knows where its set-up ends."""

    name: str

    def prepare(self) -> None:
        """Makes anew what a run starts from; not timed."""
        return

    def run(self) -> Work:
        """Does the work once, all of it the same each time."""
        raise NotImplementedError

    def release(self) -> None:
        """Lets go of what the run left: what an arm still held would be missing to the next, and from its peak of memory."""
        return


@dataclass(frozen=True)
class Missing:
    """An arm that cannot run here, and why."""

    name: str
    why: str


def alternating(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yields (round from 1, name): forwards in odd rounds, backwards in even ones, so that a drift of the machine falls on all alike.

    >>> [name for _, name in alternating("AB", 4)]
    ['A', 'B', 'B', 'A', 'A', 'B', 'B', 'A']
    """
    for number in range(1, rounds + 1):
        for name in names if number % 2 else reversed(names):
            yield number, name


def measure(arms: Sequence[Arm], rounds: int, *, threads: int, on_run: OnRun | None = None, **columns: Any) -> pd.DataFrame:
    """Returns one row per run: the columns given, arm, phase ("warm-up" or "timed"), round, the fields of `Work`, threads.

    Each arm runs once before the rounds begin: imports, caches and the choice of kernels are its warm-up, which is kept as round 0. An arm
    for which a GPU's memory does not suffice takes no further part: its last row has the phase "out of memory" and seconds NaN.

    Args:
        arms: Of different names.
        rounds: Of timed runs; at least 1.
        threads: For torch, while measuring.
        on_run: Gets each row as soon as it is there.

    Raises:
        UsageError: Two arms have one name, or there is no round or thread.
    """
    by_name = {arm.name: arm for arm in arms}
    if len(by_name) < len(arms) or rounds < 1 or threads < 1:
        raise UsageError(f"arms {', '.join(arm.name for arm in arms)}, {rounds} rounds, {threads} threads; give each arm a name of its own, "
                         "and at least 1 round and thread")  # fmt: skip
    rows = []
    with torch_threads(threads), _quick_collection():
        for number, name in [*((0, name) for name in by_name), *alternating(list(by_name), rounds)]:
            if name not in by_name:
                continue
            work, peak = _run(by_name[name])
            phase = ("timed" if number else "warm-up") if work else "out of memory"
            if work is None:
                del by_name[name]
            work = work or Work(math.nan, 0, 0)
            work = replace(work, peak_mb=peak) if math.isnan(work.peak_mb) else work
            rows.append(columns | {"arm": name, "phase": phase, "round": number} | asdict(work) | {"threads": threads})
            if on_run:
                on_run(rows[-1])
    return pd.DataFrame(rows)


def _run(arm: Arm) -> tuple[Work | None, float]:
    """Returns the work of one run and its peak of memory in MB; None where a GPU has too little of it."""
    try:
        with peak_memory() as peak:
            arm.prepare()
            work = arm.run()
    except torch.cuda.OutOfMemoryError:
        return None, math.nan
    finally:
        arm.release()
    return work, peak[0]


def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the timed rows with a column for each of `RATES`, of_peak and padding.

    of_peak: useful FLOPs as a share of the yardstick's in the same round. padding: the share of the positions computed that is padding.
    """
    timed = rows[rows["phase"] == "timed"]
    timed = timed.assign(**{rate: timed[count] / timed["seconds"] for rate, count in RATES.items()})
    same = ["suite", "threads", "round"]
    peak = timed[timed["arm"] == MatmulPeak.name].set_index(same)["flops_per_s"]
    if "computed" in timed:
        timed = timed.assign(padding=1 - timed["tokens"] / timed["computed"])
    return timed.assign(of_peak=timed["flops_per_s"] / peak.reindex(pd.MultiIndex.from_frame(timed[same])).to_numpy())


def summary(rows: pd.DataFrame, value: str, by: Iterable[str] = ("arm",)) -> pd.DataFrame:
    """Returns median, low and high (the range) of `value` over the timed rounds, and their number n, for each cell of `by`."""
    grouped = rates(rows).groupby(list(by), sort=False)[value]
    return grouped.agg(n="count", median="median", low="min", high="max").reset_index()


@dataclass(frozen=True)
class Ratio:
    """Median and range of a ratio over rounds; all NaN where nothing was measured (n = 0)."""

    n: int
    median: float
    low: float
    high: float


def ratio(rows: pd.DataFrame, a: str, b: str, value: str) -> Ratio:
    """Returns `value` of arm `a` over that of arm `b`, each round by itself: a slow minute of the machine falls out of it."""
    timed = rates(rows)
    table = timed.pivot(index="round", columns="arm", values=value) if value in timed else pd.DataFrame()
    if a not in table or b not in table:
        return Ratio(0, math.nan, math.nan, math.nan)
    within = (table[a] / table[b]).dropna()
    return Ratio(len(within), float(within.median()), float(within.min()), float(within.max()))


def best(rows: pd.DataFrame, arms: Sequence[str], value: str) -> str:
    """Returns the arm whose median of `value` is the highest, the first where none was measured."""
    medians = summary(rows[rows["arm"].isin(arms)], value).set_index("arm")["median"].dropna()
    return arms[0] if medians.empty else str(medians.idxmax())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Gives torch so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quick_collection() -> Iterator[None]:
    """Keeps what is there already (modules, thousands of their objects) out of each `gc.collect` inside the block."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


# --- memory -------------------------------------------------------------------------------------------------------------


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Yields a list that holds, after the block, the peak inside it in MB above what was held before; NaN where the system can't tell.

    On a GPU its memory, else the process's resident memory, whose high-water mark Linux lets a process reset.
    """
    gc.collect()
    release_memory()
    peak: list[float] = []
    before = _held(reset=True)
    try:
        yield peak
    finally:
        peak.append((_held() - before) / 1e6)


def _held(*, reset: bool = False) -> float:
    """Returns the high-water mark in bytes, put down to what is held now if `reset`."""
    if torch.cuda.is_available():
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.max_memory_allocated())
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: resets VmHWM
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * float(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return math.nan


# --- arithmetic ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What the cost of a training step hangs on: weights in the body's matrix products, those of its adapters, layers, width, vocabulary."""

    body: int
    lora: int
    layers: int
    hidden: int
    vocabulary: int


def shape_of(model: Any) -> Shape:
    """Returns the shape of a peft model with LoRA on its body."""
    from peft.tuners.lora.layer import Linear as LoraLinear

    layers = [module for module in model.modules() if isinstance(module, LoraLinear)]
    lora = sum(
        p.numel() for layer in layers for name in layer.active_adapters for p in (layer.lora_A[name].weight, layer.lora_B[name].weight)
    )
    config = model.config
    return Shape(
        sum(layer.base_layer.weight.numel() for layer in layers), lora, config.num_hidden_layers, config.hidden_size, config.vocab_size
    )


def training_flops(shape: Shape, lengths: Sequence[int], supervised: int) -> float:
    """Returns the useful FLOPs of forward and backward over documents: what the task needs, however an arm goes about it.

    Per token 4 for each frozen weight (forward, gradient of the input) and 6 for each trained one; the head only where there is a target;
    causal attention at half of n². Padding, recomputed activations and logits that nobody asked for are no useful work.

    Args:
        lengths: Tokens read per document.
        supervised: Tokens with a target, over all documents.
    """
    tokens, squares = sum(lengths), sum(n * n for n in lengths)
    body = (4 * shape.body + 6 * shape.lora) * tokens
    return float(body + 4 * shape.hidden * shape.vocabulary * supervised + 6 * shape.layers * shape.hidden * squares)


class MatmulPeak(Arm):
    """The yardstick: the fastest of some products of two square matrices, at the same dtype and threads, in the same rounds.

    On a GPU matrices of 2048 are too small to fill it, and asking for one costs as much as multiplying it: there they are of 8192, and a
    reading is of ten products, by the GPU's own clock.
    """

    name = "matmul peak"

    def __init__(self, dtype: torch.dtype, device: str = "cpu", size: int | None = None, repeats: int = 8) -> None:
        self.dtype, self.device, self.repeats = dtype, torch.device(device), repeats
        self.pair: list[torch.Tensor] = []
        self.size, self.products = (size or 8192, 10) if self.device.type == "cuda" else (size or 2048, 1)

    def prepare(self) -> None:
        self.pair = [torch.randn(self.size, self.size, device=self.device).to(self.dtype) for _ in range(2)]

    def run(self) -> Work:
        read = self._on_gpu if self.device.type == "cuda" else self._once
        each = [read() for _ in range(self.repeats)]
        return Work(min(each), 0, 0, 2.0 * self.products * self.size**3)

    def release(self) -> None:
        self.pair = []

    def _once(self) -> float:
        began = time.perf_counter()
        torch.mm(*self.pair)
        return time.perf_counter() - began

    def _on_gpu(self) -> float:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        for _ in range(self.products):
            torch.mm(*self.pair)
        ended.record()
        ended.synchronize()
        return began.elapsed_time(ended) / 1000


class Repeated(Arm):
    """An arm that does another's work several times over, one after the other."""

    def __init__(self, arm: Arm, times: int, name: str) -> None:
        self.arm, self.times, self.name = arm, times, name

    def run(self) -> Work:
        works = []
        for _ in range(self.times):
            self.arm.prepare()
            works.append(self.arm.run())
            self.arm.release()
        return total(works, seconds=sum(work.seconds for work in works))

    def release(self) -> None:
        self.arm.release()
