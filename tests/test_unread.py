"""Tokens that a base model has to write and never read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from faults import python

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.plan import small
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments import composition_plan, profiles, unread
from pbb_helpers.training import models
from pbb_helpers.training.store import Store
from pbb_helpers.training.train import train_stage

COMPOSITIONS = replace(composition_plan.PROFILES["smoke"], model="pbb-xs", conditions=("proactive",))


def test_a_model_read_what_its_own_programs_are_written_in() -> None:
    assert unread.unread(profiles.PROFILES["smoke"]).empty


def test_the_return_of_a_composition_is_made_of_tokens_that_no_model_read() -> None:
    found = unread.unread(COMPOSITIONS)
    assert set(found["token"]) == {"\n    ", "retur", "n ", "(x"} and found["documents"].nunique() == 1
    assert set(unread.unread(replace(COMPOSITIONS, model="pbb-small"))["token"]) == {"\n    return ", "(x"}


def test_their_order_is_the_same_in_every_process() -> None:
    code = "from test_unread import COMPOSITIONS; from pbb_helpers.experiments import unread; print(list(unread.unread(COMPOSITIONS)['token']))"
    said = [python(code, PYTHONHASHSEED=seed) for seed in ("1", "2")]
    assert said[0] == said[1] and "retur" in said[0]


def test_of_a_model_of_others_nothing_is_said(shipped_like) -> None:
    assert unread.unread(replace(small(profiles.PROFILES["smoke"]), model=str(shipped_like))).empty


@pytest.mark.parametrize("new", [(), ("\n    ", "retur")])
def test_their_embeddings_are_trained_where_it_is_asked_for(new: tuple[str, ...], tmp_path) -> None:
    planned = replace(COMPOSITIONS, budget=replace(COMPOSITIONS.budget, new_tokens=new))
    loaded, dataset = models.load(planned.model), planned.dataset(0)
    stages = [build_stage(spec, dataset, planned.budget, models.token_counter(loaded.tokenizer)) for spec in condition("proactive").stages]
    key = None
    for stage in stages:
        key = train_stage(loaded, stage, store=Store(tmp_path), parent=key)
        config = json.loads((Store(tmp_path).folder(key) / "adapter" / "adapter_config.json").read_text())
        (rows,) = config["trainable_token_indices"].values()
        ids = {loaded.tokenizer.encode(text)[0] for text in ("\n    ", "retur")}
        assert ids & set(rows) == (ids if new else set()) and len(rows) > len(ids)
    assert key == train_stage(loaded, stages[1], store=Store(tmp_path), parent=train_stage(loaded, stages[0], store=Store(tmp_path)))


def test_the_notebook_trains_them_where_it_is_asked_for() -> None:
    values = {"profile": "smoke", "model": "pbb-xs", "conditions": ["proactive"], "train_unread": True, "n_composed_with_io": None,
              "n_composed_without_io": None}  # fmt: skip
    assert set(composition_plan.plan(values).budget.new_tokens) == {"\n    ", "retur", "n ", "(x"}
    plain = composition_plan.plan(values | {"train_unread": False})
    assert plain.budget.new_tokens == ()
    assert composition_plan.facts(plain)["tokens whose embeddings are trained with the names'"] == "none"
