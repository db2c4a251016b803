"""What the rounds of notebook 90 say: ratios, goals and predictions against them, in a table and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import pandas as pd

from pbb_helpers.performance import benchmark
from pbb_helpers.performance.benchmark import Missing
from pbb_helpers.performance.op_profile import FROZEN, TRAINED
from pbb_helpers.programs import did_you_mean

WORDS = {
    "examples_per_s": "documents per second",
    "tokens_per_s": "tokens without padding per second",
    "flops_per_s": "useful FLOPs per second",
    "exact_per_s": "exact answers per second",
    "of_peak": "useful FLOPs as a share of the matmul peak",
    "peak_mb": "peak memory above the start",
    "computed": "positions computed, padding included",
}


class Measure(NamedTuple):
    """A ratio that is reported: `value` of arm `a` over that of arm `b` in a suite; `goal` is what it should reach, None for no goal.

    Of several arms in `b` the one with the highest median counts.
    """

    name: str
    suite: str
    a: str
    b: str | tuple[str, ...]
    value: str
    goal: float | None = None


def _stacks(seeds: int, goal: float) -> list[Measure]:
    """Returns the speed of a stack of so many seeds over that of single runs, and how many more positions it computes, at both batch sizes."""
    stack, single = f"{seeds} seeds stacked", f"{seeds} single runs"
    return [
        Measure(f"{words}{stack} over {single}, batch {size}", f"seeds, batch {size}", stack, single, value, goal if (value, size) == ("examples_per_s", 64) else None)
        for words, value in (("", "examples_per_s"), ("positions of ", "computed")) for size in (64, 4)
    ]  # fmt: skip


MEASURES = (
    Measure("training, ours over TRL tuned", "training", "ours", "TRL tuned", "examples_per_s", 3.0),
    Measure("training, ours over TRL as it comes", "training", "ours", "TRL as it comes", "examples_per_s"),
    Measure("training, ours over Trainer", "training", "ours", "Trainer", "examples_per_s"),
    Measure("training, ours over a bare loop", "training", "ours", "bare loop", "examples_per_s"),
    Measure("training, memory of ours over TRL tuned", "training", "ours", "TRL tuned", "peak_mb"),
    Measure("training, ours as in an experiment over ours", "training", "ours, as in an experiment", "ours", "examples_per_s"),
    Measure("training, memory of ours as in an experiment over ours", "training", "ours, as in an experiment", "ours", "peak_mb"),
    Measure("training, useful FLOPs of ours over the matmul peak", "training", "ours", "matmul peak", "flops_per_s"),
    Measure("large model, useful FLOPs of ours over the matmul peak", "large", "ours", "matmul peak", "flops_per_s", 0.5),
    Measure("large model, ours over TRL tuned", "large", "ours", "TRL tuned", "examples_per_s"),
    Measure("large model, ours compiled over ours", "large", "ours, compiled", "ours", "examples_per_s"),
    Measure(
        "answering, ours over plain generate", "evaluation", "ours", ("plain generate, eager", "plain generate, sdpa"), "exact_per_s", 3.0
    ),
    Measure("answering, ours over plain generate, eager", "evaluation", "ours", "plain generate, eager", "exact_per_s"),
    Measure("answering, ours over plain generate, sdpa", "evaluation", "ours", "plain generate, sdpa", "exact_per_s"),
    Measure("answering, ours over continuous batching", "evaluation", "ours", "continuous batching", "exact_per_s"),
    *_stacks(8, goal=2.0),
    # The goals from here on are those for a GPU.
    Measure("Llama-3.2-1B shape, ours over TRL tuned", "shape Llama-3.2-1B", "ours", "TRL tuned", "examples_per_s", 2.0),
    Measure("Llama-3.2-1B shape, useful FLOPs of ours over the matmul peak", "shape Llama-3.2-1B", "ours", "matmul peak", "flops_per_s"),
    Measure("Llama-3.2-1B shape, ours packed over ours", "shape Llama-3.2-1B", "ours, packed", "ours", "examples_per_s"),
    Measure("Qwen3-8B shape, useful FLOPs of ours over the matmul peak", "shape Qwen3-8B", "ours", "matmul peak", "flops_per_s", 0.5),
    Measure("Qwen3-8B shape, ours over TRL tuned", "shape Qwen3-8B", "ours", "TRL tuned", "examples_per_s"),
    Measure("Qwen3-8B shape, ours packed over ours", "shape Qwen3-8B", "ours, packed", "ours", "examples_per_s"),
    *_stacks(16, goal=10.0),
)


class Prediction(NamedTuple):
    """What was expected of a measure before the run: that its median lies between `low` and `high`, and why."""

    measure: str
    low: float
    high: float
    why: str


def results(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns one line per measure and number of threads: measure, threads, n (rounds), median, low, high (range over rounds), goal, verdict.

    Args:
        rows: Of `benchmark.measure`, all suites together.
    """
    lines = []
    for m in MEASURES:
        suite = rows[rows["suite"] == m.suite]
        at = {n: suite[suite["threads"] == n] for n in suite["threads"].unique()}
        by_threads = {n: benchmark.ratio(some, m.a, _against(some, m), m.value) for n, some in at.items()}
        found = {n: each for n, each in by_threads.items() if each.n}
        if not found and m.goal is not None:
            found = {None: benchmark.Ratio(0, math.nan, math.nan, math.nan)}
        lines += [
            {"measure": m.name, "threads": n, **asdict(each), "goal": m.goal, "verdict": verdict(each, m.goal)} for n, each in found.items()
        ]
    table = pd.DataFrame(lines)
    return table.assign(threads=table["threads"].astype("Int64"))


def verdict(found: benchmark.Ratio, goal: float | None) -> str:
    """Returns whether a goal is met, in words.

    >>> verdict(benchmark.Ratio(5, 2.4, 2.2, 2.6), 3.0), verdict(benchmark.Ratio(5, 3.1, 2.9, 3.3), 3.0)
    ('missed by 20 %', 'met in the median, not in every round')
    """
    if not found.n:
        return "not measured"
    if goal is None:
        return ""
    if found.median < goal:
        return f"missed by {100 * (1 - found.median / goal):.0f} %"
    return "met" if found.low >= goal else "met in the median, not in every round"


def outcomes(predictions: Sequence[Prediction], table: pd.DataFrame) -> pd.DataFrame:
    """Returns each prediction beside what came out: measure, expected, found, came true.

    Raises:
        UsageError: There is no such measure.
    """
    names = [m.name for m in MEASURES]
    lines = []
    for p in predictions:
        if p.measure not in names:
            raise did_you_mean("measure", p.measure, names)
        cell = _first(table, p.measure)
        measured = cell is not None and cell["n"] > 0
        lines.append({"prediction": p.measure, "why": p.why, "expected": f"{p.low:g} to {p.high:g}",
                      "found": _span(cell) if measured else "not measured",
                      "came true": ("yes" if p.low <= cell["median"] <= p.high else "no") if measured else "-"})  # fmt: skip
    return pd.DataFrame(lines)


def sentences(
    table: pd.DataFrame, profiles: Mapping[str, pd.DataFrame], absent: Sequence[Missing], agreement: Mapping[str, float]
) -> list[str]:
    """Returns the findings: each goal met, or missed by how much and what the time went to; then what has no goal.

    Args:
        table: Of `results`.
        profiles: Of `op_profile.by_group`, by suite, of ours alone.
        absent: Suites and arms that were not measured.
        agreement: Share of answers equal to ours, by arm.
    """
    said = []
    for m in MEASURES:
        cell = _first(table, m.name)
        if cell is None or m.value == "computed":  # what bounds a stack: said with its speed
            continue
        if not cell["n"]:
            why = next((a.why for a in absent if a.name in (m.suite, m.a, *_others(m))), "no such arm in this run")
            said.append(f"{_capital(m.name)}: not measured ({why}); the goal is {m.goal:g}.")
            continue
        goal = f" Goal {m.goal:g}: {cell['verdict']}." if m.goal is not None else ""
        bound = f" {bounds(profiles[m.suite])}" if "missed" in cell["verdict"] and m.suite in profiles else ""
        wider = _wider(table, m, profiles) if m.value == "examples_per_s" else ""
        said.append(f"{_capital(m.name)}, {WORDS[m.value]}: {_span(cell)}.{goal}{bound}{wider}")
        said += [
            f"  The same with {line['threads']} thread{'s' if line['threads'] > 1 else ''}: {_span(line)}."
            for line in _further(table, m.name)
        ]
    said += [f"{_capital(a.name)}: not measured ({a.why})." for a in absent if a.name == "ours, compiled"]
    said += [f"Of the answers by {name}, {100 * share:.1f} % are, letter by letter, those of ours." for name, share in agreement.items()]
    return said


def bounds(profile: pd.DataFrame) -> str:
    """Returns what the time of ours goes to; of a training also how fast its products are, and how many of them count as useful."""
    parts = ", ".join(f"{100 * row.share:.0f} % {row.group}" for row in profile.itertuples() if row.share >= 0.01)
    said = f"By the profile (one thread), the time of ours goes to: {parts}."
    if "useful_flops" not in profile:
        return said
    facts, by = profile.iloc[0], profile.set_index("group")
    for group, useful in ((FROZEN, facts["useful_flops"] - facts["useful_lora"]), (TRAINED, facts["useful_lora"])):
        if group in by.index:
            seconds, flops = by.loc[group, "seconds"], by.loc[group, "flops"]
            said += (
                f" The {group} make {_number(flops / useful)} times the FLOPs that count for them, "
                f"at {100 * flops / seconds / facts['peak_flops_per_s']:.0f} % of the matmul peak."
            )
    reached = facts["useful_flops"] / profile["seconds"].sum() / facts["peak_flops_per_s"]
    return f"{said} {100 * padding(profile):.0f} % of the positions are padding. Useful FLOPs are {100 * reached:.0f} % of the peak there."


def padding(profile: pd.DataFrame) -> float:
    """Returns the share of the positions of a profiled training that is padding."""
    return float(1 - profile["tokens"].iloc[0] / profile["computed"].iloc[0])


def _wider(table: pd.DataFrame, measure: Measure, profiles: Mapping[str, pd.DataFrame]) -> str:
    """Returns how many more positions a stack computes than its single runs and what each costs, nothing for what is no stack."""
    names = [m.name for m in MEASURES if (m.suite, m.a, m.value) == (measure.suite, measure.a, "computed")]
    cell, speed = (_first(table, names[0]) if names else None), _first(table, measure.name)
    if cell is None:
        return ""
    said = (
        f" A stack is as wide as the widest of its batches: it computes {cell['median']:.3g} times the positions, and takes "
        f"{_number(1 / speed['median'] / cell['median'])} times as long for each."
    )
    stack, single = (profiles.get(f"{measure.suite}{which}") for which in ("", ", one by one"))
    if stack is None or single is None:
        return said
    seconds = pd.DataFrame({"stack": stack.set_index("group")["seconds"], "single": single.set_index("group")["seconds"]}).dropna()
    parts = ", ".join(
        f"{row.Index} {_number(row.stack / row.single)}" for row in seconds.sort_values("stack", ascending=False).itertuples()
    )
    return (
        f"{said} In the profile {100 * padding(stack):.0f} % of its positions are padding, {100 * padding(single):.0f} % one by one. "
        f"Its time over theirs: {_number(seconds['stack'].sum() / seconds['single'].sum())}; by kind: {parts}."
    )


def compilation(rows: pd.DataFrame, batch_size: int) -> list[str]:
    """Returns what compiling took and after how many steps it is paid back, by the medians of suite "large"; nothing without such an arm.

    Args:
        rows: Of `measurements.large`.
        batch_size: Documents of a step.
    """
    compiling = rows[rows["phase"] == "compile"]
    if compiling.empty:
        return []
    speeds = benchmark.summary(rows, "examples_per_s").set_index("arm")["median"]
    ours, compiled = (batch_size / speeds[arm] for arm in ("ours", "ours, compiled"))
    seconds = float(compiling["seconds"].iloc[0])
    back = f"after {math.ceil(seconds / (ours - compiled)):,} steps" if compiled < ours else "never"
    return [
        f"Compiling took {_number(seconds)} s. A step of {batch_size} documents takes {_number(compiled)} s compiled and {_number(ours)} s "
        f"as it is: on this machine compiling the {rows['setting'].iloc[0]} model is paid back {back}."
    ]


def _others(measure: Measure) -> tuple[str, ...]:
    return (measure.b,) if isinstance(measure.b, str) else measure.b


def _against(rows: pd.DataFrame, measure: Measure) -> str:
    """Returns the arm that a measure is held against in these rows."""
    others = _others(measure)
    return others[0] if len(others) == 1 or rows.empty else benchmark.best(rows, others, measure.value)


def headline(table: pd.DataFrame) -> str:
    """Returns one line: every goal with what was reached."""
    cells = [(m, _first(table, m.name)) for m in MEASURES if m.goal is not None]
    parts = [f"{m.name} {_span(cell) if cell['n'] else 'not measured'} (goal {m.goal:g})" for m, cell in cells if cell is not None]
    return "; ".join(parts)


def alt(rows: pd.DataFrame, values: Sequence[str], by: Sequence[str]) -> str:
    """Returns medians and ranges over rounds in words, for a figure's alt text."""
    said = []
    for value in values:
        cells = benchmark.summary(rows, value, [*by, *({"arm"} - set(by))]).dropna(subset=["median"])
        cells = cells[cells["arm"] != benchmark.MatmulPeak.name]  # not before: the share of the peak is taken of it
        parts = [
            f"{', '.join(str(row[name]) for name in by)} {_number(row['median'])} ({_number(row['low'])} to {_number(row['high'])})"
            for _, row in cells.iterrows()
        ]
        said.append(f"{_capital(WORDS.get(value, value))}, median and range over rounds: {'; '.join(parts)}.")
    return " ".join(said)


def profile_alt(profiles: Mapping[str, pd.DataFrame]) -> str:
    """Returns the shares of a profile figure in words."""
    parts = (
        f"{name}: {', '.join(f'{row.group} {100 * row.share:.0f} %' for row in table.itertuples())}" for name, table in profiles.items()
    )
    return f"Share of time by kind of operation. {'; '.join(parts)}."


def _first(table: pd.DataFrame, measure: str) -> Any:
    found = table[table["measure"] == measure]
    return None if found.empty else found.iloc[0]


def _further(table: pd.DataFrame, measure: str) -> list[Any]:
    return [line for _, line in table[table["measure"] == measure].iloc[1:].iterrows()]


def _span(cell: Any) -> str:
    return f"{_number(cell['median'])} (range {_number(cell['low'])} to {_number(cell['high'])}, n = {cell['n']} rounds)"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
