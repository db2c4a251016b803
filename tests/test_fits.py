"""A curve is drawn only where it holds: what is a line is found to be one, and what is none is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pbb_helpers.analysis import fits

VALUES = (50, 200, 400, 800, 1600, 3200)
ASKED = 160


def answers(logits: np.ndarray, rng: np.random.Generator, *, seeds: int = 3, level: float = 0.25, spread: float = 0.12) -> np.ndarray:
    """Right answers of 160, of seeds that differ in their level, and a little at each value."""
    z = logits[:, None] + rng.normal(0, level, (1, seeds)) + rng.normal(0, spread, (len(logits), seeds))
    return rng.binomial(ASKED, 1 / (1 + np.exp(-z)))


def verdicts(logits: np.ndarray, runs: int = 100, seeds: int = 3) -> list[str]:
    rng = np.random.default_rng(0)
    asked = np.full((len(VALUES), seeds), ASKED)
    return [fits.fit(VALUES, answers(logits, rng, seeds=seeds), asked).verdict.partition(":")[0] for _ in range(runs)]


def test_a_line_is_rejected_about_as_often_as_the_tests_say() -> None:
    found = verdicts(-2 + 0.6 * np.log(np.array(VALUES) / 50))
    assert found.count("holds") >= 82  # two tests of 5 % each
    assert found.count("holds") < 100  # and a test that rejects nothing is none


@pytest.mark.parametrize("logits", [np.minimum(-2 + 1.2 * np.log(np.array(VALUES) / 50), 1.0), np.where(np.array(VALUES) > 300, 1.5, -1.5)],
                         ids=["saturating", "a step"])  # fmt: skip
def test_what_bends_or_jumps_is_no_line(logits: np.ndarray) -> None:
    assert set(verdicts(logits)) == {"rejected"}


def test_what_stays_level_has_no_curve() -> None:
    found = verdicts(np.full(len(VALUES), -1.0))
    assert found.count("no trend") >= 80 and found.count("holds") <= 10


def test_the_slope_and_the_largest_value_are_those_of_the_line() -> None:
    logits = -2 + 0.5 * np.log(np.array(VALUES))
    right = np.repeat((1e6 / (1 + np.exp(-logits)))[:, None], 2, axis=1)
    found = fits.fit(VALUES, right, np.full((len(VALUES), 2), 1e6))
    assert found.slope == pytest.approx(0.5, abs=1e-4) and found.intercept == pytest.approx(-2, abs=1e-3)
    assert found.foretold == pytest.approx(found.seen, abs=1e-4) and found.at([50])[0] == pytest.approx(right[0, 0] / 1e6, abs=1e-4)
    assert fits.table({"recall": found}).iloc[0]["odds per doubling"] == pytest.approx(2**0.5, abs=1e-3)


def test_the_order_of_values_and_of_seeds_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    right, asked = answers(-2 + 0.6 * np.log(np.array(VALUES) / 50), rng), np.full((len(VALUES), 3), ASKED)
    order = rng.permutation(len(VALUES))
    one, other = fits.fit(VALUES, right, asked), fits.fit(np.array(VALUES)[order], right[order][:, [2, 0, 1]], asked)
    assert one.verdict == other.verdict
    assert np.allclose(list(vars(one).values())[:-1], list(vars(other).values())[:-1])


def test_too_few_values_or_one_seed_are_not_tested() -> None:
    assert fits.fit((1, 2, 3), np.full((3, 2), 5), np.full((3, 2), 10)).verdict.startswith("not tested: 3 values and 2 seeds")
    assert fits.fit(VALUES, np.full((6, 1), 5), np.full((6, 1), 10)).verdict.startswith("not tested: 6 values and 1 seed;")


def test_rows_are_counted_by_value_and_seed() -> None:
    rows = pd.DataFrame([
        {"n": n, "condition": "proactive", "group": group, "mode": "recall", "seed": seed, "correct": i < 4 * rank + seed}
        for rank, n in enumerate(VALUES[:5], start=1) for seed in (0, 1) for group in ("without_io", "with_io") for i in range(40)
    ])  # fmt: skip
    found = fits.along(rows, "n", {n: n for n in VALUES}, condition="proactive", modes=["recall"])["recall"]
    right = np.array([[4 * rank, 4 * rank + 1] for rank in range(1, 6)])
    assert found == fits.fit(VALUES[:5], right, np.full((5, 2), 40))
