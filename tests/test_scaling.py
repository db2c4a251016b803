"""Notebook 04: what is varied along an axis, and that nothing else is."""

from __future__ import annotations

import pandas as pd
import pytest

from pbb_helpers.analysis import verdicts
from pbb_helpers.data.plan import Experiment
from pbb_helpers.experiments import across, questions, scaling
from pbb_helpers.programs import UsageError
from pbb_helpers.training import models
from pbb_helpers.training.model_files import shipped

SMOKE = {"profile": "smoke", "model": "pbb-small", "models": ["pbb-small"]}


def test_every_number_asks_the_same_and_a_smaller_one_holds_some_of_the_programs_of_a_larger() -> None:
    plan = scaling.plan({**SMOKE, "numbers": [12, 8, 20]})
    assert list(plan.by_number) == [8, 12, 20]
    drawn = [one.dataset(0) for one in plan.by_number.values()]
    assert [len(each.with_io) for each in drawn] == [8, 12, 20]
    for small, large in zip(drawn, drawn[1:], strict=False):
        assert small.with_io == large.with_io[: len(small.with_io)]
        assert (small.without_io, small.eval_inputs, small.behaviours) == (large.without_io, large.eval_inputs, large.behaviours)
    asked = [
        [example for part in questions.questions(one, one.dataset(0), ["cot"]) for example in part if example.group == "without_io"]
        for one in plan.by_number.values()
    ]
    assert asked[0] == asked[1] == asked[2] and asked[0]


def test_the_budget_is_shared_or_each_program_is_seen_as_often() -> None:
    steps = {
        exposures: [
            one.budget.stage1_steps
            for one in scaling.plan({**SMOKE, "profile": "quick", "numbers": [200, 400, 800], "exposures": exposures}).by_number.values()
        ]
        for exposures in scaling.EXPOSURES
    }
    assert steps == {"shared": [500, 500, 500], "kept": [250, 500, 1000]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"numbers": [8, 8]}, "give numbers of w/ IO programs of 1 or more, each once"),
        ({"numbers": [0]}, "give numbers of w/ IO programs"),
        ({"exposures": "keep"}, "unknown exposures 'keep'; did you mean 'kept'"),
        ({"models": [], "numbers": [8], "match": "token"}, "'token'; did you mean 'tokens'"),
        ({"models": ["pbb-small", "pbb-small"]}, "each once"),
    ],
)
def test_bad_axes_are_refused_in_a_line(given: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        scaling.plan({**SMOKE, **given})
    assert "\n" not in str(raised.value)


def test_fewer_drawn_than_used_is_refused() -> None:
    with pytest.raises(UsageError, match="10 w/ IO programs of 5 drawn; draw at least as many"):
        Experiment(n_with_io=10, n_with_io_drawn=5)


def test_the_parameters_are_those_of_the_loaded_model_tied_ones_once() -> None:
    found = scaling.sizes(shipped())
    assert found["pbb-small"] == sum(p.numel() for p in models.load("pbb-small").model.parameters())
    assert list(found.values()) == sorted(found.values())
    assert all(card.facts["parameters"] == found[name] for name, card in shipped().items())


def rows(right: dict[int, int]) -> pd.DataFrame:
    return pd.DataFrame([
        {"condition": "proactive", "mode": "recall", "group": "without_io", "seed": i % 2, "program": f"p{i // 2}", "input": 3, "gold": "4",
         "answer": "4", "correct": i < count, "n_with_io": n}
        for n, count in right.items() for i in range(80)
    ])  # fmt: skip


def test_steps_along_an_axis_are_paired_question_by_question() -> None:
    some = rows({50: 20, 800: 60, 3200: 60})
    steps = [
        verdicts.Prediction("more", "800", "50", "recall", "above"),
        verdicts.Prediction("saturated", "3200", "800", "recall", "no difference shown"),
    ]
    found = across.claims_along(steps, some, "n_with_io", table=some, floors=pd.DataFrame())
    assert found["verdict"].tolist() == ["above", "no difference shown"] and found["came_true"].tolist() == ["yes", "open"]
    assert found["effect"].tolist() == [pytest.approx(0.5), 0.0] and found["n"].tolist() == [80, 80]
    itself = [verdicts.Prediction("saturated", "800", "800", "recall", "no difference shown")]
    assert across.claims_along(itself, some, "n_with_io", table=some, floors=pd.DataFrame())["came_true"].tolist() == ["-"]
    other = across.claims_along(steps, some, "n_with_io", table=some, floors=pd.DataFrame(), condition="mixture")
    assert other["verdict"].tolist() == ["not run"] * 2
    line = scaling.headline(some, [50, 800, 3200])
    assert "3,200 w/ IO programs" in line and "800 0 points" in line and "50 +50 points" in line and "2 seeds" in line
    assert "nothing to compare" in scaling.headline(some[some["n_with_io"] == 50], [50])
    by_size = some.assign(model=some["n_with_io"].map({50: "small", 800: "middle", 3200: "large"}))
    worded = some.assign(condition="description", mode="direct")  # a condition that is asked in no mode "recall"
    assert "direct" in scaling.headline(worded, [50, 800], condition="description")
    line = scaling.headline(by_size, ["small", "middle", "large"], column="model")
    assert line.startswith("proactive with large on w/o IO programs") and "middle 0 points" in line and "small +50 points" in line


def test_both_axes_are_matched_alike() -> None:
    plan = scaling.plan({**SMOKE, "numbers": [8], "match": "tokens"})
    assert plan.sizes.budget.match == plan.by_number[8].budget.match == "tokens"


def test_either_axis_can_be_left_out_but_not_both() -> None:
    plan = scaling.plan({**SMOKE, "models": [], "numbers": [8, 12]})
    assert plan.models == () and list(plan.by_number) == [8, 12] and scaling.facts(plan)["first axis"] == "left out"
    with pytest.raises(UsageError, match="one of the two axes must have values"):
        scaling.plan({**SMOKE, "models": [], "numbers": []})
    plan = scaling.plan({**SMOKE, "numbers": []})
    assert plan.by_number == {} and plan.models == ("pbb-small",)
    assert scaling.facts(plan)["second axis"] == "left out" and "second axis: model" not in scaling.facts(plan)
