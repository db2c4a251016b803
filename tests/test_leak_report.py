"""The report counts what is trained on, and a leak in it would have stopped it."""

from __future__ import annotations

from pbb_helpers.data.conditions import condition
from pbb_helpers.experiments.leak_report import leak_report


def test_the_leak_report_counts_every_document(plan):
    table = leak_report(plan)
    assert list(table["stage"]) == [spec.name for name in plan.conditions for spec in condition(name).stages]
    counts = table.drop(columns=["condition", "stage", "documents", "leaks"])
    assert (counts.sum(axis=1) == table["documents"]).all() and (table["leaks"] == 0).all()
