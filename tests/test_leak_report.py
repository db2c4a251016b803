"""The report counts what is trained on, and a leak in it would have stopped it."""

from __future__ import annotations

from dataclasses import replace

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments.leak_report import budgets, leak_report
from pbb_helpers.training import models


def test_the_leak_report_counts_every_document(plan):
    table = leak_report(plan)
    assert list(table["stage"]) == [spec.name for name in plan.conditions for spec in condition(name).stages]
    counts = table.drop(columns=["condition", "stage", "documents", "leaks"])
    assert (counts.sum(axis=1) == table["documents"]).all() and (table["leaks"] == 0).all()


def test_what_is_equal_between_conditions_is_counted(plan):
    """The curricula hold the very same documents; without the w/o IO sources there is as much of the rest; in words, as many documents of other lengths."""
    names = ("in_context", "proactive", "mixture", "shuffled_mixture", "retroactive_sft", "no_exposure_sft", "description")
    table = budgets(replace(plan, conditions=names)).set_index("condition")
    assert list(table.index) == list(names[1:])
    steps = plan.budget.stage1_steps + plan.budget.stage2_steps
    assert (table["documents"] == steps * plan.budget.stage1.batch_size).all()
    same = table.loc[["proactive", "mixture", "retroactive_sft"]]
    assert same["tokens"].nunique() == 1 == same["without_io_sources"].nunique()
    assert table.loc["no_exposure_sft", "without_io_sources"] == 0 < same["without_io_sources"].iloc[0]
    assert table.loc["description", "tokens"] != same["tokens"].iloc[0]
    tokenizer = models.load(plan.model).tokenizer
    stages = [build_stage(spec, plan.dataset(plan.seeds[0]), plan.budget) for spec in condition("proactive").stages]
    ids = [tokenizer(e.completion, add_special_tokens=False)["input_ids"] for stage in stages for e in stage.examples]
    assert table.loc["proactive", "tokens"] == sum(len(each) + 1 for each in ids)
