"""The parameters of the experiment notebooks: what each changes, what is refused, and in what words."""

from __future__ import annotations

import dataclasses

import pytest

from pbb_helpers.experiments import profiles
from pbb_helpers.programs import UsageError

DEFAULTS = {name: None for name in profiles.Parameters.model_fields} | {
    "profile": "quick",
    "model": "pbb-small",
    "trust_remote_code": False,
}


def plan(**changes: object) -> profiles.Experiment:
    return profiles.experiment(DEFAULTS | changes)


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_a_profile_without_changes_is_itself(name: str) -> None:
    assert plan(profile=name) == profiles.PROFILES[name]


def test_profiles_grow() -> None:
    smoke, quick, full = (profiles.PROFILES[name] for name in ("smoke", "quick", "full"))
    assert smoke.n_with_io < quick.n_with_io < full.n_with_io and len(quick.seeds) <= len(full.seeds)
    assert smoke.budget.stage1_steps < quick.budget.stage1_steps <= full.budget.stage1_steps


def test_each_parameter_changes_what_it_names() -> None:
    changed = plan(conditions=["mixture", "base"], seeds=[3], n_with_io=50, n_without_io=20, min_statements=2, max_statements=3,
                   stage1_steps=7, stage2_steps=5, batch_size=8, rank=4)  # fmt: skip
    assert changed.conditions == ("base", "mixture") and changed.seeds == (3,)
    assert (changed.n_with_io, changed.n_without_io, changed.n_with_io_asked) == (50, 20, 20)
    assert dict(changed.family_settings) == {"min_statements": 2, "max_statements": 3}
    assert (changed.budget.stage1_steps, changed.budget.stage2_steps) == (7, 5)
    for settings in (changed.budget.stage1, changed.budget.stage2):
        assert (settings.batch_size, settings.method, settings.rank) == (8, "lora", 4)
    assert plan(method="full").budget.stage2.method == "full"
    assert [p.length for p in changed.dataset(3).with_io].count(1) == 0


def test_learning_rates_keep_their_proportion() -> None:
    before, after = plan().budget, plan(lr=1e-4).budget
    assert after.stage1.lr == pytest.approx(1e-4)
    assert after.stage2.lr / after.stage1.lr == pytest.approx(before.stage2.lr / before.stage1.lr)


def test_another_model_gets_the_rate_of_an_llm(tmp_path) -> None:
    assert plan(model=str(tmp_path)).budget.stage1.lr == pytest.approx(profiles.LLM_LR)
    assert plan(model=str(tmp_path), method="full").budget.stage1.lr == pytest.approx(profiles.LLM_FULL_FINETUNING_LR)
    assert plan(model=str(tmp_path), lr=1e-3).budget.stage1.lr == pytest.approx(1e-3)
    assert plan(method="full").budget.stage1.lr == pytest.approx(profiles.FULL_FINETUNING_LR)


@pytest.mark.parametrize("rank", [1, 8, 128])
def test_another_rank_keeps_the_scale_of_the_adapters(rank: int) -> None:
    before = plan().budget.stage1
    for settings in (plan(rank=rank).budget.stage1, plan(rank=rank).budget.stage2):
        assert settings.rank == rank and settings.alpha / settings.rank == before.alpha / before.rank


def test_a_notebook_refuses_a_plan_without_what_it_compares() -> None:
    profiles.require(plan(), "proactive", "mixture")
    with pytest.raises(UsageError, match="this notebook compares proactive with mixture: add mixture"):
        profiles.require(plan(conditions=["proactive"]), "proactive", "mixture")


@pytest.mark.parametrize(("changes", "message"), [
    ({"profile": "quik"}, "unknown profile 'quik'; did you mean 'quick'"),
    ({"model": "pbb-smal"}, "unknown model 'pbb-smal'; did you mean 'pbb-small'"),
    ({"model": "./no/such/folder"}, "does not exist"),
    ({"conditions": ["proactve"]}, "unknown condition 'proactve'; did you mean 'proactive'"),
    ({"seeds": [1, 1]}, "name each once"),
    ({"seeds": []}, "give at least one of each"),
    ({"conditions": []}, "give at least one of each"),
    ({"lr": 0.0}, "give lr > 0"),
    ({"conditions": ["base", "in_context"]}, "train nothing; add one that does"),
    ({"seeds": [-1]}, "give whole numbers from 0"),
    ({"n_with_io": 0}, "give at least 1 and 2"),
    ({"n_with_io": "many"}, "n_with_io"),
    ({"stage1_steps": 0}, "give at least 1"),
    ({"max_statements": 0}, "give 1 <= min_statements <= max_statements"),
    ({"method": "lorra"}, "did you mean 'lora'"),
    ({"method": "full", "rank": 8}, "rank 8 with method full, which has no adapters"),
    ({"conditions": ["io_only(200, uniform)"]}, "has 200 I/O pairs of each of 80 programs and room to show 64; give fewer pairs"),
])  # fmt: skip
def test_bad_parameters_get_one_line(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        plan(**changes).dataset(0)
    assert "\n" not in str(error.value)


def test_every_field_is_a_parameter_of_the_notebook() -> None:
    from pathlib import Path

    from pbb_helpers.parameters import read_notebook, read_parameters

    path = Path(__file__).parents[1] / "notebooks" / "01_proactive.ipynb"
    # The family is a parameter of those notebooks that can do with another.
    assert set(read_parameters(read_notebook(path), path)) == set(profiles.Parameters.model_fields) - {"family"}


def test_facts_say_the_size() -> None:
    said = profiles.facts(plan())
    assert said["programs w/ IO and w/o IO, per seed"] == f"{profiles.QUICK.n_with_io} and {profiles.QUICK.n_without_io}"
    assert str(profiles.QUICK.budget.stage1_steps) in said["stage 1"] and dataclasses.is_dataclass(profiles.QUICK)


def test_conditions_with_io_pairs_stand_last_and_are_said_to_be_of_equal_length() -> None:
    names = ["io_only(16, zipf)", "io_only(4, zipf)", "early(0.5)", "source_and_io(4, zipf)", "proactive"]
    chosen = plan(conditions=names)
    assert chosen.conditions == ("proactive", "early(0.5)", "io_only(4, zipf)", "io_only(16, zipf)", "source_and_io(4, zipf)")
    said = profiles.facts(chosen)["I/O pairs of w/o IO programs"]
    assert said == "input and output alone, direct answers; as many documents as proactive has"
    assert "I/O pairs of w/o IO programs" not in profiles.facts(plan())
