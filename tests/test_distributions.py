"""What is drawn follows what is stated, and what is stated is what the names say."""

from __future__ import annotations

import math
import re
from collections import Counter

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbb_helpers.data.distributions import SHIFT_COUNTS, Distribution, distribution, parse_name, value
from pbb_helpers.figures.plots_distributions import probabilities
from pbb_helpers.programs import UsageError, family

SHIFTS = range(1, 26)
NUMBERS = range(-20, 50)


def chi_square(drawn: list[int], stated: Distribution) -> tuple[float, int]:
    """Returns Pearson's statistic and its degrees of freedom, the rarest values put together so that five or more are expected."""
    counts, n = Counter(drawn), len(drawn)
    cells = sorted((n * p, counts[v]) for v, p in zip(stated.values, stated.probabilities, strict=True) if p > 0)
    rare = [cell for cell in cells if cell[0] < 5]
    cells = [cell for cell in cells if cell[0] >= 5] + ([tuple(map(sum, zip(*rare, strict=True)))] if rare else [])
    return sum((seen - expected) ** 2 / expected for expected, seen in cells), len(cells) - 1


@pytest.mark.parametrize(
    ("name", "values"),
    [("uniform", SHIFTS), ("natural", SHIFTS), ("natural(0.5)", SHIFTS), ("natural(0.1)", SHIFTS), ("natural", range(26)), ("zipf", NUMBERS),
     ("zipf(2)", range(50)), ("uniform", NUMBERS)],
)  # fmt: skip
def test_many_draws_agree_with_the_stated_probabilities(name, values):
    stated = distribution(name, values)
    drawn = stated.sample(20_000, np.random.default_rng(0))
    assert set(drawn) <= set(values)
    statistic, freedom = chi_square(drawn, stated)
    # Beyond mean plus four standard deviations lies less than one draw in a thousand.
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)
    other = distribution("uniform" if name != "uniform" else "zipf", values)
    wrong, freedom = chi_square(drawn, other)
    assert wrong > freedom + 20 * math.sqrt(2 * freedom), "the test can tell another distribution"


def test_natural_is_what_was_measured():
    natural = distribution("natural", SHIFTS)
    assert sum(SHIFT_COUNTS) == 1527 and len(SHIFT_COUNTS) == 25
    assert natural.probabilities == tuple(count / 1527 for count in SHIFT_COUNTS)
    assert round(natural.probabilities[natural.values.index(13)], 3) == 0.802
    assert distribution("natural", range(26)).probabilities[0] == 0


@settings(max_examples=50, deadline=None)
@given(share=st.integers(0, 100).map(lambda n: n / 100))
def test_the_knob_goes_from_uniform_to_natural(share):
    uniform, natural = distribution("uniform", SHIFTS), distribution("natural", SHIFTS)
    between = distribution(f"natural({share})", SHIFTS)
    expected = [(1 - share) * u + share * n for u, n in zip(uniform.probabilities, natural.probabilities, strict=True)]
    assert between.probabilities == pytest.approx(expected) and between.values == uniform.values


def test_zipf_falls_with_the_magnitude_and_treats_signs_alike():
    zipf = dict(zip(*[(z := distribution("zipf", range(-3, 4))).values, z.probabilities], strict=True))
    assert zipf[1] == zipf[-1] and zipf[3] == zipf[-3]
    assert zipf[0] / (2 * zipf[1]) == pytest.approx(2) and zipf[0] / (2 * zipf[3]) == pytest.approx(4)
    steep = dict(zip(range(4), distribution("zipf(2)", range(4)).probabilities, strict=True))
    assert steep[0] / steep[1] == pytest.approx(4) and steep[0] / steep[3] == pytest.approx(16)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(["uniform", "natural", "natural(0.3)", "zipf"]), held_out=st.sets(st.integers(0, 999), max_size=900))
def test_over_inputs_the_values_keep_their_proportion(name, held_out):
    inputs = [x for i, x in enumerate(family("ciphers").inputs()) if i not in held_out]
    stated = distribution(name, SHIFTS)
    weights = stated.over(inputs)
    assert weights.sum() == pytest.approx(1)
    share = dict.fromkeys(SHIFTS, 0.0)
    for x, weight in zip(inputs, weights, strict=True):
        share[value(x)] += weight
    there = {value(x) for x in inputs}
    whole = sum(p for v, p in zip(stated.values, stated.probabilities, strict=True) if v in there)
    for v, p in zip(stated.values, stated.probabilities, strict=True):
        assert share[v] == pytest.approx(p / whole if v in there else 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("natual", "unknown distribution 'natual'; did you mean 'natural'? choose from"),
        ("uniform(2)", "unknown distribution 'uniform(2)'"),
        ("natural(x)", "unknown distribution 'natural(x)'"),
        ("", "unknown distribution ''"),
        ("natural(1.5)", "natural(1.5): give a share from 0, which is uniform, to 1, which is natural"),
        ("zipf(200)", "zipf(200): give an exponent from 0, which is uniform, to 10"),
    ],
)
def test_an_unknown_distribution_is_one_clear_line(name, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_name(name)


def test_natural_is_over_shifts_only():
    for values in (range(50), range(-5, 5), [0]):
        with pytest.raises(UsageError, match="natural is over shifts from 0 to 25"):
            distribution("natural", values)


@pytest.mark.parametrize(
    ("values", "given", "message"),
    [
        ((1, 2), (0.5, 0.4), "their sum 0.9; give none below 0 and a sum of 1"),
        ((1, 2), (1.5, -0.5), "the smallest probability is -0.5"),
        ((1, 2), (float("nan"), 0.5), "a sum of 1"),
        ((1, 2), (1.0,), "2 values with 1 probabilities"),
        ((1, 1), (0.5, 0.5), "give different values"),
        ((), (), "0 values"),
    ],
)
def test_probabilities_that_are_none_are_one_clear_line(values, given, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Distribution("mine", values, given)


def test_inputs_without_any_probability_are_one_clear_line():
    with pytest.raises(UsageError, match="natural gives no probability to any of 2 inputs"):
        distribution("natural", range(26)).over([("CAB", 0), ("TEA", 0)])


def test_the_figure_shows_the_stated_probabilities_and_the_drawn_shares():
    matplotlib.use("agg")
    shown = [distribution(name, SHIFTS) for name in ("uniform", "natural(0.5)", "natural")]
    drawn = {"natural": shown[2].sample(500, np.random.default_rng(0))}
    figure = probabilities(shown, drawn)
    assert [ax.get_title() for ax in figure.axes] == [one.name for one in shown]
    for ax, one in zip(figure.axes, shown, strict=True):
        assert [bar.get_height() for bar in ax.patches] == pytest.approx(one.probabilities)
    points = figure.axes[2].collections[0].get_offsets()
    assert dict(points.tolist())[13] == pytest.approx(drawn["natural"].count(13) / 500) and not figure.axes[0].collections
