"""Tokens that a base model has to write and never read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.plan import small
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments import composition_plan, profiles, unread
from pbb_helpers.programs import UsageError
from pbb_helpers.training import models
from pbb_helpers.training.model_files import find
from pbb_helpers.training.pretrain import tokenizer_of
from pbb_helpers.training.store import Store
from pbb_helpers.training.train import train_stage

COMPOSITIONS = replace(composition_plan.PROFILES["smoke"], model="pbb-xs", conditions=("proactive",))


def test_a_model_read_what_its_own_programs_are_written_in() -> None:
    assert unread.unread(profiles.PROFILES["smoke"]).empty


def test_the_return_of_a_composition_is_made_of_tokens_that_no_model_read() -> None:
    found = unread.unread(COMPOSITIONS)
    assert set(found["token"]) == {"\n    ", "retur", "n ", "(x"} and found["documents"].nunique() == 1
    assert set(unread.unread(replace(COMPOSITIONS, model="pbb-small"))["token"]) == {"\n    return ", "(x"}


def test_they_come_in_the_order_of_the_vocabulary() -> None:
    """In that of a set they would hang on the process, and a stage's key with them."""
    tokenizer = tokenizer_of(find("pbb-xs")[0])
    ids = [tokenizer.encode(text) for text in unread.unread(COMPOSITIONS)["token"]]
    assert ids == sorted(ids) and all(len(each) == 1 for each in ids)


def test_of_a_model_of_others_nothing_is_said(shipped_like) -> None:
    assert unread.unread(replace(small(profiles.PROFILES["smoke"]), model=str(shipped_like))).empty


def test_their_embeddings_are_trained_where_it_is_asked_for(tmp_path) -> None:
    loaded, dataset, keys = models.load(COMPOSITIONS.model), COMPOSITIONS.dataset(0), []
    ids = {loaded.tokenizer.encode(text)[0] for text in ("\n    ", "retur")}
    for new in ((), ("\n    ", "retur")):
        budget = replace(COMPOSITIONS.budget, new_tokens=new)
        key = None
        for spec in condition("proactive").stages:
            stage = build_stage(spec, dataset, budget, models.token_counter(loaded.tokenizer))
            key = train_stage(loaded, stage, store=Store(tmp_path), parent=key)
            config = json.loads((Store(tmp_path).folder(key) / "adapter" / "adapter_config.json").read_text())
            (rows,) = config["trainable_token_indices"].values()
            assert ids & set(rows) == (ids if new else set()) and len(rows) > len(ids)
            keys.append(key)
    assert len(set(keys)) == 4


def test_the_notebook_trains_them_where_it_is_asked_for() -> None:
    values = {"profile": "smoke", "model": "pbb-xs", "conditions": ["proactive"], "train_unread": True, "n_composed_with_io": None,
              "n_composed_without_io": None}  # fmt: skip
    assert set(composition_plan.plan(values).budget.new_tokens) == {"\n    ", "retur", "n ", "(x"}
    assert composition_plan.plan(values).budget == composition_plan.plan(values | {"conditions": ["mixture"], "seeds": [3]}).budget
    with pytest.raises(UsageError, match="train_unread with method full"):
        composition_plan.plan(values | {"method": "full"})
    plain = composition_plan.plan(values | {"train_unread": False})
    assert plain.budget.new_tokens == ()
    assert composition_plan.facts(plain)["tokens whose embeddings are trained with the names'"] == "none"
