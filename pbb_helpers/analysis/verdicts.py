"""What was predicted before a run, and what came of it in numbers: one line each, for the report and the table of all claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from pbb_helpers.analysis.findings import cell, points, signed
from pbb_helpers.analysis.intervals import t_interval
from pbb_helpers.analysis.statistics import above_floor, highest_floor, paired, prepare

CLAIM = ("claim", "expected", "verdict", "effect", "low", "high", "seed_low", "seed_high", "n", "n_programs", "n_seeds", "came_true")
MARGIN = 0.05
"""A prediction of no difference has come true where the whole interval is nearer to zero than this, in points as a share; else it is open."""
FLOOR_MARGIN = 0.02
"""The same where a condition is held against its floor: that is 2 to 5 %, and five points more would be twice what can be guessed."""
NOT_RUN: dict[str, Any] = {"verdict": "not run", "low": math.nan, "high": math.nan}


class Prediction(NamedTuple):
    """What was expected of condition `a` against `b` on w/o IO programs before the run.

    `expected` is "above", "below", "no difference shown" or "not above"; `came_true` says what fulfils each.
    """

    text: str
    a: str
    b: str
    mode: str
    expected: str


def claims(
    predictions: Sequence[Prediction], rows: pd.DataFrame, *, floors: pd.DataFrame | None = None, table: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Returns what came of each prediction, in numbers.

    Columns: claim, expected, verdict (of `verdict`, or "not run"), effect, low, high (the accuracy of `a` minus that of `b`, as shares, with
    its 95 % interval over programs, the seeds held), seed_low, seed_high (its 95 % t interval over seeds, which speaks of other seeds too; NaN
    with one), n (pairs, or answers), n_programs, n_seeds, came_true. What is held against itself was not run. `b` may be "floor", the highest of `floors`: then the interval over programs
    is that of `a` in `table`, the floor is taken as known, and each seed is held against its own.
    """
    frame = prepare(rows) if len(rows) else rows
    lines = []
    for p in predictions:
        line = _claim(p, frame, floors, table)
        lines.append(
            {"claim": p.text, "expected": p.expected}
            | line
            | {"came_true": came_true(p.expected, line["verdict"], line["low"], line["high"], FLOOR_MARGIN if p.b == "floor" else MARGIN)}
        )
    return pd.DataFrame(lines, columns=list(CLAIM))


def verdict(low: float, high: float, seeds: Sequence[float]) -> str:
    """Returns what a difference shows: "above" or "below" where its interval excludes zero and every seed's own difference has that sign.

    >>> verdict(0.01, 0.2, (0.1, 0.1)), verdict(0.01, 0.2, (0.2, -0.1)), verdict(-0.1, 0.1, (0.1,)), verdict(math.nan, math.nan, (0.1,))
    ('above', 'seeds disagree', 'no difference shown', 'no difference shown')
    """
    if low > 0:
        return "above" if min(seeds) > 0 else "seeds disagree"
    if high < 0:
        return "below" if max(seeds) < 0 else "seeds disagree"
    return "no difference shown"


def came_true(expected: str, verdict: str, low: float = math.nan, high: float = math.nan, margin: float = MARGIN) -> str:
    """Returns whether a verdict is what was expected, for the table of claims.

    A difference that was expected has come true if it is shown, and not if it isn't. "no difference shown" has come true only if the
    interval lies within `margin` of zero, "not above" if its upper end lies below `margin`. A difference that is shown refutes both; else too little is known, and the claim is open.

    >>> came_true("above", "below"), came_true("above", "seeds disagree", 0.01, 0.2), came_true("above", "not run")
    ('no', 'no', '-')
    >>> came_true("not above", "seeds disagree", 0.01, 0.04), came_true("above", "no difference shown")
    ('open', 'open')
    >>> came_true("not above", "no difference shown", -0.2, 0.04), came_true("no difference shown", "no difference shown", -0.2, 0.04)
    ('yes', 'open')
    >>> came_true("not above", "no difference shown", -0.01, 0.04, FLOOR_MARGIN)
    'open'
    """
    if verdict == "not run":
        return "-"
    if verdict == "no difference shown" and math.isnan(low):  # too few programs for an interval
        return "open"
    if expected in ("above", "below"):
        return "yes" if verdict == expected else "no"
    if verdict == "above" or (verdict == "below" and expected == "no difference shown"):
        return "no"
    if verdict == "seeds disagree" and (low > 0 or expected == "no difference shown"):
        return "open"
    return "yes" if high < margin and (expected == "not above" or low > -margin) else "open"


def _claim(p: Prediction, frame: pd.DataFrame, floors: pd.DataFrame | None, table: pd.DataFrame | None) -> dict[str, Any]:
    asked = frame[(frame["mode"] == p.mode) & (frame["group"] == "without_io")]["condition"]
    if p.a == p.b or not {p.a, p.b} - {"floor"} <= set(asked):
        return NOT_RUN
    if p.b != "floor":
        d = paired(frame, p.a, p.b, mode=p.mode, group="without_io")
        return {
            "verdict": verdict(d.low, d.high, d.seed_means),
            "effect": d.mean,
            "low": d.low,
            "high": d.high,
            "seed_low": d.seed_low,
            "seed_high": d.seed_high,
            "n": d.n,
            "n_programs": d.n_programs,
            "n_seeds": d.n_seeds,
        }
    if table is None or floors is None:
        raise ValueError("a prediction against the floor needs table and floors")
    line = cell(table, p.a, p.mode, "without_io")
    assert line is not None
    floor = highest_floor(floors, p.mode)[1]
    ends = {name: line[column] - floor for name, column in (("effect", "accuracy"), ("low", "low"), ("high", "high"))}
    seeds = list(above_floor(table, floors, p.a, p.mode).values())
    ends |= dict(zip(("seed_low", "seed_high"), t_interval(seeds, lowest=-1.0), strict=True))
    return {"verdict": verdict(ends["low"], ends["high"], seeds)} | ends | {name: line[name] for name in ("n", "n_programs", "n_seeds")}


def outcomes(found: pd.DataFrame) -> pd.DataFrame:
    """Returns the table of `claims` in words: columns prediction, expected, found, difference, over seeds (its interval), n, came true."""
    run = found["verdict"] != "not run"
    said = pd.DataFrame({"prediction": found["claim"], "expected": found["expected"], "found": found["verdict"]})
    said["difference"] = [
        points(line.effect, line.low, line.high) if ran else "" for line, ran in zip(found.itertuples(), run, strict=True)
    ]
    said["over seeds"] = [
        "–" if pd.isna(line.seed_low) else f"{signed(line.seed_low)} to {signed(line.seed_high)}" for line in found.itertuples()
    ]
    said["n"] = [_behind(line) if ran else "" for line, ran in zip(found.itertuples(), run, strict=True)]
    said["came true"] = found["came_true"]
    return said


def _behind(line: Any) -> str:
    return f"{line.n:.0f} over {line.n_programs:.0f} programs, {line.n_seeds:.0f} seed{'' if line.n_seeds == 1 else 's'}"
