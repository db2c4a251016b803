"""Interval arithmetic on arrays: the cluster bootstrap, Wilson's interval and Student's t.

Everything here takes counts per program (the cluster) and seed and returns floats; `statistics` turns tables into such counts.
An answer is not the unit: two calls of one program are right or wrong together, so programs are drawn, with all their answers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution
MIN_PROGRAMS = 20  # below this a percentile bootstrap is too narrow (91 % coverage with 10 programs of 4 answers, simulated)
MIN_INFORMATIVE = 5  # programs that must differ from the commonest value, as in the rule np >= 5 for a proportion
_T = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139)  # df = 1 .. 10


class Interval(NamedTuple):
    """A 95 % interval and what made it: "bootstrap", "wilson", "newcombe" or "none" (then low and high are NaN)."""

    low: float
    high: float
    kind: str


NONE = Interval(math.nan, math.nan, "none")


def t_quantile(df: int) -> float:
    """The 97.5 % quantile of Student's t; tabulated to 10 degrees of freedom, expanded around the normal beyond (error below 1e-4).

    Source: Abramowitz and Stegun, 26.7.5.

    >>> round(t_quantile(1), 3), round(t_quantile(20), 3)
    (12.706, 2.086)
    """
    if df < 1:
        return math.nan
    if df <= len(_T):
        return _T[df - 1]
    z = Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / df ** (power + 1) for power, term in enumerate(terms))


def t_interval(values: Sequence[float], *, lowest: float = 0.0, highest: float = 1.0) -> tuple[float, float]:
    """The 95 % t interval of the mean of the seeds' values, cut to [lowest, highest].

    NaN with fewer than two values, and NaN where all values are equal: no spread was seen, which is not a spread of zero.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or np.ptp(array) < 1e-12:
        return math.nan, math.nan
    half = t_quantile(len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    return max(lowest, float(array.mean() - half)), min(highest, float(array.mean() + half))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion `share` in [0, 1] seen on `n` independent units; NaN for fewer than two.

    Source: Wilson 1927, JASA 22, 209.

    >>> tuple(round(x, 3) for x in wilson(1.0, 80))
    (0.954, 1.0)
    """
    if n < 2:
        return math.nan, math.nan
    scale = 1 + Z**2 / n
    centre = (share + Z**2 / (2 * n)) / scale
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / scale
    # At 0 and 1 the exact end is 0 and 1; the arithmetic misses it by a rounding error.
    return (0.0 if share <= 0 else centre - half), (1.0 if share >= 1 else centre + half)


def newcombe(a: float, b: float, both: float, n: int) -> tuple[float, float]:
    """A 95 % interval of a - b, two shares of the same `n` units, from the Wilson intervals of both; `both`: the share right in both.

    Paired answers agree more often than chance has it, the more so the narrower; with both = a * b it is the interval for two independent samples.
    Source: Newcombe 1998, Statistics in Medicine 17, 2635, method 10, with the continuity correction of phi.
    """
    (low_a, high_a), (low_b, high_b) = wilson(a, n), wilson(b, n)
    beyond_chance = both - a * b
    if beyond_chance > 0:
        beyond_chance = max(beyond_chance - 1 / (2 * n), 0.0)
    scale = math.sqrt(max(a * (1 - a) * b * (1 - b), 0.0))
    phi = beyond_chance / scale if scale else 0.0

    def add(x: float, y: float) -> float:
        return math.sqrt(max(x**2 - 2 * phi * x * y + y**2, 0.0))

    return max(-1.0, a - b - add(a - low_a, high_b - b)), min(1.0, a - b + add(high_a - a, b - low_b))


@functools.lru_cache(maxsize=8)
def bootstrap_weights(n_clusters: int, n_boot: int, seed: int) -> np.ndarray:
    """How often each cluster is drawn in each resample, (n_boot, n_clusters) float64.

    A function of its arguments alone: cells with equally many programs share the draws, and no cell moves another's interval.
    """
    rng = np.random.default_rng([seed, n_clusters])
    drawn = rng.integers(n_clusters, size=(n_boot, n_clusters))
    flat = (drawn + n_clusters * np.arange(n_boot)[:, None]).ravel()
    weights = np.bincount(flat, minlength=n_boot * n_clusters).reshape(n_boot, n_clusters).astype(float)
    weights.setflags(write=False)  # it is cached: a caller must not change it
    return weights


def mean_of_seeds(totals: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean over seeds (last axis) of totals / counts; NaN where a seed has no answers at all."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (totals / counts).mean(axis=-1)


def informative(totals: np.ndarray, counts: np.ndarray) -> int:
    """The number of clusters whose mean differs from the commonest cluster mean; 0 where all are alike."""
    means = np.round(totals.sum(axis=1) / counts.sum(axis=1), 9)
    return len(means) - int(np.unique(means, return_counts=True)[1].max())


def cluster_bootstrap(totals: np.ndarray, counts: np.ndarray, *, n_boot: int, seed: int) -> Interval:
    """The percentile interval of the mean over seeds of the mean over answers, resampling programs.

    `totals` and `counts`, both (programs, seeds), hold the summed score and the number of answers of a program in a seed (0 answers: the
    program is not in that seed). A program is drawn with its answers in every seed it occurs in, so an equal program in two seeds is not
    counted as two independent ones; programs that belong to one seed each are resampled as such. The seeds stay as they are: this
    interval speaks of other programs, not of other seeds. Kind "none" where there are too few programs, or they are too alike, to resample.
    """
    if len(totals) < MIN_PROGRAMS or informative(totals, counts) < MIN_INFORMATIVE:
        return NONE
    weights = bootstrap_weights(len(totals), n_boot, seed)
    draws = mean_of_seeds(weights @ totals, weights @ counts)
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Interval(float(low), float(high), "bootstrap")


def share_interval(totals: np.ndarray, counts: np.ndarray, *, n_boot: int, seed: int) -> Interval:
    """The 95 % interval of an accuracy: cluster bootstrap, or Wilson on the number of programs where that degenerates.

    Resampling eighty correct programs gives [1, 1] whatever is true of the next program; Wilson gives [0.954, 1]. One program: NaN.
    """
    if len(totals) < 2:
        return NONE
    interval = cluster_bootstrap(totals, counts, n_boot=n_boot, seed=seed)
    if interval.kind == "bootstrap":
        return interval
    return Interval(*wilson(float(mean_of_seeds(totals.sum(axis=0), counts.sum(axis=0))), len(totals)), "wilson")


def difference_interval(totals: np.ndarray, counts: np.ndarray, *, a: float, b: float, both: float, n_boot: int, seed: int) -> Interval:
    """The 95 % interval of a paired difference of accuracies: cluster bootstrap of the differences, or Newcombe's where that degenerates.

    `totals` are summed differences of paired answers; `a` and `b` are the two accuracies and `both` the share right in both, needed by the
    fallback only. One program: NaN.
    """
    if len(totals) < 2:
        return NONE
    interval = cluster_bootstrap(totals, counts, n_boot=n_boot, seed=seed)
    return interval if interval.kind == "bootstrap" else Interval(*newcombe(a, b, both, len(totals)), "newcombe")
