"""A curve of accuracy along something that was varied, and the tests that it must pass before anyone may see it.

The curve is a line in logit(accuracy) against log(value). Seeds are the unit of replication, and every seed was run at every value with the
same programs: a randomised block design, so that a straight line can be held against the spread that the seeds themselves show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pbb_helpers.analysis import intervals

FEWEST_VALUES = 4
SIMULATED = 200_000


@dataclass(frozen=True)
class Fit:
    """A line in logit(accuracy) against log(value), and whether it holds.

    Attributes:
        intercept, slope: Of the line; the slope is per factor of e.
        slope_low, slope_high: 95 % t interval of the slope, over seeds; NaN where it can't be had.
        lack_of_fit: p of an F test: the means' distance from the line against what the seeds differ by beside their own levels.
        foretold, foretold_low, foretold_high: Accuracy at the largest value from the fit to all others, and its 95 % prediction interval.
        seen: Accuracy at the largest value.
        verdict: "holds", or why not.
    """

    intercept: float = math.nan
    slope: float = math.nan
    slope_low: float = math.nan
    slope_high: float = math.nan
    lack_of_fit: float = math.nan
    foretold: float = math.nan
    foretold_low: float = math.nan
    foretold_high: float = math.nan
    seen: float = math.nan
    verdict: str = ""

    @property
    def holds(self) -> bool:
        """Whether the curve may be drawn."""
        return self.verdict == "holds"

    def at(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Returns the accuracy that the line gives."""
        return _share(self.intercept + self.slope * np.log(np.asarray(values, dtype=float)))


def fit(values: Sequence[float], right: np.ndarray, asked: np.ndarray) -> Fit:
    """Returns the line through accuracies, and whether it holds: it is not rejected, it rises or falls, and it foretells its last point.

    Args:
        values: What was varied, (n_values,), above 0.
        right, asked: Numbers of right answers and of answers, (n_values, n_seeds). Half an answer is added to either side, so that none
            and all have a logit (Haldane 1956, Annals of Human Genetics 20, 309).
    """
    order = np.argsort(np.asarray(values, dtype=float))
    x = np.log(np.asarray(values, dtype=float)[order])
    right, asked = np.asarray(right, dtype=float)[order], np.asarray(asked, dtype=float)[order]
    y = np.log((right + 0.5) / (asked - right + 0.5))
    n_values, n_seeds = y.shape
    if n_values < FEWEST_VALUES or n_seeds < 2:
        return Fit(verdict=f"not tested: {n_values} values and {n_seeds} seed{'s' * (n_seeds > 1)}; takes {FEWEST_VALUES} and 2")
    means = y.mean(axis=1)
    slope, intercept = np.polyfit(x, means, 1)
    # What the seeds do to a value beside their own level: the interaction of a two-way table.
    noise = y - y.mean(axis=0) - means[:, None] + y.mean()
    df = (n_values - 1) * (n_seeds - 1)
    variance = float((noise**2).sum() / df)
    bend = float(n_seeds * ((means - intercept - slope * x) ** 2).sum() / (n_values - 2))
    lack = _tail_of_f(bend / variance, n_values - 2, df) if variance > 0 else float(bend <= 1e-18)
    half = intervals.t_quantile(df) * math.sqrt(variance / n_seeds / ((x - x.mean()) ** 2).sum())
    foretold, low, high = _foretell(x, means, variance / n_seeds, df)
    found = Fit(
        float(intercept), float(slope), float(slope - half), float(slope + half), lack,
        float(_share(foretold)), float(_share(low)), float(_share(high)), float(_share(means[-1])),
    )  # fmt: skip
    return replace(found, verdict=_verdict(found))


def _verdict(found: Fit) -> str:
    if found.lack_of_fit < 0.05:
        return f"rejected: not a line (p = {found.lack_of_fit:.2g})"
    if found.slope_low <= 0 <= found.slope_high:
        return "no trend: the slope's interval holds zero"
    if not found.foretold_low <= found.seen <= found.foretold_high:
        return "rejected: it misses the largest value, foretold from the others"
    return "holds"


def _foretell(x: np.ndarray, means: np.ndarray, variance: float, df: int) -> tuple[float, float, float]:
    """Returns the last mean as the line through the others has it, with the interval that a new mean falls in."""
    seen = x[:-1]
    slope, intercept = np.polyfit(seen, means[:-1], 1)
    spread = 1 + 1 / len(seen) + (x[-1] - seen.mean()) ** 2 / ((seen - seen.mean()) ** 2).sum()
    centre, half = intercept + slope * x[-1], intervals.t_quantile(df) * math.sqrt(variance * spread)
    return centre, centre - half, centre + half


def _tail_of_f(ratio: float, over: int, under: int) -> float:
    """P(F >= ratio), from draws that are always the same: good to 0.001, and no library more."""
    return float((np.random.default_rng([over, under]).f(over, under, SIMULATED) >= ratio).mean())


def _share(z: float | np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(z, dtype=float)))


def along(rows: pd.DataFrame, column: str, at: dict[object, float], *, condition: str, modes: Sequence[str], group: str = "without_io") -> dict[str, Fit]:  # fmt: skip
    """Returns the fit of each mode.

    Args:
        rows: Answers, with `column`.
        column: What was varied.
        at: The number that each of its values stands for.
        condition, modes, group: Whose answers.
    """
    own = rows[(rows["condition"] == condition) & (rows["group"] == group)]
    found = {}
    for mode in modes:
        cells = own[own["mode"] == mode].groupby([column, "seed"])["correct"].agg(["sum", "count"]).unstack("seed")
        found[mode] = fit([at[value] for value in cells.index], cells["sum"].to_numpy(float), cells["count"].to_numpy(float))
    return found


def table(fits: dict[str, Fit]) -> pd.DataFrame:
    """Returns what a reader needs to judge the fits, a line per mode; a doubling multiplies the odds by 2 ** slope."""
    return pd.DataFrame([
        {"mode": mode, "odds per doubling": 2**f.slope, "low": 2**f.slope_low, "high": 2**f.slope_high, "lack of fit, p": f.lack_of_fit,
         "largest, foretold": f.foretold, "from": f.foretold_low, "to": f.foretold_high, "seen": f.seen, "verdict": f.verdict}
        for mode, f in fits.items()
    ])  # fmt: skip
