"""What an experiment may ask for."""

from __future__ import annotations

import pytest

from pbb_helpers.data.conditions import MAIN
from pbb_helpers.data.plan import Experiment, small
from pbb_helpers.programs import UsageError


def test_small_is_small_and_runs_through_everything():
    tiny = small(Experiment())
    assert tiny.conditions == MAIN and tiny.budget.stage1_documents + tiny.budget.stage2_documents <= 160
    assert len(tiny.dataset(0).names) == 18


@pytest.mark.parametrize(
    "wrong",
    [{"conditions": ()}, {"conditions": ("base", "base")}, {"conditions": ("proactve",)}, {"seeds": ()}, {"seeds": (1, 1)}, {"seeds": (-1,)},
     {"inputs_per_program": 0}, {"inputs_per_program": 11}, {"n_with_io_asked": 0}],
)  # fmt: skip
def test_experiments_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        Experiment(**wrong)
