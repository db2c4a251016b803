"""What is put before a reader's eyes: a program with its documents, answers wrong ones first, predictions beside outcomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pbb_helpers.analysis import findings, reading, statistics, verdicts
from pbb_helpers.data.descriptions import find
from pbb_helpers.experiments import pretraining, profiles
from pbb_helpers.programs import UsageError
from pbb_helpers.training import models
from pbb_helpers.training.recipes import LADDER


def rows(condition: str, right: int, n: int = 60, mode: str = "recall", seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame([
        {"condition": condition, "mode": mode, "group": "without_io", "seed": seed, "program": f"p{i}", "input": 3, "length": 1 + i % 4,
         "prompt": f"p{i}(3)", "generated": "return 4", "answer": "4", "gold": "4" if i < right else "5", "correct": i < right, "parsed_ok": True}
        for i in range(n)
    ])  # fmt: skip


def test_one_program_shows_its_one_document_and_the_questions() -> None:
    plan = profiles.PROFILES["smoke"]
    text = reading.one_program(plan)
    program = plan.dataset(0).without_io[0]
    x = plan.dataset(0).eval_inputs[0]
    assert program.source.splitlines()[0] in text and f"{program.name}({x})" in text
    assert text.count("===") == 5 and str(program.run(x)) in text


@pytest.mark.parametrize(("right", "wrong_shown"), [(60, 0), (57, 3), (30, 5), (2, 8), (0, 10)])
def test_answers_are_ten_with_wrong_ones_first(right: int, wrong_shown: int) -> None:
    shown = reading.answers(rows("proactive", right))
    assert len(shown) == 10 and not shown["correct"][:wrong_shown].any() and shown["correct"][wrong_shown:].all()
    assert shown.equals(reading.answers(rows("proactive", right)))


PREDICTIONS = [
    verdicts.Prediction("more", "proactive", "stage1_only", "recall", "above"),
    verdicts.Prediction("less", "stage1_only", "proactive", "recall", "above"),
    verdicts.Prediction("same", "proactive", "mixture", "recall", "no difference shown"),
    verdicts.Prediction("floor", "proactive", "floor", "recall", "above"),
    verdicts.Prediction("low floor", "stage1_only", "floor", "recall", "above"),
    verdicts.Prediction("absent", "proactive", "base", "recall", "above"),
]


def test_predictions_stand_beside_what_came_out() -> None:
    found = pd.concat([rows("proactive", 50), rows("stage1_only", 3), rows("mixture", 50)])
    table = statistics.results(found)
    floors = pd.DataFrame([{"seed": "all", "floor": "best constant", "n": 60, "accuracy": 0.1}])
    claims = verdicts.claims(PREDICTIONS, found, floors=floors, table=table)
    outcome = verdicts.outcomes(claims).set_index("prediction")
    assert outcome["found"].to_dict() == {
        "more": "above", "less": "below", "same": "no difference shown", "floor": "above", "low floor": "no difference shown", "absent": "not run"
    }  # fmt: skip
    assert outcome["came true"].to_dict() == {"more": "yes", "less": "no", "same": "open", "floor": "yes", "low floor": "no", "absent": "-"}
    for seeds, verdict in ((("0", 0.6), ("1", 0.95)), "seeds disagree"), ((("0", 0.6), ("1", 0.7)), "above"):
        two = pd.concat([rows("proactive", right, seed=seed) for seed, right in ((0, 45), (1, 55))])
        own = pd.DataFrame([{"seed": seed, "floor": "best constant", "n": 60, "accuracy": share} for seed, share in seeds])
        own = pd.concat([own, pd.DataFrame([{"seed": "all", "floor": "best constant", "n": 120, "accuracy": 0.6}])])
        found = verdicts.claims(PREDICTIONS[3:4], two, floors=own, table=statistics.results(two))
        assert found["verdict"].tolist() == [verdict], seeds
        said = " ".join(findings.sentences(statistics.results(two), two, floors=own))
        assert ("in seed 1 it is not above that seed's own" in said) == (verdict == "seeds disagree")
    numbers = claims.set_index("claim")
    assert numbers.loc["floor", ["effect", "low"]].tolist() == pytest.approx(
        [50 / 60 - 0.1, table[table["condition"] == "proactive"]["low"].iloc[-1] - 0.1]
    )
    assert numbers.loc["less", "effect"] == pytest.approx(-47 / 60) and numbers.loc["absent", ["effect", "n"]].isna().all()
    assert outcome["difference"]["absent"] == "" and outcome["n"]["more"].endswith("1 seed")


def test_a_claim_has_an_interval_over_seeds_beside_that_over_programs() -> None:
    right = {"proactive": (45, 55), "stage1_only": (3, 9)}
    two = pd.concat([rows(name, n, seed=seed) for name, of_seeds in right.items() for seed, n in enumerate(of_seeds)])
    floors = pd.DataFrame(
        [{"seed": seed, "floor": "best constant", "n": 60, "accuracy": a} for seed, a in (("0", 0.1), ("1", 0.2), ("all", 0.15))]
    )
    found = verdicts.claims(PREDICTIONS[:4], two, floors=floors, table=statistics.results(two)).set_index("claim")
    half = 12.7062 * 4 / 60 / 2  # of two values that far apart, Student's t with one degree of freedom
    assert found.loc["more", ["seed_low", "seed_high"]].tolist() == pytest.approx([44 / 60 - half, min(1, 44 / 60 + half)], abs=1e-4)
    half = 12.7062 * (10 / 60 - 0.1) / 2
    assert found.loc["floor", ["seed_low", "seed_high"]].tolist() == pytest.approx(
        [50 / 60 - 0.15 - half, min(1, 50 / 60 - 0.15 + half)], abs=1e-4
    )
    assert verdicts.outcomes(found.reset_index())["over seeds"].iloc[0] == "+31 to +100"
    alone = verdicts.claims(PREDICTIONS[:1], two[two["seed"] == 0])
    assert alone[["seed_low", "seed_high"]].isna().all(axis=None) and verdicts.outcomes(alone)["over seeds"].tolist() == ["–"]


def test_pretraining_sentences_say_whether_the_targets_are_met() -> None:
    answered = pd.concat([rows("in_context", right, mode=mode) for mode, right in (("direct", 40), ("cot", 60), ("recall", 60))])
    table = statistics.results(answered, by=["condition", "mode", "group", "length"])
    short = statistics.results(answered[answered["length"] <= 2])
    points = pd.DataFrame([{"tokens": 9, "step": step, "mode": "cot", "accuracy": step / 10, "n": 400} for step in (1, 9)])
    said = " ".join(pretraining.sentences(table, short, points))
    assert "cot 90 %; n = 400" in said
    assert "cot is not told apart from the target of 95 %" in said and "direct is not told apart from the target of 75 %" in said
    assert "n = 30" in said


def test_answers_in_words_are_rows_of_their_own(shipped_like) -> None:
    loaded = models.load(str(shipped_like), device="cpu")
    code = pretraining.ask(loaded, n_programs=2, seed=0)
    both = pretraining.ask(loaded, n_programs=2, seed=0, language=True)
    words = both[both["condition"] == "in_context_description"]
    pd.testing.assert_frame_equal(both[both["condition"] == "in_context"].reset_index(drop=True), code.reset_index(drop=True))
    assert set(words["mode"]) == {"direct", "cot", "recall_description"} and len(words) == len(code) == 2 * 4 * 3
    assert list(words["gold"]) == list(code["gold"]) and all(find(prompt) for prompt in words["prompt"])
    assert not pretraining.reads_words({"settings": {"mix": {}}}) and pretraining.reads_words({"settings": {"mix": {"language": 0.1}}})


def values(**changes: object) -> dict[str, object]:
    return {"profile": "quick", "model": "pbb-small", "n_programs": None, "steps": None, "seed": 1, "trust_remote_code": False} | changes


def test_pretraining_plans() -> None:
    assert pretraining.plan(values()).settings is None
    assert pretraining.plan(values(profile="smoke")).settings == pretraining.TOY
    full = pretraining.plan(values(profile="full", steps=10)).settings
    assert full is not None and full.steps == 10 and full.hidden == 128
    assert pretraining.plan(values(profile="full", model="pbb-xs")).settings == LADDER["pbb-xs"]
    shown = {name: pretraining.sample_documents(pretraining.plan(values(model=name)), 20, seed=1) for name in ("pbb-ciphers", "pbb-m")}
    assert "ord(" in shown["pbb-ciphers"] and "ord(" not in shown["pbb-m"]
    toy = pretraining.plan(values(profile="smoke", model="pbb-ciphers"))
    assert "ord(" not in pretraining.sample_documents(toy, 20, seed=1) and toy.facts().startswith("toy, made here in 32 steps")


def test_a_model_of_another_make_is_asked_as_it_is(tiny_folder: Callable[[str], Path]) -> None:
    plan = pretraining.plan(values(model=str(tiny_folder("llama")), profile="smoke", n_programs=2))
    assert plan.settings is None and "was not pretrained here" in pretraining.sample_documents(plan, 3, seed=1)
    card, loaded = plan.model()
    assert card is None and not pretraining.reads_words(card) and not pretraining.other_families(card)
    rows = pretraining.ask(loaded, n_programs=plan.n_programs, seed=1)
    table = statistics.results(rows, by=["condition", "mode", "group", "length"])
    said = pretraining.sentences(table, statistics.results(rows[rows["length"] <= 2]), None)
    assert len(said) == 2 and "n = 4 programs" in said[0] and "hardly make it run" in said[1]


@pytest.mark.parametrize(("changes", "message"), [
    ({"model": "pbb-smal"}, "unknown model 'pbb-smal'; did you mean 'pbb-small'"),
    ({"model": "./nowhere"}, "does not exist"),
    ({"model": "pbb-smal", "profile": "full"}, "unknown model to make 'pbb-smal'; did you mean 'pbb-small'"),
    ({"model": "./nowhere", "steps": 5}, "unknown model to make './nowhere'"),
    ({"steps": 0}, "give at least 1"),
    ({"profile": "long"}, "long"),
])  # fmt: skip
def test_bad_plans_get_one_line(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pretraining.plan(values(**changes))


def test_the_curve_is_long_and_described() -> None:
    card = {"in_context_n": 400, "curve": [{"step": 1, "tokens": 10, "direct": 0.1, "cot": 0.2, "recall": 0.3},
                                           {"step": 2, "tokens": 2_000_000, "direct": 0.5, "cot": 0.9, "recall": 0.8}]}  # fmt: skip
    points = pretraining.curve(card)
    assert len(points) == 6 and points["accuracy"].max() == 0.9
    assert "At 2.0 million tokens: direct 50 %, cot 90 %, recall 80 %." in pretraining.curve_alt(points)


def test_fresh_ciphers_are_asked_and_scored_by_letters(tiny_folder) -> None:
    loaded = models.load(str(tiny_folder("llama", max_position_embeddings=1024)), device="cpu")
    rows = pretraining.ask(loaded, n_programs=2, seed=1, kind="ciphers", lengths=(1, 2))
    assert set(rows["family"]) == {"ciphers"} and len(rows) == 2 * 2 * 3 and rows["input"].str.match(r"'[A-Z]+', \d+$").all()
    assert rows.groupby("length")["program"].nunique().tolist() == [2, 2] and not rows["correct"].any()
    known = rows.assign(answer=rows["gold"].where(rows["mode"] == "cot", rows["gold"].str[:-1] + "!"))
    table = pretraining.letters(known.assign(correct=known["answer"] == known["gold"])).set_index("mode")
    sizes = rows.loc[rows["mode"] == "direct", "gold"].str.len()
    assert (table.loc["cot", "letters"], table.loc["cot", "accuracy"]) == (1, 1)
    assert table.loc["direct", "letters"] == pytest.approx((1 - 1 / sizes).mean()) and table.loc["direct", "accuracy"] == 0


def test_a_family_counts_as_another_only_where_it_has_a_share() -> None:
    cards = [
        {"settings": {"mix": mix}} for mix in ({}, {"families": {"arithmetic": 1.0}}, {"families": {"arithmetic": 0.4, "ciphers": 0.6}})
    ]
    assert [pretraining.other_families(card) for card in cards] == [[], [], ["ciphers"]]
