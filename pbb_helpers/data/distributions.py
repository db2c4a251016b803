"""Named distributions over inputs: even ones, and skewed ones as data that occur naturally are.

A distribution is over what an input is called at: the number itself, or of a text and a shift the shift, the texts evenly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pbb_helpers.programs import UsageError, arguments, did_you_mean, plain_number

SHIFT_COUNTS = (59, 21, 117, 5, 15, 12, 6, 3, 1, 3, 3, 7, 1225, 5, 2, 4, 2, 2, 1, 1, 4, 2, 17, 3, 7)
"""How often texts in C4 are shifted by 1, 2, … 25 letters: file embers_0824_shiftfreq.R of the MIT-licensed repository
tommccoy1/embers-of-autoregression. ROT13 is 80.2 % of 1,527."""
NAMES = ("uniform", "natural", "zipf")
DEFAULTS = {"natural": 1.0, "zipf": 1.0}
STEEPEST = 10.0
"""The largest exponent of zipf: beyond it all but the first value have next to no probability."""


@dataclass(frozen=True)
class Distribution:
    """Values and their probabilities.

    Attributes:
        name: As `distribution` takes it, "natural(0.5)".
        values: What is drawn, each once.
        probabilities: In [0, 1], one per value; their sum is 1.
    """

    name: str
    values: tuple[int, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or len(self.values) != len(self.probabilities) or len(set(self.values)) < len(self.values):
            raise UsageError(
                f"{self.name}: {len(self.values)} values with {len(self.probabilities)} probabilities; give different values, one probability each"
            )
        total = sum(self.probabilities)
        if not min(self.probabilities) >= 0 or not abs(total - 1) < 1e-9:
            raise UsageError(
                f"{self.name}: the smallest probability is {min(self.probabilities):g} and their sum {total:g}; give none below 0 and a sum of 1"
            )

    def sample(self, count: int, generator: np.random.Generator) -> list[int]:
        """Returns `count` values, each drawn by itself."""
        return [self.values[i] for i in generator.choice(len(self.values), size=count, p=self.probabilities)]

    def table(self) -> pd.DataFrame:
        """Returns a line per value: distribution, value, probability."""
        return pd.DataFrame({"distribution": self.name, "value": self.values, "probability": self.probabilities})

    def over(self, inputs: Sequence[Any]) -> np.ndarray:
        """Returns the probability of each input: its value's share, split evenly among the inputs of that value.

        Where inputs of some values are missing, held out or never given, the others keep their proportion.

        Raises:
            UsageError: No input has a value of positive probability.
        """
        share = dict(zip(self.values, self.probabilities, strict=True))
        found = [value(x) for x in inputs]
        counts = Counter(found)
        weights = np.array([share.get(v, 0.0) / counts[v] for v in found])
        if not weights.sum() > 0:
            raise UsageError(f"{self.name} gives no probability to any of {len(found)} inputs; take another distribution or other inputs")
        return weights / weights.sum()


def value(x: Any) -> int:
    """Returns what a distribution says of an input: the last of its arguments.

    >>> value(7), value(("CAB", 3))
    (7, 3)
    """
    return arguments(x)[-1]


def parse_name(name: str) -> tuple[str, float]:
    """Returns the kind and the number of a distribution's name; the number says how far it is from the even one, which is 0.

    Raises:
        UsageError: There is no such kind, or its number is out of range.

    >>> parse_name("natural"), parse_name("zipf(1.5)")
    (('natural', 1.0), ('zipf', 1.5))
    """
    match = re.fullmatch(r"(\w+)(?:\(([0-9]+(?:\.[0-9]+)?)\))?", name.strip())
    if match is None or match[1] not in NAMES or (match[2] and match[1] not in DEFAULTS):
        raise did_you_mean("distribution", name, ("uniform", "natural", "natural(share)", "zipf", "zipf(exponent)"))
    number = float(match[2]) if match[2] else DEFAULTS.get(match[1], 0.0)
    if match[1] == "natural" and number > 1:
        raise UsageError(f"{name}: give a share from 0, which is uniform, to 1, which is natural")
    if match[1] == "zipf" and number > STEEPEST:
        raise UsageError(f"{name}: give an exponent from 0, which is uniform, to {STEEPEST:g}")
    return match[1], number


def plain_name(name: str) -> str:
    """Returns the one name of a distribution that has several: what it is by default needs no number, and what is even is uniform.

    >>> plain_name("zipf(1.0)"), plain_name("natural(0)"), plain_name(" natural(0.50) ")
    ('zipf', 'uniform', 'natural(0.5)')
    """
    kind, number = parse_name(name)
    return "uniform" if not number else kind if number == DEFAULTS[kind] else f"{kind}({plain_number(number)})"


def distribution(name: str, values: Iterable[int]) -> Distribution:
    """Returns a distribution over values.

    Args:
        name: "uniform"; "natural", the measured one of shifts, or "natural(0.5)", that share of it and the rest uniform; "zipf" or
            "zipf(1.5)": the r-th smallest magnitude has 1 / r ** exponent, which values of equal magnitude share.
        values: What it is over.

    Raises:
        UsageError: There is no such distribution, or it is not over these values.
    """
    kind, number = parse_name(name)
    values = tuple(sorted(set(values)))
    even = np.full(len(values), 1 / max(len(values), 1))
    if kind == "natural":
        if not all(v in range(26) for v in values) or not any(values):
            raise UsageError(f"natural is over shifts from 0 to 25, not over {_span(values)}; take uniform or zipf")
        counts = np.array([SHIFT_COUNTS[v - 1] if v else 0 for v in values], dtype=float)
        weights = number * counts / counts.sum() + (1 - number) * even
    elif kind == "zipf":
        magnitudes = [abs(v) for v in values]
        ranks = {magnitude: rank for rank, magnitude in enumerate(sorted(set(magnitudes)), start=1)}
        weights = np.array([1 / ranks[m] ** number / magnitudes.count(m) for m in magnitudes])
    else:
        weights = even
    return Distribution(name.strip(), values, tuple((weights / weights.sum()).tolist()))


def _span(values: Sequence[int]) -> str:
    return f"{min(values)} to {max(values)}" if values else "nothing"
