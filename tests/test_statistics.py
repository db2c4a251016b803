"""The intervals against known answers and simulated coverage; the floors, pairs, completeness and sentences against tables made by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from pbb_helpers.analysis import findings, intervals, statistics
from pbb_helpers.programs import UsageError


def rows_of(
    condition: str, right: dict[tuple[int, str], list[int]], *, mode: str = "cot", group: str = "without_io", **more: object
) -> pd.DataFrame:
    """One row per answer: `right` maps (seed, program) to the verdicts at inputs 0, 1, ..."""
    rows = [
        {"condition": condition, "mode": mode, "group": group, "seed": seed, "program": program, "input": x, "gold": str(x + 1),
         "answer": str(x + 1) if verdict else "0", "correct": bool(verdict), "generated": "", "prompt": f"{program}({x})", "length": 1, **more}
        for (seed, program), verdicts in right.items() for x, verdict in enumerate(verdicts)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def programs(n: int, k: int, seed: int = 0) -> dict[tuple[int, str], list[int]]:
    """`n` programs with one answer each, the first `k` right."""
    return {(seed, f"p{i:03}"): [int(i < k)] for i in range(n)}


def line(table: pd.DataFrame, seed: str = "all") -> pd.Series:
    (found,) = (row for _, row in table[table["seed"] == seed].iterrows())
    return found


# --- closed forms -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("df", "expected"), [(1, 12.7062), (4, 2.7764), (9, 2.2622), (11, 2.2010), (15, 2.1314), (20, 2.0860), (30, 2.0423), (100, 1.9840)]
)
def test_t_quantile_is_that_of_the_printed_tables(df: int, expected: float) -> None:
    assert intervals.t_quantile(df) == pytest.approx(expected, abs=1e-4)


def test_wilson_is_that_of_the_literature() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 857, table I: 81/263, 15/148, 0/20, 1/29.
    for k, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]:
        assert intervals.wilson(k / n, n) == pytest.approx((low, high), abs=1e-4)


def test_newcombe_is_that_of_the_literature() -> None:
    # Independent samples, Newcombe 1998, Statistics in Medicine 17, 873, table II, method 10: 9/10 against 3/10, and 10/10 against 0/10.
    assert intervals.newcombe(0.9, 0.3, 0.27, 10) == pytest.approx((0.1705, 0.8090), abs=1e-4)
    assert intervals.newcombe(1.0, 0.0, 0.0, 10) == pytest.approx((0.6075, 1.0), abs=1e-4)
    # Paired, Newcombe 1998, Statistics in Medicine 17, 2635, table III, method 10: of 50 units 20 in both, 12 and 2 in one of them, 16 in neither.
    # Without the correction of phi, method 8, it would be 0.0618 to 0.3242.
    assert intervals.newcombe(32 / 50, 22 / 50, 20 / 50, 50) == pytest.approx((0.0562, 0.3292), abs=1e-4)


def test_t_interval_by_hand_and_without_a_spread() -> None:
    assert intervals.t_interval([0.4, 0.5, 0.6]) == pytest.approx(
        (0.5 - 4.302653 * 0.1 / math.sqrt(3), 0.5 + 4.302653 * 0.1 / math.sqrt(3))
    )
    assert all(math.isnan(x) for x in (*intervals.t_interval([0.4]), *intervals.t_interval([0.4, 0.4, 0.4])))


# --- coverage: what a 95 % interval must do ---------------------------------------------------------------------------------------------


def coverage(
    n_programs: int, n_seeds: int, n_inputs: int, p: float, correlation: float, *, crossed: bool = True, bootstrap_only: bool = False
) -> float:
    """The share of 600 simulated experiments whose interval (400 draws) holds the true accuracy `p`; seed 0.

    A program's own chance of a right answer is Beta with mean p; `correlation` is that between two answers of a program.
    """
    rng, hits = np.random.default_rng(0), 0
    for _ in range(600):
        a, b = (p * (1 - correlation) / correlation, (1 - p) * (1 - correlation) / correlation) if correlation else (0.0, 0.0)
        chance = rng.beta(a, b, n_programs) if correlation else np.full(n_programs, p)
        counts = np.full((n_programs, n_seeds), float(n_inputs))
        if not crossed:  # each program belongs to one seed
            counts *= np.arange(n_programs)[:, None] % n_seeds == np.arange(n_seeds)
        totals = rng.binomial(counts.astype(int), chance[:, None]).astype(float)
        if bootstrap_only:
            draws = (intervals.bootstrap_weights(n_programs, 400, 0) @ totals / n_programs / n_inputs).mean(axis=1)
            low, high = np.quantile(draws, [0.025, 0.975])
        else:
            low, high, _ = intervals.share_interval(totals, counts, n_boot=400, seed=0)
        hits += low <= p <= high
    return hits / 600


@pytest.mark.parametrize("case", [
    dict(n_programs=80, n_seeds=1, n_inputs=1, p=0.5, correlation=0.0),
    dict(n_programs=80, n_seeds=2, n_inputs=1, p=0.7, correlation=0.4),
    dict(n_programs=80, n_seeds=2, n_inputs=1, p=0.7, correlation=0.4, crossed=False),
    dict(n_programs=80, n_seeds=5, n_inputs=3, p=0.7, correlation=0.4),
    dict(n_programs=30, n_seeds=1, n_inputs=4, p=0.5, correlation=0.3),
    dict(n_programs=80, n_seeds=1, n_inputs=1, p=0.985, correlation=0.0),
    dict(n_programs=80, n_seeds=2, n_inputs=1, p=0.02, correlation=0.3),
    dict(n_programs=10, n_seeds=1, n_inputs=1, p=0.5, correlation=0.0),
], ids=str)  # fmt: skip
def test_coverage_of_accuracy_is_near_95_percent(case: dict) -> None:
    # Monte Carlo error of 600 experiments at 0.95: standard error 0.009. Too wide is allowed where the fallback is meant to be careful.
    assert coverage(**case) > 0.92


def test_the_fallback_is_needed() -> None:
    """The plain bootstrap at 98.5 % accuracy holds the truth in two experiments of three: most draws of 80 programs hold no wrong one."""
    assert coverage(80, 1, 1, 0.985, 0.0, bootstrap_only=True) < 0.75


def test_answers_of_one_program_are_not_counted_as_independent() -> None:
    """Twenty answers of each of 40 programs, all alike: the interval is that of 40 programs, not of 800 answers."""
    table = statistics.results(rows_of("proactive", {(0, f"p{i}"): [i % 2] * 20 for i in range(40)}))
    width = line(table)["high"] - line(table)["low"]
    assert width == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 40), rel=0.12)
    assert line(table)["n"] == 800 and line(table)["n_programs"] == 40


def test_the_same_program_in_two_seeds_is_one_cluster_but_a_reused_name_is_not() -> None:
    same = rows_of("proactive", {(s, f"p{i}"): [i % 2] for s in (0, 1) for i in range(40)})
    reused = same.assign(gold=[f"{g}{s}" for g, s in zip(same["gold"], same["seed"], strict=True)])
    once, twice = line(statistics.results(same)), line(statistics.results(reused))
    assert (once["n_programs"], twice["n_programs"]) == (40, 80)
    assert twice["high"] - twice["low"] == pytest.approx((once["high"] - once["low"]) / math.sqrt(2), rel=0.12)


@pytest.mark.parametrize("n", [15, 60])
def test_coverage_of_paired_differences_where_few_programs_differ(n: int) -> None:
    """Where resampling degenerates: answers that agree but for one in twenty, in programs that may be too few as well."""
    rng, hits, narrower, tries = np.random.default_rng(2), 0, 0, 400
    for _ in range(tries):
        a = rng.binomial(1, 0.6, n)
        b = np.where(rng.random(n) < 0.05, 0, a)
        means = {"a": a.mean(), "b": b.mean(), "both": (a * b).mean()}
        totals = (a - b)[:, None].astype(float)
        interval = intervals.difference_interval(totals, np.ones((n, 1)), **means, n_boot=100, seed=0)
        if interval.kind == "newcombe":
            low, high = intervals.newcombe(a.mean(), b.mean(), a.mean() * b.mean(), n)
            narrower += interval.high - interval.low < 0.7 * (high - low)
        else:
            tries -= 1
            continue
        hits += interval.low <= 0.03 <= interval.high
    assert tries > 300 and 0.94 < hits / tries and narrower > 0.9 * tries


def test_coverage_of_paired_differences() -> None:
    rng, hits = np.random.default_rng(1), 0
    for _ in range(400):
        chance = rng.beta(2, 2, 60)
        a, b = rng.binomial(1, chance), rng.binomial(1, 0.8 * chance)
        interval = intervals.difference_interval(
            (a - b)[:, None].astype(float), np.ones((60, 1)), a=a.mean(), b=b.mean(), both=(a * b).mean(), n_boot=400, seed=0
        )
        hits += interval.low <= 0.1 <= interval.high
    assert 0.92 < hits / 400 < 0.98


# --- results ----------------------------------------------------------------------------------------------------------------------------


def test_bootstrap_of_a_proportion_agrees_with_the_closed_form() -> None:
    found = line(statistics.results(rows_of("proactive", programs(200, 80)), n_boot=4000))
    assert found["interval"] == "bootstrap"
    assert (found["low"], found["high"]) == pytest.approx(
        (0.4 - 1.96 * math.sqrt(0.24 / 200), 0.4 + 1.96 * math.sqrt(0.24 / 200)), abs=0.012
    )


@pytest.mark.parametrize(("k", "kind"), [(80, "wilson"), (0, "wilson"), (76, "wilson"), (75, "bootstrap"), (5, "bootstrap")])
def test_an_interval_is_never_a_point_where_all_is_right_or_wrong(k: int, kind: str) -> None:
    found = line(statistics.results(rows_of("proactive", programs(80, k))))
    assert found["interval"] == kind and found["low"] < found["high"]
    if k == 80:
        assert (found["low"], found["high"]) == pytest.approx((0.9542, 1.0), abs=1e-4)


def test_one_program_and_one_seed_have_no_interval() -> None:
    found = line(statistics.results(rows_of("proactive", {(0, "p"): [1, 0, 1]})))
    assert found["interval"] == "none" and found["accuracy"] == pytest.approx(2 / 3)
    assert all(math.isnan(found[column]) for column in ("low", "high", "seed_low", "seed_high"))


def test_all_is_the_mean_of_the_seeds_means_with_a_t_interval_over_seeds() -> None:
    uneven = rows_of("proactive", {**programs(40, 20, seed=0), **programs(20, 18, seed=1)})
    table = statistics.results(uneven)
    assert line(table)["accuracy"] == pytest.approx((0.5 + 0.9) / 2)
    assert line(table, "1")["accuracy"] == pytest.approx(0.9) and line(table, "1")["n_programs"] == 20
    assert (line(table)["seed_low"], line(table)["seed_high"]) == (0.0, 1.0)  # two seeds, 12.7 standard errors, cut to what is possible
    assert line(table)["n_seeds"] == 2 and list(table["seed"]) == ["0", "1", "all"]


def test_what_cannot_be_parsed_counts_as_wrong_and_lowers_the_parse_rate() -> None:
    rows = rows_of("proactive", programs(40, 20))
    rows.loc[30:, "answer"] = None
    assert line(statistics.results(rows))["parse_rate"] == pytest.approx(0.75) and line(statistics.results(rows))[
        "accuracy"
    ] == pytest.approx(0.5)


def test_results_do_not_depend_on_row_order_other_cells_or_a_journey_through_a_file(tmp_path) -> None:
    rows = pd.concat(
        [rows_of(c, {(s, f"p{i}"): [(i * 7 + s + len(c)) % 3 == 0] for s in (0, 1) for i in range(50)}) for c in ("base", "proactive")]
    )
    table = statistics.results(rows)
    pd.testing.assert_frame_equal(table, statistics.results(rows.sample(frac=1, random_state=1)))
    alone = statistics.results(rows[rows["condition"] == "proactive"])
    pd.testing.assert_frame_equal(table[table["condition"] == "proactive"].reset_index(drop=True), alone)
    rows.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    pd.testing.assert_frame_equal(
        table, statistics.results(pd.read_json(tmp_path / "rows.jsonl", lines=True, dtype={"answer": str, "gold": str}))
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    assert list(pd.read_csv(tmp_path / "table.csv")["seed"]) == list(table["seed"])


def test_seeds_are_in_the_order_of_numbers() -> None:
    table = statistics.results(rows_of("proactive", {(s, f"p{i}"): [i % 2] for s in (10, 2, 1) for i in range(4)}))
    assert list(table["seed"]) == ["1", "2", "10", "all"]


def test_results_by_length() -> None:
    rows = pd.concat([rows_of("proactive", programs(30, 30)), rows_of("proactive", programs(30, 0)).assign(length=2)])
    table = statistics.results(rows, by=[*statistics.CELL, "length"])
    assert dict(zip(table["length"], table["accuracy"], strict=True)) == {1: 1.0, 2: 0.0}


@pytest.mark.parametrize(("change", "message"), [
    (lambda r: r.drop(columns="gold"), "gold is missing"), (lambda r: r.iloc[:0], "at least one row"),
    (lambda r: r.assign(seed=None), "no seed"), (lambda r: r.assign(correct=None), "no correct"),
])  # fmt: skip
def test_bad_rows_are_refused_in_one_line(change, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        statistics.results(change(rows_of("proactive", programs(4, 2))))
    assert "\n" not in str(caught.value)


# --- floors -----------------------------------------------------------------------------------------------------------------------------


def pairs(rows: list[tuple[int, str, int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["seed", "program", "input", "gold"]).assign(gold=lambda f: f["gold"].astype(str))


def test_floors_by_hand() -> None:
    train = pairs([(0, "a", 1, 9), (0, "b", 1, 9), (0, "c", 1, 1), (0, "a", 2, 2), (0, "b", 2, 2), (0, "c", 2, 9)])
    asked = pairs([(0, "x", 1, 9), (0, "y", 1, 1), (0, "x", 2, 2), (0, "y", 2, 2)])
    table = statistics.floors(train, asked)
    found = table[table["seed"] == "all"].set_index("floor")["accuracy"].to_dict()
    assert found == {"best constant": 0.25, "identity": 0.75, "best answer given the input": 0.75}
    assert statistics.highest_floor(table)[1] == 0.75
    by_length = statistics.floors(train, asked.assign(length=[1, 2, 1, 2]), by=["length"])
    assert by_length.query("seed == 'all' and floor == 'identity'")["accuracy"].tolist() == [0.5, 1.0]


def test_floors_are_fitted_on_the_programs_with_io_alone_and_ties_go_to_the_smallest_magnitude() -> None:
    train, asked = pairs([(0, "a", 1, -7), (0, "b", 1, 7), (0, "c", 1, 3)]), pairs([(0, "x", 1, 5), (0, "y", 1, 5), (0, "z", 1, 3)])
    table = statistics.floors(train, asked)
    assert table[table["floor"] == "best answer given the input"]["accuracy"].tolist() == pytest.approx([1 / 3, 1 / 3])


def test_an_input_without_answers_has_no_floor() -> None:
    with pytest.raises(UsageError, match=r"inputs \[4\] in seed 0"):
        statistics.floors(pairs([(0, "a", 1, 1)]), pairs([(0, "x", 4, 1)]))


# --- paired differences -----------------------------------------------------------------------------------------------------------------


def test_a_paired_difference_is_narrower_than_two_separate_intervals_and_known() -> None:
    a = rows_of("proactive", {(0, f"p{i}"): [int(i % 2 == 0 or i < 20)] for i in range(100)})
    b = rows_of("stage1_only", {(0, f"p{i}"): [int(i % 2 == 0)] for i in range(100)})
    found = statistics.difference(pd.concat([a, b]), "proactive", "stage1_only", mode="cot", group="without_io", n_boot=4000)
    assert found.mean == pytest.approx(0.1) and found.apart and found.interval == "bootstrap"
    assert (found.low, found.high) == pytest.approx((0.1 - 1.96 * 0.03, 0.1 + 1.96 * 0.03), abs=0.012)
    assert math.isnan(found.seed_low) and found.n_seeds == 1 and found.n == 100


def test_no_difference_at_all_is_not_a_certain_zero_and_a_total_one_is_not_a_certain_one() -> None:
    same = pd.concat([rows_of(c, programs(80, 80)) for c in ("proactive", "mixture")])
    zero = statistics.difference(same, "proactive", "mixture", mode="cot", group="without_io")
    assert zero.mean == 0 and zero.low < 0 < zero.high and not zero.apart and zero.interval == "newcombe"
    total = pd.concat([rows_of("proactive", programs(80, 80)), rows_of("source_only", programs(80, 0))])
    one = statistics.difference(total, "proactive", "source_only", mode="cot", group="without_io")
    assert one.mean == 1 and 0.9 < one.low < 1 and one.high == 1 and one.apart


def test_seeds_that_disagree_in_sign_are_not_apart() -> None:
    a = rows_of("proactive", {**programs(100, 90, seed=0), **programs(100, 49, seed=1)})
    b = rows_of("mixture", {**programs(100, 40, seed=0), **programs(100, 50, seed=1)})
    found = statistics.difference(pd.concat([a, b]), "proactive", "mixture", mode="cot", group="without_io")
    assert found.low > 0 and found.seed_means == pytest.approx((0.5, -0.01)) and not found.apart


def test_different_questions_and_missing_conditions_are_refused() -> None:
    rows = pd.concat([rows_of("proactive", programs(10, 5)), rows_of("mixture", programs(12, 5))])
    with pytest.raises(UsageError, match="0 only of the first, 2 only of the second"):
        statistics.difference(rows, "proactive", "mixture", mode="cot", group="without_io")
    with pytest.raises(UsageError, match="no answers of condition 'base'"):
        statistics.difference(rows, "proactive", "base", mode="cot", group="without_io")


def test_an_untrained_condition_that_ran_once_is_paired_with_every_seed() -> None:
    rows = pd.concat(
        [rows_of("proactive", {**programs(40, 30, seed=0), **programs(40, 20, seed=1)}), rows_of("base", programs(40, 10, seed=0))]
    )
    found = statistics.difference(rows, "proactive", "base", mode="cot", group="without_io")
    assert found.seed_means == pytest.approx((0.5, 0.25)) and found.n_programs == 40 and found.n == 80
    with pytest.raises(UsageError, match="same questions"):
        statistics.difference(rows.replace({"condition": {"base": "mixture"}}), "proactive", "mixture", mode="cot", group="without_io")


# --- which half failed, completeness ----------------------------------------------------------------------------------------------------


def test_failures_judge_the_source_in_the_answer_itself() -> None:
    text = "def p(x):\n    x = x + 1\n    return x"
    written = [f"{text}\nreturn 1", f"{text}\nreturn 5", "def p(x):\n    return x\nreturn 5", "def p(x):\n    return x + 1\nreturn 4"]
    recall = rows_of("proactive", {(0, f"p{i}"): [int(i in (0, 3))] for i in range(4)}, mode="recall").assign(generated=written)
    source = rows_of("proactive", {(0, f"p{i}"): [1] for i in range(4)}, mode="source").assign(gold=text, input=None)
    found = statistics.failures(pd.concat([recall, source])).query("seed == 'all'").set_index("outcome")["n"]
    assert found.to_dict() == dict.fromkeys(statistics.OUTCOMES, 1)
    assert statistics.failures(recall).empty


def complete() -> pd.DataFrame:
    return pd.concat(
        [rows_of(c, {(s, p): [1, 0] for s in (0, 1) for p in "ab"}, mode=m) for c in ("base", "proactive") for m in ("cot", "direct")]
    )


WANTED = {"conditions": ["base", "proactive"], "seeds": [0, 1], "modes": ["cot", "direct"], "groups": ["without_io"]}


def test_a_complete_table_passes_and_modes_may_differ_by_condition() -> None:
    statistics.require_complete(complete(), **WANTED)
    rows = complete()
    some = rows[~((rows["condition"] == "base") & (rows["mode"] == "direct"))]
    statistics.require_complete(some, **{**WANTED, "modes": {"base": ["cot"], "proactive": ["cot", "direct"]}})


@pytest.mark.parametrize(("change", "message"), [
    (lambda r: r[~((r["condition"] == "base") & (r["mode"] == "direct") & (r["seed"] == 1))], "missing.* base/direct/without_io/1"),
    (lambda r: pd.concat([r, r.iloc[:1]]), "duplicated answers in 1 places: base/cot/without_io/0/a/0"),
    (lambda r: r.iloc[1:], "incomplete.*base/cot/without_io/0"),
])  # fmt: skip
def test_what_is_missing_or_doubled_is_named(change, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        statistics.require_complete(change(complete()), **WANTED)


# --- words ------------------------------------------------------------------------------------------------------------------------------


def experiment(right: dict[str, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = pd.concat([rows_of(c, {**programs(80, k, seed=0), **programs(80, k, seed=1)}, mode="recall") for c, k in right.items()])
    return statistics.results(rows), rows


def test_a_gain_is_said_where_it_holds() -> None:
    table, rows = experiment({"in_context": 70, "stage1_only": 2, "source_only": 0, "shuffled_source": 3, "proactive": 57})
    floor = pd.DataFrame({"seed": ["all"], "floor": ["identity"], "n": [160], "accuracy": [0.12]})
    said = " ".join(findings.sentences(table, rows, floors=floor))
    assert "proactive answers 71 % in recall mode (95 % interval 61 to 80 %, n = 160 answers over 80 programs, 2 seeds: 71, 71 %; " in said
    assert "floor 12 %; ceiling 88 % with the source in context)" in said
    assert "It is above stage1_only (+69 points" in said and "every seed agreeing" in said and "No difference" not in said
    assert "Its interval lies above the floor of 12 % (identity)." in said
    line_ = findings.headline(table, rows, floors=floor)
    assert line_.startswith("proactive answers 71 % (61 to 80 %) of calls of w/o IO programs in recall mode; stage1_only 2 %")
    assert "clear of zero; floor 12 %; ceiling 88 %" in line_ and "\n" not in line_


def test_no_gain_is_said_where_it_does_not_hold() -> None:
    table, rows = experiment({"stage1_only": 9, "shuffled_source": 30, "proactive": 10})
    floor = pd.DataFrame({"seed": ["all"], "floor": ["identity"], "n": [160], "accuracy": [0.12]})
    said = " ".join(findings.sentences(table, rows, floors=floor))
    assert "No difference from stage1_only" in said and "It is below shuffled_source" in said and "It is above" not in said
    assert "Its interval holds the floor" in said and "source_only" not in said.replace("shuffled_source", "")
    assert "not shown above all of these" in findings.headline(table, rows)


def test_words_from_one_program_and_without_controls() -> None:
    rows = rows_of("proactive", {(0, "p"): [1]}, mode="direct")
    table = statistics.results(rows)
    assert "no interval: one program" in findings.sentences(table, rows)[0] and "no comparison" in findings.headline(table, rows)
    assert "proactive 100 % (no interval)" in findings.alt_text(table)


def test_the_control_counts_as_a_floor_in_its_own_mode() -> None:
    base = pd.DataFrame(
        [{"seed": s, "floor": f, "n": 40, "accuracy": a} for s in ("0", "all") for f, a in (("identity", 0.1), ("best constant", 0.2))]
    )
    table = statistics.results(pd.concat([
        rows_of("shuffled_source", programs(40, 12), mode="cot"),
        rows_of("shuffled_source", programs(40, 2), mode="direct"),
        rows_of("shuffled_source", programs(40, 39), mode="in_context_cot"),
        rows_of("proactive", programs(40, 40), mode="cot"),
    ]))  # fmt: skip
    floors = statistics.with_control(base, table)
    assert statistics.highest_floor(floors, "cot") == ("shuffled_source", pytest.approx(0.3))
    assert statistics.highest_floor(floors, "direct") == ("best constant", pytest.approx(0.2))
    assert not floors["mode"].str.startswith("in_context").any(), "with the right source in its prompt the control is none"
    assert statistics.highest_floor(floors) == statistics.highest_floor(base) == ("best constant", pytest.approx(0.2))


def test_a_name_that_two_seeds_drew_by_chance_is_two_programs() -> None:
    """Their golds need not differ at the inputs that happened to be asked."""
    drawn = rows_of("base", {(0, "a"): [1], (0, "b"): [0], (1, "a"): [1], (1, "c"): [0]})
    assert line(statistics.results(drawn))["n_programs"] == 4
    same = rows_of("base", {(0, "a"): [1], (0, "b"): [0], (1, "a"): [1], (1, "b"): [0]})
    assert line(statistics.results(same))["n_programs"] == 2


def test_a_contrast_says_what_is_shown_and_what_is_not() -> None:
    rows = pd.concat([
        rows_of("mixture", programs(40, 36), mode="recall"), rows_of("proactive", programs(40, 8), mode="recall"),
        rows_of("mixture", programs(40, 9), mode="cot"), rows_of("proactive", programs(40, 8), mode="cot"),
    ])  # fmt: skip
    said = findings.contrast(rows, "mixture", "proactive", modes=("recall", "cot"))
    assert said.startswith("mixture minus proactive on w/o IO programs: recall mode +70 points")
    assert said.count("(not shown)") == 1 and "n = 40 pairs over 40 programs, 1 seed" in said
    assert "not both run" in findings.contrast(rows, "mixture", "base")
