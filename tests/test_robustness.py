"""Notebooks 06 and 07: what is asked, accuracy by shift, the crossing of examples and source, and what is refused."""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbb_helpers import markup
from pbb_helpers.analysis import crossing, labels, robustness, statistics, verdicts
from pbb_helpers.data.conditions import condition
from pbb_helpers.data.datasets import held_out_part
from pbb_helpers.data.demonstrations import exposures, pairs
from pbb_helpers.data.distributions import distribution, value
from pbb_helpers.data.documents import Example, call_document
from pbb_helpers.data.leaks import LeakError, leak_check
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.settings import Stage, TrainSettings
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments import demonstration_plan, profiles, questions
from pbb_helpers.experiments.questions import calls_asked, floors, held_out_inputs, modes_of
from pbb_helpers.explore.explore_distributions import DistributionPanel
from pbb_helpers.figures import plots_demonstrations
from pbb_helpers.programs import UsageError, family, to_cell
from pbb_helpers.training import models

OWN = ("texts", "min_letters", "max_letters", "n_texts", "n_eval_inputs", "inputs_per_program", "pairs", "distribution")
DEFAULTS = (
    dict.fromkeys([*profiles.Parameters.model_fields, *OWN])
    | {"profile": "quick", "family": "ciphers", "model": "pbb-small", "match": "documents", "trust_remote_code": False}
)  # fmt: skip
SHIFTS = range(1, 26)


def robust(**changes: object) -> tuple[Experiment, demonstration_plan.Arms]:
    return demonstration_plan.robustness_plan(DEFAULTS | changes)


def efficient(**changes: object) -> tuple[Experiment, tuple[int, ...]]:
    return demonstration_plan.efficiency_plan(DEFAULTS | changes)


def test_the_weight_in_the_loss_is_that_of_the_steps(shipped_like: Path) -> None:
    """Ten short pairs fill a batch of their own; two long answers, of ten times their tokens, fill another: a half each."""
    tokenizer = models.load(str(shipped_like)).tokenizer
    pair = Example("direct", "without_io", "zibble", "zibble(3)", "7", 3, "7", 1)
    answer = Example("cot", "with_io", "quorn", "quorn(3)" * 9, "x = 3 + 4 = 7\n" * 9, 3, "7", 1)
    replay = replace(answer, group="replay")
    settings = TrainSettings(batch_size=2)

    def weight(*examples: Example) -> float:
        return crossing.weight_in_the_loss(Stage("stage2", examples, settings, ()), tokenizer)

    assert weight(pair, answer, pair, answer) == weight(pair, pair, replay, replay) == 0.5
    assert weight(pair, pair) == 1 and weight(answer, replay) == 0
    mixed = len(tokenizer.encode("7")) + 1
    assert weight(pair, answer) == pytest.approx(mixed / (mixed + len(tokenizer.encode(answer.completion)) + 1))


def test_the_columns_of_costs_and_weights_are_of_the_stages_that_are_trained() -> None:
    plan, counts = efficient(profile="smoke", family="arithmetic")
    spent = crossing.costs(plan, counts).set_index("condition")
    assert spent["weight in the loss"].between(0, 1, inclusive="neither").all(), "replay has a part in every last stage"
    assert spent["weight in the loss"].idxmax() == f"io_alone({counts[-1]}, uniform)"
    alone = spent.loc[f"io_alone({counts[-1]}, uniform)"]
    assert alone["stage 1"] == 0 and alone["stage 2"] == spent.loc["proactive", ["stage 1", "stage 2"]].sum()
    plan, arms = robust(profile="smoke", family="arithmetic")
    found = crossing.weights(plan).set_index("condition")
    assert set(found.index) == {"proactive", *arms} and found["weight in the loss"].between(0, 1, inclusive="neither").all()


def test_fewer_programs_or_a_longer_stage_make_room_for_more_pairs() -> None:
    with pytest.raises(UsageError, match="256 I/O pairs of each of 40 programs and room to show 128"):
        efficient(pairs=[1, 256])
    assert efficient(pairs=[1, 256], n_without_io=20)[1] == efficient(pairs=[1, 256], stage2_steps=320)[1] == (1, 256)


def test_programs_w_io_that_are_asked_are_those_of_the_profile() -> None:
    plain, _ = efficient()
    assert efficient(n_without_io=plain.n_without_io)[0] == plain and efficient(n_without_io=30)[0].n_with_io_asked == plain.n_with_io_asked


# ---------------------------------------------------------------- what is asked


@pytest.mark.parametrize("n", [1, 4, 13, 25])
def test_held_out_texts_are_asked_at_every_shift_alike(n: int) -> None:
    plan = Experiment(family="ciphers", n_with_io=12, n_without_io=10, n_eval_inputs=3, inputs_per_program=n, n_with_io_asked=4)
    data = plan.dataset(0)
    texts = {text for text, _ in data.eval_inputs}
    assert len(texts) == 3 and not texts & {text for text, _ in data.train_inputs}
    assert len(data.eval_inputs) == 3 * 25 and {*data.eval_inputs, *data.train_inputs} == set(family("ciphers").inputs())
    asked = held_out_inputs(plan, data, "without_io", 10)
    shifts = Counter(shift for some in asked for _, shift in some)
    assert set(map(len, asked)) == {n} and {text for some in asked for text, _ in some} <= texts
    assert max(shifts[s] for s in SHIFTS) - min(shifts[s] for s in SHIFTS) <= 1
    assert all(len({shift for _, shift in some}) == n for some in asked), "no program is asked a shift twice"


def test_a_held_out_text_is_a_leak_at_whatever_shift() -> None:
    plan, _ = robust(profile="smoke")
    data, spec = plan.dataset(0), condition("proactive").stages[0]
    stage = build_stage(spec, data, plan.budget)
    assert not {held_out_part(e.input) for e in stage.examples if e.input} & {text for text, _ in data.eval_inputs}
    text = data.eval_inputs[0][0]
    for shift in (0, 1, 25, 26, 100):
        question = call_document(data.with_io[0], "with_io", "direct", data.train_inputs[0], 0)
        bad = replace(question, prompt=f"Compute {data.with_io[0].name}('{text.lower()}', {shift}).\nAnswer only:\n")
        with pytest.raises(LeakError, match="held-out input"):
            leak_check(replace(stage, examples=(*stage.examples[1:], bad)), spec, data)


def test_ciphers_that_must_hang_on_the_shift_do() -> None:
    programs = family("ciphers", shifted=True).draw([f"n{i}" for i in range(30)], np.random.default_rng(0))
    for program in programs:
        assert len({program.run(("HAL", k)) for k in SHIFTS}) >= 5
    plain = family("ciphers").draw([f"n{i}" for i in range(30)], np.random.default_rng(0))
    assert any(len({program.run(("HAL", k)) for k in SHIFTS}) == 1 for program in plain), "without the setting some do not"


# ---------------------------------------------------------------- sizes and parameters


@pytest.mark.parametrize("kind", ["ciphers", "arithmetic"])
@pytest.mark.parametrize("profile", ["smoke", "quick", "full"])
def test_every_pair_of_every_profile_is_shown(kind: str, profile: str) -> None:
    for plan in (robust(profile=profile, family=kind)[0], efficient(profile=profile, family=kind)[0]):
        for name in plan.conditions:
            for spec in condition(name).stages:
                assert spec.pairs <= exposures(spec, plan.budget.documents(spec), plan.n_without_io)


def test_exposures_are_counted_as_documents_are_drawn() -> None:
    plan, counts = efficient(profile="smoke")
    for name in (f"io_only({counts[-1]}, uniform)", f"io_alone({counts[-1]}, uniform)", "source_and_io(2, uniform)"):
        spec = condition(name).stages[-1]
        stage = build_stage(spec, plan.dataset(0), plan.budget)
        shown = Counter(e.program for e in stage.examples if e.group == "without_io" and e.kind == "direct")
        assert min(shown.values()) >= exposures(spec, plan.budget.documents(spec), plan.n_without_io) >= min(shown.values()) - 1


def test_pairs_alone_take_the_documents_of_both_stages_and_show_no_source() -> None:
    plan, counts = efficient(profile="smoke")
    (spec,) = condition(f"io_alone({counts[-1]}, uniform)").stages
    stage = build_stage(spec, plan.dataset(0), plan.budget)
    assert len(stage.examples) == plan.budget.stage1_documents + plan.budget.stage2_documents
    assert {(e.group, e.kind) for e in stage.examples if e.group != "replay"} == {("without_io", "direct")}


def test_both_notebooks_share_what_they_can() -> None:
    one, other = robust()[0], efficient()[0]
    assert one.dataset(0) == other.dataset(0) and one.budget == other.budget, "stage 1 and proactive are trained once for both"


def test_parameters_change_what_they_name() -> None:
    plan, arms = robust(
        pairs=16, distribution="natural(0.5)", match="tokens", texts="letters", n_texts=60, n_eval_inputs=5, inputs_per_program=7
    )
    assert arms == ("io_only(16, natural(0.5))", "io_only(16, uniform)", "source_and_io(16, natural(0.5))")
    assert plan.conditions == ("in_context", "proactive", *arms) and plan.budget.match == "tokens"
    assert (plan.n_eval_inputs, plan.inputs_per_program) == (5, 7)
    assert dict(plan.family_settings) == {"shifted": True, "texts": "letters", "n_texts": 60}
    assert efficient(pairs=[8, 2])[1] == (2, 8)
    assert robust(family="arithmetic")[1].skewed == "io_only(8, zipf)"


@pytest.mark.parametrize(("changes", "message"), [
    ({"profile": "quik"}, "unknown profile 'quik'; did you mean 'quick'"),
    ({"family": "cipher"}, "unknown family 'cipher'; did you mean 'ciphers'"),
    ({"distribution": "natual"}, "unknown distribution 'natual'; did you mean 'natural'"),
    ({"distribution": "natural(1.5)"}, "give a share from 0, which is uniform, to 1"),
    ({"family": "arithmetic", "distribution": "natural"}, "natural is over shifts from 0 to 25, not over 0 to 49"),
    ({"distribution": "uniform"}, "distribution uniform is the even one, against which a skewed one is held; give natural"),
    ({"distribution": "natural(0.0)"}, "distribution natural(0.0) is the even one"),
    ({"distribution": ""}, "unknown distribution ''"),
    ({"distribution": "zipf(1000)"}, "zipf(1000): give an exponent from 0, which is uniform, to 10"),
    ({"texts": "letters", "max_letters": 10**9}, "give 3 <= min_letters <= max_letters <= 1000"),
    ({"pairs": 0}, "takes a number of I/O pairs, 1 to 10,000"),
    ({"pairs": 65}, "source_and_io(65, natural) has 65 I/O pairs of each of 40 programs and room to show 64"),
    ({"match": "letters"}, "unknown match 'letters'"),
    ({"texts": "poems"}, "unknown texts 'poems'"),
    ({"family": "arithmetic", "texts": "words"}, "unknown setting of arithmetic 'texts'"),
    ({"min_letters": 5, "max_letters": 4}, "texts of 5 to 4 letters"),
    ({"n_texts": 100000}, "100000 texts of 3 to 4 letters; there are"),
    ({"inputs_per_program": 26}, "give 1 to 25"),
    ({"family": "arithmetic", "inputs_per_program": 16}, "give 1 to 15"),
    ({"model": "pbb-smal"}, "unknown model 'pbb-smal'; did you mean 'pbb-small'"),
])  # fmt: skip
def test_what_is_not_valid_is_one_clear_line(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        robust(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("some", "message"), [
    ([], "give at least two numbers of I/O pairs, each once"), ([4], "at least two numbers"), ([4, 4], "each once"), ([1, 129], "room to show 128"),
    ([0, 2], "takes a number of I/O pairs, 1 to 10,000"),
])  # fmt: skip
def test_numbers_of_pairs_that_make_no_curve_are_refused(some: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        efficient(pairs=some)


def test_too_many_texts_held_out_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match="40 held-out texts of 40; give 1 to 39"):
        Experiment(family="ciphers", n_eval_inputs=40).dataset(0)


# ---------------------------------------------------------------- answers of which the truth is known

ARMS = demonstration_plan.Arms("io_only(64, natural)", "io_only(64, uniform)", "source_and_io(64, natural)")


def answers(
    chances: dict[str, object], *, n_programs: int = 60, seeds: int = 2, repeats: int = 2, mode: str = "direct", draw: int = 0
) -> pd.DataFrame:
    """Returns answers at every shift; `chances` gives the probability of a right one by shift."""
    draws, rows = np.random.default_rng(draw), []
    for name, chance in chances.items():
        for seed in range(seeds):
            for program in range(n_programs):
                for shift in SHIFTS:
                    for text in ("CAB", "DOG")[:repeats]:
                        right = bool(draws.random() < chance(shift))  # type: ignore[operator]
                        rows.append({"condition": name, "mode": mode, "group": "without_io", "seed": seed, "program": f"p{program}", "input": to_cell((text, shift)),
                                     "gold": "XYZ", "answer": "XYZ" if right else "XYA", "correct": right})  # fmt: skip
    return pd.DataFrame(rows)


KNOWN = answers({"io_only(64, natural)": lambda k: 0.9 if k == 13 else 0.2, "io_only(64, uniform)": lambda k: 0.5})


def measured(table: pd.DataFrame, name: str, measure: str) -> pd.Series:
    return table[(table["condition"] == name) & (table["measure"] == measure)].iloc[0]


def test_measures_of_known_curves() -> None:
    frequent = robustness.frequent_values(distribution("natural", SHIFTS))
    assert frequent == (13,)
    table = robustness.summary(robustness.with_values(KNOWN), frequent, n_boot=500)
    truths = {ARMS.skewed: {"mean": (0.9 + 24 * 0.2) / 25, "worst": 0.2, "frequent": 0.9, "rare": 0.2, "gap": 0.7},
              ARMS.even: {"mean": 0.5, "worst": 0.5, "frequent": 0.5, "rare": 0.5, "gap": 0.0}}  # fmt: skip
    for name, some in truths.items():
        for measure, truth in some.items():
            line = measured(table, name, measure)
            assert line["low"] <= truth <= line["high"] and abs(line["accuracy"] - truth) < 0.07, (name, measure)


def test_the_worst_shift_is_not_too_low_for_noise_and_finds_a_real_one() -> None:
    flat = [robustness.with_values(answers({"proactive": lambda k: 0.5}, n_programs=20, seeds=1, repeats=1, draw=i)) for i in range(8)]
    lowest = np.mean([some.groupby("value")["correct"].mean().min() for some in flat])
    worst = np.mean([measured(robustness.summary(some, (13,), n_boot=1), "proactive", "worst")["accuracy"] for some in flat])
    assert lowest < 0.35 and abs(worst - 0.5) < 0.12, "the plain minimum of 25 accuracies of 20 answers lies far below the truth of 0.5"
    dip = robustness.with_values(answers({"proactive": lambda k: 0.1 if k == 7 else 0.6}))
    line = measured(robustness.summary(dip, (13,), n_boot=10), "proactive", "worst")
    assert line["worst_at"] == 7 and line["accuracy"] < 0.2


def test_summary_does_not_hang_on_the_order_of_rows_and_counts_each_shift_alike() -> None:
    table = robustness.summary(robustness.with_values(KNOWN), (13,), n_boot=50)
    shuffled = KNOWN.sample(frac=1, random_state=1).sort_values("condition", kind="stable", ascending=True)
    pd.testing.assert_frame_equal(robustness.summary(robustness.with_values(shuffled), (13,), n_boot=50), table)
    more = pd.concat([KNOWN, KNOWN[KNOWN["input"].str.contains("13")].assign(input="'EGG', 13")], ignore_index=True)
    mean = measured(robustness.summary(robustness.with_values(more), (13,), n_boot=5), ARMS.skewed, "mean")["accuracy"]
    assert mean == pytest.approx(measured(table, ARMS.skewed, "mean")["accuracy"]), "ROT13 asked more often weighs no more"


def test_numbers_have_bins_and_a_side_without_answers_is_left_out() -> None:
    rows = answers({ARMS.skewed: lambda k: 0.2, ARMS.even: lambda k: 0.6})
    numbers = rows.assign(
        input=[float(re.search(r"\d+", x)[0]) + 20 for x in rows["input"]], gold="17", answer=["17" if r else None for r in rows["correct"]]
    )
    numbers = numbers.drop_duplicates(["condition", "seed", "program", "input"])
    scored = robustness.with_values(numbers, width=10)
    assert sorted(set(scored["bin"])) == [20, 30, 40] and set(scored["value"]) == {k + 20 for k in SHIFTS}
    said = {side: [verdicts.Prediction("skew hurts", ARMS.skewed, ARMS.even, "direct", "below")] for side in robustness.SIDES}
    assert list(robustness.claims(said, scored, (0, 1))["claim"]) == ["everywhere: skew hurts", "where rare: skew hurts"]
    table = robustness.summary(scored, (0, 1), n_boot=50)
    assert math.isnan(measured(table, ARMS.even, "gap")["accuracy"]) and measured(table, ARMS.even, "rare")["accuracy"] == pytest.approx(
        0.6, abs=0.05
    )
    assert "where frequent" not in robustness.headline(scored, ARMS.skewed, ARMS.even, (0, 1), mode="direct")
    demonstrated = scored.assign(
        group=scored["group"].where(~scored["value"].isin([20, 21]), "with_io")
    )  # no w/o IO question where it is frequent
    line = robustness.headline(demonstrated, ARMS.skewed, ARMS.even, (20, 21), mode="direct")
    assert "where frequent" not in line and "where rare" in line
    assert "not compared" in robustness.headline(scored.assign(group="with_io"), ARMS.skewed, ARMS.even, (20, 21), mode="direct")


def test_few_programs_have_no_interval() -> None:
    few = robustness.with_values(answers({"proactive": lambda k: 0.5}, n_programs=8, seeds=1))
    assert robustness.summary(few, (13,)).loc[:, ["low", "high"]].isna().all().all()


def test_claims_are_read_on_their_side_alone() -> None:
    said = {"where frequent": [verdicts.Prediction("skew helps", ARMS.skewed, ARMS.even, "direct", "above")],
            "where rare": [verdicts.Prediction("skew hurts", ARMS.skewed, ARMS.even, "direct", "below")],
            "everywhere": [verdicts.Prediction("source is better", "proactive", ARMS.even, "own", "above")]}  # fmt: skip
    found = robustness.claims(said, robustness.with_values(KNOWN), (13,))
    assert list(found["claim"]) == ["where frequent: skew helps", "where rare: skew hurts", "everywhere: source is better"]
    assert list(found["verdict"]) == ["above", "below", "not run"] and list(found["came_true"]) == ["yes", "yes", "-"]
    assert found["n"].tolist()[:2] == [60 * 2 * 2, 24 * 60 * 2 * 2]
    line = robustness.headline(robustness.with_values(KNOWN), ARMS.skewed, ARMS.even, (13,), mode="direct")
    assert re.search(r"where frequent \+(3|4)\d points", line) and re.search(r"where rare −(29|30|31) points", line)


def test_letters_are_scored_in_their_place() -> None:
    right = robustness.letters_right
    assert (right("XYZ", "XYZ"), right("YZX", "XYZ"), right("", "XYZ"), right("XYZXYZ", "XYZ"), right(None, "XYZ")) == (1, 0, 0, 0.5, 0)
    scored = robustness.with_values(KNOWN)
    assert scored.loc[scored["correct"], "letters"].eq(1).all() and scored.loc[~scored["correct"], "letters"].eq(2 / 3).all()


@given(st.text("ABC", max_size=6), st.text("ABC", min_size=1, max_size=6))
def test_letters_agree_with_exact_match(answer: str, gold: str) -> None:
    share = robustness.letters_right(answer, gold)
    assert (
        0 <= share <= 1
        and (share == 1) == (answer == gold)
        and share == pytest.approx(robustness.letters_right(gold, answer) if answer else 0)
    )


def test_own_way_is_the_way_of_what_was_shown() -> None:
    rows = pd.concat([answers({"proactive": lambda k: 1.0}, n_programs=1, mode=mode) for mode in ("direct", "recall")]
                     + [answers({name: lambda k: 1.0}, n_programs=1, mode=mode) for mode in ("direct", "recall") for name in ARMS])  # fmt: skip
    doubled = robustness.with_own_way(rows.assign(said=rows["mode"]))
    own = doubled[doubled["mode"] == "own"].groupby("condition")["said"].unique().map(list).to_dict()
    assert own == {"proactive": ["recall"], ARMS.skewed: ["direct"], ARMS.even: ["direct"], ARMS.both: ["recall"]}


def test_frequent_values_are_the_fewest() -> None:
    assert robustness.frequent_values(distribution("uniform", range(10)), 0.8) == tuple(range(8))
    assert robustness.frequent_values(distribution("zipf", range(50)))[0] == 0 and robustness.frequent_values(
        distribution("natural", SHIFTS), 0.9
    ) == (1, 3, 13)


# ---------------------------------------------------------------- the crossing

COUNTS = (1, 4, 16, 64)


def constant(rate: float):
    return lambda _: rate


def curve(level: float, rates: dict[int, float], n_programs: int = 150) -> pd.DataFrame:
    chances = {"proactive": lambda k: level} | {f"io_only({k}, uniform)": constant(rate) for k, rate in rates.items()}
    return robustness.with_values(answers(chances, n_programs=n_programs, repeats=1))


@pytest.mark.parametrize(("level", "truth"), [(0.2, 4.0), (0.4, 16.0), (0.3, 8.0), (0.1, 2.0), (0.55, 45.25)])
def test_a_known_crossing_lies_in_its_interval(level: float, truth: float) -> None:
    rows = curve(level, {1: 0.0, 4: 0.2, 16: 0.4, 64: 0.6})
    line = crossing.worth(rows, COUNTS, modes=["direct"], n_boot=500).iloc[0]
    # One draw may lie at the end of a 95 % interval.
    assert line["low"] / 1.1 <= truth <= 1.1 * line["high"] and abs(math.log2(line["pairs"] / truth)) < 0.5
    assert line["n"] == 150 * 2 * 25 and (line["n_programs"], line["n_seeds"]) == (150, 2)


def test_no_crossing_is_said_and_not_made_up() -> None:
    rates = {1: 0.1, 4: 0.2, 16: 0.3, 64: 0.4}
    above = crossing.worth(curve(0.8, rates), COUNTS, modes=["direct"], n_boot=200).iloc[0]
    below = crossing.worth(curve(0.02, rates), COUNTS, modes=["direct"], n_boot=200).iloc[0]
    assert above["said"] == "more than 64 (95 % interval: more than 64 to more than 64)" and below["pairs"] == -math.inf
    assert below["said"].startswith("less than 1 ")
    edge = crossing.worth(curve(0.39, rates, n_programs=40), COUNTS, modes=["direct"], n_boot=200).iloc[0]
    assert edge["low"] < 64 and edge["high"] == math.inf and edge["said"].endswith("to more than 64)"), "an interval may be open"


def test_a_curve_that_dips_crosses_once() -> None:
    found = crossing.crossing([1, 2, 4, 8], np.array([[0.0, 0.4, 0.2, 0.6]]), np.array([0.35]))
    assert 2 < found[0] < 8, "the first noisy point above the level is not the crossing"
    assert crossing.crossing([1, 2], np.array([[0.3, 0.5]]), np.array([0.3]))[0] == 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=7), st.floats(0, 1), st.floats(0, 0.5))
def test_a_higher_level_takes_no_fewer_pairs(points: list[float], level: float, more: float) -> None:
    counts = [2**i for i in range(len(points))]
    low, high = crossing.crossing(counts, np.array([points, points]), np.array([level, level + more]))
    assert low <= high and (math.isinf(low) or 1 <= low <= counts[-1])


def test_worth_needs_the_same_questions() -> None:
    rows = curve(0.3, {1: 0.1, 4: 0.2, 16: 0.3, 64: 0.4}, n_programs=20)
    gone = rows[(rows["condition"] != "proactive") | (rows["program"] != "p3")]
    with pytest.raises(UsageError, match="not asked the same questions"):
        crossing.worth(gone, COUNTS, modes=["direct"])
    with pytest.raises(UsageError, match="not asked the same questions"):
        crossing.worth(rows, COUNTS, modes=["recall"])


def test_a_source_that_is_not_above_the_floor_has_no_worth() -> None:
    rows = curve(0.02, {1: 0.0, 4: 0.01, 16: 0.01, 64: 0.01}).assign(mode="own")
    below, above = (crossing.worth(rows, COUNTS, modes=["own"], floor=floor, n_boot=100) for floor in (0.05, 0.001))
    spent = pd.DataFrame([{"condition": "io_only(64, uniform)", "different pairs": 51.6}])
    known = pd.DataFrame([{"condition": "io_only(64, uniform)", "shown": 0.082}])
    assert (
        "worth no number of examples" in crossing.headline(below, COUNTS, 0.05, spent, 0.01, known)
        and below["said"][0] == "nothing: not above the floor"
    )
    said = crossing.headline(above, COUNTS, 0.001, spent, 0.01, known)
    assert "one source is worth" in said and "64 pairs are 52 different ones and answer 1 %, of the pairs that were shown 8 %" in said
    few = curve(0.1, {1: 0.0, 4: 0.01, 16: 0.01, 64: 0.01}, n_programs=24).assign(mode="own")
    at = float(few.loc[few["condition"] == "proactive", "correct"].mean())
    told = crossing.worth(few, COUNTS, modes=["own"], floor=0.8 * at, n_boot=200)["said"][0]
    assert told == "nothing: not above the floor", "above it, but not with the whole interval"


def test_what_stage_1_costs_is_paid_back_where_pairs_cost_more_than_a_source() -> None:
    spent = pd.DataFrame(
        [{"condition": "proactive", "tokens of a program": 100.0, "tokens of stage 1": 9000, "different pairs": 0}]
        + [
            {"condition": f"io_only({k}, uniform)", "tokens of a program": 5.0 * k, "tokens of stage 1": 9000, "different pairs": k}
            for k in COUNTS
        ]
    )
    worth = {pairs: pd.DataFrame([{"mode": "own", "pairs": pairs}]) for pairs in (40.0, 10.0, math.inf, -math.inf, math.nan)}
    said = {pairs: crossing.with_stage1(spent, table, COUNTS, beats_alone=True) for pairs, table in worth.items()}
    assert "no payback is claimed" in crossing.with_stage1(spent, worth[40.0], COUNTS, beats_alone=False)
    repeated = spent.assign(**{"tokens of a program": spent["tokens of a program"] / 2, "different pairs": spent["different pairs"] / 2})
    half = crossing.with_stage1(repeated.replace({"tokens of a program": {50.0: 100.0}}), worth[math.inf], COUNTS, beats_alone=True)
    assert "saves 60 tokens or more" in half, "32 different pairs of 5 tokens, less a source"
    assert "saves 100 tokens" in said[40.0] and "after at most 90 programs" in said[40.0]
    assert "no saving is shown" in said[10.0] and "at most 41 programs" in said[math.inf] and "never paid back" in said[-math.inf]
    assert "not above the floor" in [text for pairs, text in said.items() if math.isnan(pairs)][0]


def test_costs_are_those_of_the_documents() -> None:
    plan, counts = efficient(profile="smoke")
    spent = crossing.costs(plan, counts).set_index("condition")
    source, most, alone = (spent.loc[name] for name in ("proactive", f"io_only({counts[-1]}, uniform)", f"io_alone({counts[-1]}, uniform)"))
    assert source["stage 1"] == most["stage 1"] == plan.budget.stage1_documents and alone["stage 1"] == 0
    assert alone["stage 2"] == plan.budget.stage1_documents + plan.budget.stage2_documents and source["stage 2"] == most["stage 2"]
    assert 0 < most["different pairs"] <= counts[-1] and source["different pairs"] == 0
    assert source["tokens of stage 1"] == most["tokens of stage 1"] > 0 == alone["tokens of stage 1"]
    assert source["with stage 1"] == pytest.approx(source["tokens of a program"] + source["tokens of stage 1"] / plan.n_without_io)
    fewest = spent.loc[f"io_only({counts[0]}, uniform)"]
    shown = exposures(condition(f"io_only({counts[0]}, uniform)").stages[-1], plan.budget.stage2_documents, plan.n_without_io)
    assert source["times each"] == pytest.approx(shown, rel=0.2) and fewest["times each"] == pytest.approx(shown, rel=0.2)
    assert most["times each"] == pytest.approx(shown / most["different pairs"], rel=0.2), "more pairs are each shown less often"


def test_pairs_that_were_shown_are_asked_beside_held_out_ones() -> None:
    plan, counts = efficient(profile="smoke")
    dataset, spec = plan.dataset(0), condition(f"io_only({counts[-1]}, uniform)").stages[-1]
    asked = [questions.questions(plan, dataset, ("direct",), last=last) for last in (None, condition("proactive").stages[-1], spec)]
    without, source, beside = (list(some) for some in asked)
    assert without == source == beside[:-1]
    drawn = pairs(spec, dataset)
    assert {e.group for e in beside[-1]} == {questions.SHOWN} and {e.kind for e in beside[-1]} == {"direct"}
    assert {e.program for e in beside[-1]} == {p.name for p in dataset.without_io}
    for e in beside[-1]:
        assert e.input in drawn[e.program] and e.input not in dataset.eval_inputs
    assert len({(e.program, e.input) for e in beside[-1]}) == len(beside[-1])


def test_whether_pairs_were_learned_is_told_beside_what_was_held_out() -> None:
    rows = curve(0.3, dict.fromkeys(COUNTS, 0.2))
    shown = curve(0.3, dict.fromkeys(COUNTS, 0.9)).assign(group="shown")
    table = statistics.results(robustness.with_values(pd.concat([rows, shown[shown["condition"] != "proactive"]])))
    spent = pd.DataFrame(
        {"condition": ["proactive", *(f"io_only({k}, uniform)" for k in COUNTS)], "different pairs": [0, *COUNTS], "times each": 8.0}
    )
    found = crossing.learned(table, spent)
    assert found["condition"].tolist() == [f"io_only({k}, uniform)" for k in COUNTS]
    assert (found["shown"] > 0.75).all() and (found["held_out"] < 0.35).all()
    assert ((found["shown_low"] < found["shown"]) & (found["shown"] < found["shown_high"])).all()


# ---------------------------------------------------------------- figures, labels and the panel


def drawn(figure) -> str:
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    return " ".join(" ".join(texts).split())


def test_figures_say_n_interval_floor_and_ceiling() -> None:
    rows = pd.concat(
        [KNOWN, answers({"in_context": lambda k: 0.95, "proactive": lambda k: 0.7}), curve(0.3, {1: 0.1, 4: 0.4}).assign(group="with_io")]
    )
    scored = robustness.with_values(rows)
    by_value = robustness.by_value(scored)
    assert by_value["bin"].nunique() == 25
    said = drawn(plots_demonstrations.heat_map(by_value, (13,), modes=["direct"], floor=0.03))
    assert "n = 240 answers over 60 programs" in said and "Floor over all: 3 %" in said and "64 I/O pairs, natural" in said and "▲" in said
    said = drawn(plots_demonstrations.measures(robustness.summary(scored, (13,), n_boot=50), modes=["direct"], floor=0.03))
    assert "95 % bootstrap interval" in said and "floor (3 %)" in said and "ceiling: source in context" in said
    table = statistics.results(
        robustness.with_values(pd.concat([answers({"in_context": lambda k: 0.9}), curve(0.3, dict.fromkeys(COUNTS, 0.2))]))
    )
    said = drawn(plots_demonstrations.accuracy_by_pairs(table, COUNTS, modes=["direct"]))
    assert "source after stage 1, no pair" in said and "95 % interval over programs" in said and "ceiling" in said
    with pytest.raises(UsageError, match="no answers in modes"):
        plots_demonstrations.heat_map(by_value, (13,), modes=["recall"])


def test_conditions_with_pairs_have_words_colours_and_markers_of_their_own() -> None:
    names = [*ARMS, "io_alone(64, uniform)", "proactive", "in_context"]
    assert len({labels.colour(name) for name in names}) == len(names) and len({labels.label(name) for name in names}) == len(names)
    assert labels.in_order(["io_only(16, zipf)", "io_only(8, zipf)", "proactive"]) == ["proactive", "io_only(8, zipf)", "io_only(16, zipf)"]


@pytest.mark.parametrize("kind", ["ciphers", "arithmetic"])
def test_the_panel_draws_what_is_chosen_and_stands_still_in_a_page(kind: str) -> None:
    plan, arms = robust(profile="smoke", family=kind)
    said = [
        verdicts.Prediction("skew helps", arms.skewed, "proactive", "direct", "above"),
        verdicts.Prediction("even", arms.even, "floor", "direct", "above"),
    ]
    panel = DistributionPanel(plan, said, demonstration_plan.SKEWED[kind])
    trained_on = condition(arms.skewed).stages[-1].distribution
    every = map(value, plan.dataset(0).train_inputs + plan.dataset(0).eval_inputs)
    assert panel.stated() == distribution(trained_on, every), "what is shown is what training draws from"
    assert len(panel.drawn()) == 64 and set(panel.drawn()) <= set(plan.dataset(0).train_inputs) and "skew helps" in panel.shown.value
    before = panel.drawn()
    panel.again.click()
    assert panel.drawn() != before
    panel.distribution.value, panel.count.value = "uniform", 512
    assert len({value(x) for x in panel.drawn()}) > 20 and "skew helps" not in panel.shown.value and "even" in panel.shown.value
    program = plan.dataset(0).without_io[0]
    assert str(program.run(panel.drawn()[0])) in panel.shown.value
    bundle = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and markup.external_loads(bundle["text/html"]) == []
    assert "512 pairs of one program" in markup.sanitise(bundle["text/html"])


# ---------------------------------------------------------------- what is there before the run


@pytest.mark.parametrize("kind", ["ciphers", "arithmetic"])
def test_every_condition_is_asked_the_same_and_floors_are_shares(kind: str) -> None:
    plan, _ = robust(profile="smoke", family=kind)
    asked = calls_asked(plan, plan.dataset(0))
    assert len(asked["without_io"]) == plan.n_without_io * plan.inputs_per_program
    assert floors(plan)["accuracy"].between(0, 1).all() and {"direct", "cot", "recall"} <= set(modes_of(plan.conditions[-1]))


def test_predictions_stand_before_training() -> None:
    for name in ("06_io_distribution", "07_sample_efficiency"):
        cells = json.loads((Path(__file__).parents[1] / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        ids = [cell["id"] for cell in cells]
        assert ids.index("prediction") < ids.index("leaks") < ids.index("training") < ids.index("outcomes")
