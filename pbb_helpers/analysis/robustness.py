"""How accuracy varies over what programs are called at: by shift, or by input, and how it differs where training saw much and little.

A value is what a distribution over inputs says of one (`distributions.value`): the shift of a text, or the number itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pbb_helpers.analysis import findings, intervals, statistics, verdicts
from pbb_helpers.analysis.labels import label
from pbb_helpers.data.demonstrations import DEMONSTRATIONS
from pbb_helpers.data.distributions import Distribution, value
from pbb_helpers.programs import did_you_mean, from_cell

MODES = ("own", "direct", "cot", "recall")
MEASURES = ("mean", "worst", "frequent", "rare", "gap")
"""Mean over values (the area under the curve), accuracy at the worst value, at frequent ones, at rare ones, and frequent minus rare."""
SIDES = ("everywhere", "where frequent", "where rare")
KEPT = 0.8
"""Frequent are the fewest values that have this share of a distribution: of the natural shifts, 13 alone."""


def with_values(rows: pd.DataFrame, *, width: int = 1) -> pd.DataFrame:
    """Returns the answers to calls with columns `value`, `bin` (the lowest value of its bin of `width`) and `letters`, the share of letters right."""
    calls = rows[rows["input"].notna()].reset_index(drop=True)
    values = np.array([value(from_cell(x)) for x in calls["input"]], dtype=int)
    letters = [letters_right(answer, gold) for answer, gold in zip(calls["answer"], calls["gold"], strict=True)]
    return calls.assign(value=values, bin=values // width * width, letters=letters)


def letters_right(answer: Any, gold: str) -> float:
    """Returns the share of letters of an answer that are right in their place; letters too many or too few are wrong ones.

    >>> letters_right("CAB", "CAT"), letters_right("CA", "CAT"), letters_right("CATS", "CAT"), letters_right(None, "CAT")
    (0.6666666666666666, 0.6666666666666666, 0.75, 0.0)
    """
    if not isinstance(answer, str):
        return 0.0
    return sum(a == b for a, b in zip(answer, gold, strict=False)) / max(len(answer), len(gold))


def with_own_way(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows, and once more in mode "own" those that a condition gave in the way that suits what it was shown.

    What was shown source recalls it and steps through; what was shown I/O pairs alone answers directly, as the pairs do. So source and pairs
    can be compared at the best that each was made for, question by question; it is fixed here and not chosen from the results.
    """
    own = rows[rows["mode"] == rows["condition"].map(own_way)]
    return pd.concat([rows, own.assign(mode="own")], ignore_index=True)


def own_way(condition: str) -> str:
    """Returns the way of answering that suits what a condition was shown of the w/o IO programs.

    >>> own_way("proactive"), own_way("io_only(8, natural)"), own_way("source_and_io(8, natural)")
    ('recall', 'direct', 'recall')
    """
    shown = DEMONSTRATIONS.get(condition.partition("(")[0])
    return "recall" if shown is None or "source" in dict(shown.without_io) else "direct"


def frequent_values(skewed: Distribution, share: float = KEPT) -> tuple[int, ...]:
    """Returns the fewest values, the likeliest ones, that have at least this share of the probability, in order."""
    likeliest = np.argsort([-p for p in skewed.probabilities], kind="stable")
    reached = np.cumsum([skewed.probabilities[i] for i in likeliest])
    count = int(np.searchsorted(reached, share - 1e-12)) + 1
    return tuple(sorted(skewed.values[i] for i in likeliest[:count]))


def by_value(answers: pd.DataFrame, *, group: str = "without_io") -> pd.DataFrame:
    """Returns the table of `statistics.results` for each bin of values: columns condition, mode, group, bin, seed, n, accuracy, …"""
    return statistics.results(answers[answers["group"] == group], by=["condition", "mode", "group", "bin"])


def summary(
    answers: pd.DataFrame, frequent: Sequence[int], *, score: str = "score", group: str = "without_io", n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Returns each of `MEASURES` for each condition and mode, with its 95 % interval over programs, the seeds held.

    Args:
        answers: From `with_values`.
        frequent: The values that count as frequent; all others are rare.
        score: "score" (exactly right) or "letters" (share of letters right).

    The lowest of many noisy accuracies is too low. So "worst" is cross-fitted: the worst bin is found on one half of the programs and scored
    on the other, both ways around. It is the accuracy to be expected at the bin that looks worst, and biased towards the mean, if at all.

    Returns:
        condition, mode, measure, accuracy (of "gap" a difference), low, high (NaN with fewer programs than can be resampled), worst_at (the bin
        that is worst on all programs), n, n_programs, n_seeds.
    """  # fmt: skip
    frame = statistics.prepare(answers[answers["group"] == group])
    lines = []
    for (condition, mode), cell in frame.groupby(["condition", "mode"], sort=False):
        sums, counts, bins = _cube(cell, "bin", score)
        split = cell.assign(frequent=np.where(cell["value"].isin(list(frequent)), 0, 1))
        few_sums, few_counts, sides = _cube(split, "frequent", score)
        once = np.ones((1, len(sums)))
        drawn = intervals.bootstrap_weights(len(sums), n_boot, seed) if len(sums) >= intervals.MIN_PROGRAMS else None
        point = _measures(once, sums, counts, few_sums, few_counts, sides)
        spread = None if drawn is None else _measures(drawn, sums, counts, few_sums, few_counts, sides)
        worst_at = bins[int(np.nanargmin(_accuracies(once, sums, counts)[0]))]
        about = {"condition": condition, "mode": mode}
        size = {"worst_at": worst_at, "n": len(cell), "n_programs": len(sums), "n_seeds": cell["seed"].nunique()}
        for name in MEASURES:
            drawn_ones = np.array([np.nan]) if spread is None else spread[name]
            low, high = (np.nan, np.nan) if np.isnan(drawn_ones).all() else np.nanquantile(drawn_ones, [0.025, 0.975])
            lines.append(about | {"measure": name, "accuracy": float(point[name][0]), "low": float(low), "high": float(high)} | size)
    return pd.DataFrame(lines)


def _cube(cell: pd.DataFrame, column: str, score: str) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Returns sums and numbers of answers, both (programs, seeds, values), and the values."""
    table = cell.groupby(["cluster", "seed", column])[score].agg(["sum", "count"])
    whole = pd.MultiIndex.from_product([sorted(set(cell[c])) for c in ("cluster", "seed", column)])
    table = table.reindex(whole, fill_value=0)
    shape = tuple(len(level) for level in whole.levels)
    return table["sum"].to_numpy(float).reshape(shape), table["count"].to_numpy(float).reshape(shape), list(whole.levels[2])


def _accuracies(weights: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the accuracy at each value, (resamples, values): the mean over the seeds that have answers there."""
    each = [np.tensordot(weights, cube, axes=(1, 0)) for cube in (sums, counts)]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = each[0] / each[1]
    there = ~np.isnan(shares)
    total = np.where(there, shares, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / there.sum(axis=1)


def _measures(weights: np.ndarray, sums: np.ndarray, counts: np.ndarray, few_sums: np.ndarray, few_counts: np.ndarray,
              sides: list[int]) -> Mapping[str, np.ndarray]:  # fmt: skip
    curve = _accuracies(weights, sums, counts)
    both = dict(zip(sides, _accuracies(weights, few_sums, few_counts).T, strict=True))
    nothing = np.full(len(weights), np.nan)
    frequent, rare = both.get(0, nothing), both.get(1, nothing)
    return {
        "mean": np.nanmean(curve, axis=1),
        "worst": _worst(weights, sums, counts),
        "frequent": frequent,
        "rare": rare,
        "gap": frequent - rare,
    }


def _worst(weights: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the accuracy at the value that is worst on the other half of the programs, the mean of both halves."""
    halves = [_accuracies(weights[:, half::2], sums[half::2], counts[half::2]) for half in (0, 1)]
    found = []
    for chosen, scored in (halves, halves[::-1]):
        known = np.where(np.isnan(chosen) | np.isnan(scored), np.inf, chosen)
        place = known.argmin(axis=1)
        picked = scored[np.arange(len(scored)), place]
        found.append(np.where(np.isinf(known.min(axis=1)), np.nan, picked))
    return np.mean(found, axis=0)


def claims(predictions: Mapping[str, Sequence[verdicts.Prediction]], answers: pd.DataFrame, frequent: Sequence[int]) -> pd.DataFrame:
    """Returns `verdicts.claims` of each side's predictions on the answers of that side, each claim under its side; a side without any is left out.

    Args:
        predictions: By side, a name in `SIDES`.
        answers: From `with_values`.
        frequent: The values that count as frequent; all others are rare.
    """
    asked = {side: _side(answers, side, frequent) for side in predictions}
    found = [verdicts.claims(some, asked[side]).assign(side=side) for side, some in predictions.items() if len(asked[side])]
    table = pd.concat(found, ignore_index=True)
    return table.assign(claim=table["side"] + ": " + table["claim"]).drop(columns="side")


def headline(answers: pd.DataFrame, a: str, b: str, frequent: Sequence[int], *, mode: str = "own") -> str:
    """Returns one line: condition `a` minus `b` on each side, on the same questions about w/o IO programs."""
    said = []
    for side in SIDES[1:]:
        some = _side(answers, side, frequent)
        if some[some["group"] == "without_io"].empty:
            continue
        d = statistics.difference(some, a, b, mode=mode, group="without_io")
        shown = "" if d.apart else " (not shown)"
        said.append(f"{side} {findings.points(d.mean, d.low, d.high)}{shown}, n = {d.n} pairs over {d.n_programs} programs")
    if not said:
        return f"no question about w/o IO programs is at a frequent value, and none at a rare one: {a} and {b} are not compared"
    seeds = answers["seed"].nunique()
    return f"{a} minus {b} on w/o IO programs, {label(mode)}: {'; '.join(said)}; {seeds} seed{'' if seeds == 1 else 's'}"


def _side(answers: pd.DataFrame, side: str, frequent: Sequence[int]) -> pd.DataFrame:
    if side not in SIDES:
        raise did_you_mean("side", side, SIDES)
    return answers if side == SIDES[0] else answers[answers["value"].isin(list(frequent)) == (side == SIDES[1])]
