"""What is drawn keeps what is promised: values in range everywhere, all different in behaviour, little to be guessed."""

from __future__ import annotations

import hashlib
import keyword
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbb_helpers.analysis import statistics
from pbb_helpers.data import documents
from pbb_helpers.families.arithmetic import Arithmetic
from pbb_helpers.families.names import POOL, draw_names, made_up_names
from pbb_helpers.programs import UsageError, behaviour, family

distributions = st.builds(
    lambda lengths, weights, span: Arithmetic(
        min_statements=min(lengths), max_statements=max(lengths), weights=weights, lowest_value=-span, highest_value=span
    ),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([(0.8, 0.12, 0.08), (1.0, 1.0, 1.0), (0.2, 1.0, 0.0)]),
    st.sampled_from([60, 99, 199]),
)


@settings(max_examples=12, deadline=None)
@given(distribution=distributions, seed=st.integers(0, 2**40))
def test_what_is_drawn_keeps_its_promises(distribution, seed):
    inputs = distribution.inputs()
    names = draw_names(5, np.random.default_rng(seed))
    programs = distribution.draw(names, np.random.default_rng(seed))
    outputs = [behaviour(program, inputs) for program in programs]
    assert [program.name for program in programs] == names and len(set(outputs)) == 5
    for program, values in zip(programs, outputs, strict=True):
        assert distribution.min_statements <= program.length <= distribution.max_statements
        assert Counter(values).most_common(1)[0][1] <= 0.34 * len(inputs)
        assert sum(x == y for x, y in zip(inputs, values, strict=True)) <= 0.2 * len(inputs)
        for x in inputs:
            for step in program.trace(x):
                assert distribution.lowest_value <= step.after["x"] <= distribution.highest_value


def test_excluded_behaviours_are_not_drawn_again():
    one = Arithmetic(max_statements=1)
    first = one.draw(draw_names(20, np.random.default_rng(0)), np.random.default_rng(0))
    taken = {behaviour(program, one.inputs()) for program in first}
    again = one.draw(draw_names(20, np.random.default_rng(0)), np.random.default_rng(0), exclude=taken)
    assert taken.isdisjoint(behaviour(program, one.inputs()) for program in again)


def test_the_same_seed_draws_the_same_and_another_does_not():
    draws = [[p.source for p in Arithmetic().draw(["zibble"] * 5, np.random.default_rng(seed))] for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_every_construct_and_every_length_occurs():
    wide = Arithmetic(min_statements=1, max_statements=6, weights=(1.0, 1.0, 1.0))
    drawn = [wide.sketch("zibble", np.random.default_rng(seed)) for seed in range(300)]
    text = "\n".join(program.source for program in drawn)
    assert {program.length for program in drawn} == set(range(1, 7))
    for piece in (
        " + ",
        " - ",
        " * ",
        " // ",
        " % ",
        "abs(",
        "min(",
        "max(",
        "if x <",
        "if x >",
        "== 0",
        "!= 0",
        "else:",
        "for i in range(",
    ):
        assert piece in text, piece
    plain = Arithmetic(constructs=("assign",), weights=(1.0,), max_statements=6)
    assert not any(word in plain.sketch("zibble", np.random.default_rng(s)).source for s in range(50) for word in ("if ", "for "))


def test_the_floor_is_low():
    programs = Arithmetic().draw(draw_names(120, np.random.default_rng(0)), np.random.default_rng(0))
    pairs = [
        {"seed": 0, "program": p.name, "input": x, "gold": str(p.run(x)), "with_io": i % 4 > 0}
        for i, p in enumerate(programs)
        for x in range(0, 50, 7)
    ]
    table = pd.DataFrame(pairs)
    _, floor = statistics.highest_floor(statistics.floors(table[table["with_io"]], table[~table["with_io"]]))
    assert floor < 0.2


def test_too_many_programs_for_the_settings_is_one_clear_line():
    with pytest.raises(UsageError, match=r"found \d+ programs of 1 to 1 statements that differ in behaviour, 300 were asked for"):
        Arithmetic(max_statements=1, constructs=("assign",), weights=(1.0,)).draw(
            draw_names(300, np.random.default_rng(0)), np.random.default_rng(0)
        )


@pytest.mark.parametrize(
    "setting",
    [
        {"min_statements": 0},
        {"min_statements": 3, "max_statements": 2},
        {"constructs": ()},
        {"constructs": ("while",), "weights": (1.0,)},
        {"weights": (1.0,)},
        {"weights": (1.0, -1.0, 1.0)},
        {"weights": (0.0, 0.0, 0.0)},
        {"lowest_input": 10, "highest_input": 10},
        {"highest_input": 500},
        {"lowest_value": 5},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(UsageError):
        family("arithmetic", **setting)


def test_names_are_unique_pronounceable_and_no_words_of_python_or_of_a_prompt():
    names = made_up_names()
    assert len(names) == len(set(names)) == POOL and all(re.fullmatch("[a-z]{4,9}", name) for name in names)
    prose = " ".join((*documents.SOURCE_TEMPLATES, *documents.CALL_TEMPLATES, *documents.CUES.values())).lower()
    assert set(names).isdisjoint({*keyword.kwlist, *keyword.softkwlist, *dir(__builtins__), *re.findall("[a-z]+", prose)})


def test_names_are_drawn_without_repeats_and_no_more_than_there_are():
    assert sorted(draw_names(POOL, np.random.default_rng(0))) == sorted(made_up_names())
    with pytest.raises(UsageError, match="5,000 programs need 5,000 names, and there are 4,096"):
        draw_names(5000, np.random.default_rng(0))


def test_names_and_sketches_are_those_that_the_shipped_model_was_made_with():
    """A change here makes the shipped models irreproducible: then pretrain them anew."""
    drawn = [
        Arithmetic(min_statements=n, max_statements=n).sketch("zibble", np.random.Generator(np.random.PCG64(n))).source for n in (1, 2, 3)
    ]
    assert hashlib.sha256("\n".join((*made_up_names(), *drawn)).encode()).hexdigest()[:16] == "2df3479cd2cb908e"
