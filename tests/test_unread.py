"""Tokens that a base model has to write and never read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.plan import small
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments import composition_plan, profiles, unread
from pbb_helpers.programs import UsageError
from pbb_helpers.training import models, pretrain, pretrain_documents
from pbb_helpers.training.model_files import SHIPPED, find
from pbb_helpers.training.pretrain_documents import tokenizer_of
from pbb_helpers.training.recipes import LADDER
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


def test_the_card_says_what_the_documents_held(tmp_path) -> None:
    """Counted here over the very batches that are trained: a last window that is left early is not read to its end."""
    settings = replace(LADDER["pbb-xs"], steps=20, batch_size=4, questions=4, evaluate_every=20, warmup=2, compile=False)
    folder = pretrain.pretrain(settings, tmp_path / "some", log=lambda _: None)
    trained = [batch for index in (0, 1) for batch in pretrain_documents.window_of_rows(folder, settings, index)][:20]
    held = {token for batch in trained for ids, _ in batch for token in ids}
    read = json.loads((folder / "card.json").read_text())["tokens_read"]
    assert read == sorted(held - set(tokenizer_of(folder).get_added_vocab().values()))
    assert (
        set(pretrain_documents.tokens_read(folder, replace(settings, steps=16)))
        < set(read)
        < set(pretrain_documents.tokens_read(folder, replace(settings, steps=64)))
    )


def test_of_a_card_that_does_not_say_it_the_first_documents_are_read(tmp_path, monkeypatch) -> None:
    old = tmp_path / "old"
    shutil.copytree(find("pbb-xs")[0], old)
    card = json.loads((old / "card.json").read_text())
    del card["tokens_read"]
    (old / "card.json").write_text(json.dumps(card))
    steps, real = [], pretrain_documents.tokens_read
    monkeypatch.setattr(pretrain_documents, "tokens_read", lambda folder, settings: steps.append(settings.steps) or real(folder, settings))
    some, whole = (set(unread.unread(each)["token"]) for each in (replace(COMPOSITIONS, model=str(old)), COMPOSITIONS))
    assert some >= whole != set(), "fewer documents hold no more tokens"
    assert steps == [unread.WINDOWS * pretrain_documents.WINDOW], "of the one whose card says nothing"


SAID = [path.parent.name for path in sorted(SHIPPED.glob("*/card.json")) if "tokens_read" in json.loads(path.read_text())]


@pytest.mark.parametrize("name", SAID)
def test_shipped_cards_leave_nothing_out_that_was_read(name) -> None:
    """In a sample, the first and the last window; all documents are gone through where a card is made."""
    folder = SHIPPED / name
    read = set(json.loads((folder / "card.json").read_text())["tokens_read"]) | set(tokenizer_of(folder).get_added_vocab().values())
    settings = pretrain_documents.settings_of(folder)
    for index in (0, settings.steps // pretrain_documents.WINDOW - 1):
        assert all(read.issuperset(ids) for batch in pretrain_documents.window_of_rows(folder, settings, index) for ids, _ in batch)


def test_the_cards_of_the_ladder_say_it() -> None:
    assert {"pbb-xs", "pbb-s", "pbb-m", "pbb-l", "pbb-xl"} <= set(SAID)


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
