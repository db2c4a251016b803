"""Prefixes: what is counted twice, and that the bound is one."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbb_helpers.data.plan import QUICK, small
from pbb_helpers.experiments.questions import modes_of
from pbb_helpers.performance.prefixes import prefixes, repeated
from pbb_helpers.training import models


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=12))
def test_what_is_left_are_the_different_beginnings(prompts):
    different = {tuple(prompt[:n]) for prompt in prompts for n in range(1, len(prompt) + 1)}
    assert repeated(prompts) == sum(map(len, prompts)) - len(different)


def test_the_table_counts_every_question_of_every_mode_and_their_sum():
    plan, tokenizer = small(replace(QUICK, seeds=(0,))), models.load_tokenizer("pbb-xs")
    table = prefixes(plan, "proactive", tokenizer).set_index("mode")
    modes = list(modes_of("proactive"))
    assert list(table.index) == [*modes, "all"]
    assert (table.loc[modes].drop(columns="at_most").sum() == table.loc["all"].drop("at_most")).all()
    # The source in the prompt is the same for both inputs of a program; without it no more than a phrase and a name are.
    assert table.loc["in_context_cot", "repeated"] > table.loc["cot", "repeated"] > 0
    cot = table.loc["cot"]
    assert cot["at_most"] == pytest.approx((cot["prompt"] + cot["written"]) / (cot["prompt"] + cot["written"] - cot["repeated"]))
    assert (table["at_most"] >= 1).all()
