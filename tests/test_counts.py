"""What could be saved at most: prefixes that are counted twice, padding, and that the bounds are bounds."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbb_helpers.data.plan import QUICK, small
from pbb_helpers.data.specs import STAGE1
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments.questions import modes_of
from pbb_helpers.performance.counts import padding, prefixes, repeated
from pbb_helpers.performance.tasks import Task
from pbb_helpers.training import models
from pbb_helpers.training.train import WINDOW


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


def test_padding_is_that_of_the_batches_of_training_and_less_where_more_are_sorted_together():
    plan, loaded = small(replace(QUICK, seeds=(0,))), models.load("pbb-xs")
    plan = replace(plan, budget=replace(plan.budget, stage1_steps=3 * WINDOW))
    table = padding(plan, "proactive", loaded)
    assert list(table["stage"].unique()) == ["stage1", "stage2"] and list(table["window"]) == 2 * [WINDOW, 8 * WINDOW]
    task = Task(loaded, build_stage(STAGE1, plan.dataset(0), plan.budget))
    first, wider = table.iloc[0], table.iloc[1]
    assert first["positions"] == task.computed and first["tokens"] == sum(batch.tokens for batch in task.batches()) == wider["tokens"]
    assert first["padding"] == pytest.approx(1 - 1 / first["at_most"]) and 0 < wider["padding"] < first["padding"] < 1
