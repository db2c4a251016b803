"""One experiment on several models: what is paired with what, and that a difference of differences is one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pbb_helpers.analysis import statistics, verdicts
from pbb_helpers.experiments import across, experiment, profiles
from pbb_helpers.figures import plots_across
from pbb_helpers.programs import UsageError
from pbb_helpers.training.recipes import LADDER

MODELS = ("one", "other")


def answers(model: str, condition: str, mode: str, right: set[int], n: int = 40, group: str = "without_io") -> pd.DataFrame:
    return pd.DataFrame([
        {"model": model, "condition": condition, "mode": mode, "group": group, "seed": i % 2, "program": f"p{i}", "input": None if mode in
         ("source", "description") else 3, "gold": "4", "answer": "4" if i in right else "5", "correct": i in right}
        for i in range(n)
    ])  # fmt: skip


def test_all_arms_of_a_notebook_are_one_table() -> None:
    main = statistics.results(answers("one", "proactive", "recall", {1, 2}))
    others = across.results(pd.concat([answers(model, "proactive", "recall", {3}) for model in ("one", "other")]))
    found = across.beside(main, "one", others)
    assert list(found.columns) == list(others.columns) and found["model"].value_counts().to_dict() == {"one": 3, "other": 3}
    assert set(found[found["model"] == "one"]["accuracy"]) == set(main["accuracy"]), "the notebook's own line stands"


@pytest.fixture
def rows() -> pd.DataFrame:
    """In model "one" code answers 30 of 40 and words 10, in model "other" both the same 20."""
    return pd.concat([
        answers("one", "proactive", "recall", set(range(30))), answers("one", "description", "recall_description", set(range(10))),
        answers("other", "proactive", "recall", set(range(20))), answers("other", "description", "recall_description", set(range(20))),
    ], ignore_index=True)  # fmt: skip


def test_each_arm_answers_in_the_representation_it_was_given() -> None:
    every = pd.concat([
        answers("one", name, mode, {1}) for name in ("proactive", "description", "code_to_description", "description_to_code")
        for mode in ("direct", "recall", "recall_description", "source", "description", "in_context_cot")
    ])  # fmt: skip
    own = across.in_own_words(every)
    assert set(own["mode"]) == {"direct", "recall", "source"}
    assert own.groupby("condition")["mode"].value_counts().eq(40).all()
    in_words = {"proactive": False, "description": True, "code_to_description": True, "description_to_code": False,
                "in_context": False, "in_context_description": True, "source_only": False, "mixture": False}  # fmt: skip
    assert {name: across.is_in_words(name) for name in in_words} == in_words


def test_contrasts_pair_the_same_questions_in_each_model(rows: pd.DataFrame) -> None:
    effects = across.contrasts(across.in_own_words(rows), "proactive", "description", modes=["recall"]).set_index("model")
    assert effects["effect"].to_dict() == {"one": pytest.approx(0.5), "other": 0.0}
    assert effects["apart"].to_dict() == {"one": True, "other": False} and set(effects["n"]) == {40}


def test_an_interaction_is_the_difference_of_the_differences(rows: pd.DataFrame) -> None:
    own = across.in_own_words(rows)
    found = across.interaction(own, "proactive", "description", "one", "other", mode="recall")
    assert found["effect"] == pytest.approx(0.5) and found["low"] > 0.2 and found["apart"] and found["n"] == 40 and found["n_seeds"] == 2
    back = across.interaction(own, "proactive", "description", "other", "one", mode="recall")
    assert back["effect"] == pytest.approx(-0.5) and back["high"] < -0.2 and back["apart"]
    fewer = own[(own["model"] == "one") | (own["program"] != "p3")]
    with pytest.raises(UsageError, match="'one' and 'other' were not asked the same questions in mode recall: 40 and 39, 39 in common"):
        across.interaction(fewer, "proactive", "description", "one", "other", mode="recall")


def test_the_interaction_of_paired_noise_is_not_shown() -> None:
    draws = np.random.default_rng(0)
    some = [
        answers(model, condition, "recall", set(np.flatnonzero(draws.random(200) < 0.6).tolist()), n=200)
        for model in MODELS
        for condition in ("proactive", "mixture")
    ]
    found = across.interactions(pd.concat(some), "proactive", "mixture", [MODELS, ("one", "absent")], ["recall"])
    assert len(found) == 1 and not found["apart"].any() and found["low"].iloc[0] < 0 < found["high"].iloc[0]


def test_results_and_claims_are_those_of_each_model(rows: pd.DataFrame) -> None:
    own = across.in_own_words(rows)
    table = across.results(own)
    overall = table[table["seed"] == "all"].set_index(["model", "condition"])["accuracy"]
    assert overall["one", "proactive"] == pytest.approx(0.75) and overall["other", "description"] == pytest.approx(0.5)
    assert list(table.columns[:2]) == ["model", "condition"]
    floors = pd.DataFrame([{"seed": "all", "floor": "best constant", "n": 40, "accuracy": 0.1}])
    expected = verdicts.Prediction("code wins", "proactive", "description", "recall", "above")
    claims = across.claims({"one": [expected], "other": [expected], "third": [expected]}, own, table, floors)
    assert claims[["claim", "verdict", "came_true"]].values.tolist() == [
        ["one: code wins", "above", "yes"], ["other: code wins", "no difference shown", "no"]]  # fmt: skip

    low = table.assign(accuracy=0.03, low=0.01, high=0.06)  # three points above the floor at most
    held = verdicts.Prediction("null", "description", "floor", "recall", "not above")
    for at, came in ((0.03, "open"), (0.05, "yes")):
        assert across.claims({"one": [held]}, own, low, floors.assign(accuracy=at))["came_true"].tolist() == [came]

    effects = across.contrasts(own, "proactive", "description", modes=["recall"])
    line = across.headline(effects, "proactive", "description", "recall")
    assert "one +50 points" in line and "other 0 points" in line and line.count("(not shown)") == 1 and "n = 40 pairs" in line


def test_the_figures_show_every_point(rows: pd.DataFrame) -> None:
    own = across.in_own_words(rows)
    table = across.results(own)
    for at in (None, {"one": 1e6, "other": 4e6}):
        figure = plots_across.accuracy_along(table, "model", modes=["recall"], at=at, xlabel="parameters")
        (axes,) = figure.axes
        means = [
            line for line in axes.lines if line.get_marker() in ("o", "^") and len(line.get_xdata()) == 2 and line.get_markersize() == 5
        ]
        drawn = sorted(round(float(y), 3) for line in means for y in line.get_ydata())
        assert drawn == [0.25, 0.5, 0.5, 0.75] and axes.get_xscale() == ("log" if at else "linear")
    figure = plots_across.differences(across.contrasts(own, "proactive", "description", modes=["recall"]), title="code minus words")
    assert [float(line.get_xdata()[0]) for line in figure.axes[0].lines if line.get_marker() == "o"] == pytest.approx([50, 0])


def test_models_share_an_experiment(shipped_like, tmp_path, monkeypatch) -> None:
    values = {"profile": "smoke", "models": ["pbb-small", str(shipped_like)], "match": "tokens"}
    arms = {"smoke": dataclasses.replace(profiles.PROFILES["smoke"], conditions=("proactive", "description"))}
    with pytest.raises(UsageError, match="partly ours and partly not"):
        profiles.experiments(values, arms, {})
    plan, names = profiles.experiments(values | {"lr": 1e-3}, arms, {})
    assert names == ("pbb-small", str(shipped_like)) and plan.budget.match == "tokens" and plan.budget.stage1.lr == 1e-3
    assert profiles.facts(plan, names)["model"] == f"pbb-small, {shipped_like}"
    for wrong, message in (({"models": []}, "give at least one"), ({"models": ["pbb-small"] * 2}, "each once"), ({"match": "words"}, "unknown match"),
                           ({"profile": "slow"}, "unknown profile"), ({"models": "pbb-small"}, "parameter models")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            profiles.experiments(values | {"lr": 1e-3} | wrong, arms, {})


def test_a_model_of_the_ladder_that_is_not_made_says_how(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PBB_RUNS", str(tmp_path))
    monkeypatch.setitem(LADDER, "pbb-next", dataclasses.replace(LADDER["pbb-m"], name="pbb-next"))
    with pytest.raises(UsageError, match="model 'pbb-next' does not ship and is not made yet; make it with: pbb pretrain --name pbb-next"):
        profiles.experiments({"profile": "smoke", "models": ["pbb-next"]}, profiles.PROFILES, {})


def test_experiments_that_share_the_processes_give_what_each_gives_alone(tmp_path) -> None:
    base = dataclasses.replace(profiles.PROFILES["smoke"], conditions=("in_context", "proactive"))
    plans = [base, dataclasses.replace(base, n_with_io=8, n_with_io_drawn=12)]
    together = experiment.run_each(plans, tmp_path / "together", names=("twelve", "eight"), processes=2)
    assert together[0].reused == 0 < together[1].reused < 0.2, "the answers in context are those of the first"
    more = dataclasses.replace(plans[0], conditions=("in_context", "proactive", "mixture"))
    again = experiment.run(more, tmp_path / "together", processes=2)
    assert 0 < again.reused < 1 and experiment.run(more, tmp_path / "together", processes=1).reused == 1
    assert experiment.reused(together[0], again) < again.reused
    for number, plan in enumerate(plans):
        alone = experiment.run(plan, tmp_path / f"alone{number}", processes=1)
        pd.testing.assert_frame_equal(together[number].rows, alone.rows)
        pd.testing.assert_frame_equal(together[number].floors, alone.floors)
        pd.testing.assert_frame_equal(
            together[number].metrics.drop(columns="seconds", errors="ignore"), alone.metrics.drop(columns="seconds", errors="ignore")
        )


@pytest.mark.parametrize(
    ("notebook", "parameter", "conditions", "models"),
    [
        (profiles.forward, "repeated", profiles.REPEATED, ("pbb-once", "pbb-twice")),
        (profiles.curricula, "sizes", profiles.SIZES, ("pbb-s",)),
    ],
)
def test_further_models_are_an_experiment_of_their_own(
    notebook: Callable[..., list[tuple[Any, tuple[str, ...]]]], parameter: str, conditions: tuple[str, ...], models: tuple[str, ...]
) -> None:
    values = {"profile": "quick", "model": "pbb-small", "conditions": ["proactive"], "seeds": [3], "n_with_io": 8}
    own, (plan, names) = notebook({**values, parameter: ["pbb-xs", "pbb-m"]})
    assert own[0].conditions == ("proactive",) and own[1] == ("pbb-small",)
    assert names == ("pbb-xs", "pbb-m") and plan.conditions == conditions and (plan.seeds, plan.n_with_io) == ((3,), 8)
    assert notebook({**values, parameter: None})[1][1] == models
    assert notebook({**values, parameter: []})[1] == (None, ())
    with pytest.raises(UsageError, match="each once"):
        notebook({**values, parameter: ["pbb-s", "pbb-s"]})
    with pytest.raises(UsageError, match=parameter):
        notebook({**values, parameter: "pbb-s"})
    with pytest.raises(UsageError, match="pbb-q"):
        notebook({**values, parameter: ["pbb-q"]})


def test_a_claim_along_an_axis_is_of_one_condition(rows: pd.DataFrame) -> None:
    table = across.results(rows)
    for condition, mode, effect in (("proactive", "recall", 0.25), ("description", "recall_description", -0.25)):
        claim = verdicts.Prediction("one beats other", "one", "other", mode, "above")
        found = across.claims_along([claim], rows, "model", table=table, floors=pd.DataFrame(), condition=condition).iloc[0]
        assert found["effect"] == pytest.approx(effect) and found["n"] == 40
        never = across.claims_along([claim._replace(a="third")], rows, "model", table=table, floors=pd.DataFrame(), condition=condition)
        assert never["verdict"].tolist() == ["not run"]
