"""An answer is held against its own program and against the others, at the same input: what a model knows nothing of is right by chance alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pbb_helpers.analysis import beyond_chance
from pbb_helpers.figures import plots_traces
from pbb_helpers.programs import Program

PROGRAMS = {
    (seed, f"f{i}"): Program(f"f{i}", "arithmetic", f"def f{i}(x):\n    x = {'x % 2' if i % 4 == 0 else f'x + {i}'}\n    return x", 1)
    for seed in (0, 1, 2) for i in range(40)
}  # fmt: skip


def rows(answer, condition: str = "proactive", mode: str = "direct") -> pd.DataFrame:
    """Answers about every program on the inputs 3 and 5; `answer` takes program and input and returns a text."""
    asked = [
        {"condition": condition, "seed": seed, "group": "without_io", "mode": mode, "program": name, "input": float(x), "answer": answer(f, x),
         "correct": answer(f, x) == str(f.run(x))}
        for (seed, name), f in PROGRAMS.items() for x in (3, 5)
    ]  # fmt: skip
    return pd.DataFrame(asked)


def one(answer) -> pd.Series:
    table = beyond_chance.right(rows(answer), PROGRAMS)
    assert len(table) == 1
    return table.iloc[0]


def test_what_is_right_for_every_program_of_a_kind_is_right_by_chance() -> None:
    """The best answer given the input alone: a floor of a quarter, and nothing of any program."""
    line = one(lambda f, x: str(x % 2))
    assert (line["n"], line["n_programs"], line["n_seeds"]) == (240, 120, 3)
    assert line["share"] == pytest.approx(10 / 40)
    assert line["chance"] == pytest.approx((10 * 9 / 39 + 30 * 10 / 39) / 40) and abs(line["excess"]) < 0.01
    assert line["low"] < 0 < line["high"]


def test_a_model_that_knows_its_programs_is_far_beyond_chance() -> None:
    line = one(lambda f, x: str(f.run(x)))
    assert line["share"] == 1.0 and line["chance"] == pytest.approx(10 / 40 * 9 / 39) and line["low"] > 0.9


def test_below_the_floor_there_may_be_knowledge() -> None:
    """A model that runs one program in eight and is wrong otherwise is below the floor of a quarter, and beyond chance in every seed."""
    line = one(lambda f, x: str(f.run(x)) if int(f.name[1:]) % 8 == 1 else "-7")
    assert line["share"] == pytest.approx(5 / 40)
    assert line["chance"] == 0.0 and line["low"] > 0 and line["seed_least"] > 0


def test_guessing_is_within_its_interval_nineteen_times_of_twenty() -> None:
    generator, outside = np.random.default_rng(0), 0
    for _ in range(60):
        line = one(lambda f, x: str(generator.integers(0, 45)))
        outside += not line["low"] <= 0 <= line["high"]
    assert outside <= 9, f"{outside} of 60 intervals hold no zero though nothing is known"


def test_an_answer_is_held_against_programs_of_its_own_seed_and_group_alone() -> None:
    both = pd.concat([rows(lambda f, x: str(x % 2)), rows(lambda f, x: str(x % 2)).assign(group="with_io")])
    some = both[
        (both["group"] == "without_io") | (both["program"] == "f1")
    ]  # of the other group one program, which no other is held against
    table = beyond_chance.right(some, PROGRAMS)
    assert list(table["group"]) == ["without_io"] and table.iloc[0]["chance"] > 0.2
    assert beyond_chance.right(some[some["mode"] == "recall"], PROGRAMS).empty


def test_answers_for_another_program_are_right_where_they_are_judged_by_that_one() -> None:
    """An arm whose names have another program's source: at chance for its own program, far beyond it for the one that it read."""
    read = {(seed, f"f{i}"): PROGRAMS[seed, f"f{(i + 1) % 40}"] for seed, name in PROGRAMS for i in [int(name[1:])]}
    answers = pd.concat(
        [rows(lambda f, x: str(PROGRAMS[0, f"f{(int(f.name[1:]) + 1) % 40}"].run(x))), rows(lambda f, x: None).assign(mode="cot")]
    )
    own, as_read = (beyond_chance.right(beyond_chance.judged_by(answers, some), some).set_index("mode") for some in (PROGRAMS, read))
    assert own.loc["direct", "share"] == 0.0, "each is right for some other program"
    assert own.loc["direct", "excess"] == -own.loc["direct", "chance"] < -1 / 40
    assert as_read.loc["direct", "share"] == 1.0 and as_read.loc["direct", "low"] > 0.9
    assert as_read.loc["cot", "share"] == 0.0 == as_read.loc["cot", "chance"], "an answer that is none is right for no program"
    pd.testing.assert_frame_equal(beyond_chance.judged_by(answers, PROGRAMS), answers)
    arms = pd.concat(
        [
            answers.assign(condition="shuffled_mixture"),
            answers.assign(condition="mixture"),
            answers.assign(condition="shuffled_source", group="with_io"),
        ]
    )
    table = beyond_chance.as_read(arms, read)
    assert set(table["condition"]) == {"shuffled_mixture"} and set(table["group"]) == {"without_io"}, "of the others nothing is said"
    assert list(table["share"]) == list(as_read["share"]) and beyond_chance.as_read(arms[arms["condition"] == "mixture"], read).empty
    asked_for_source = rows(lambda f, x: f.source).assign(mode="source", input=np.nan)
    assert len(beyond_chance.judged_by(pd.concat([answers, asked_for_source]), read)) == len(answers)


def test_claims_and_figure() -> None:
    known, guessed = rows(lambda f, x: str(f.run(x))), rows(lambda f, x: str(x % 2), "stage1_only")
    table = beyond_chance.right(pd.concat([known, guessed]), PROGRAMS)
    found = beyond_chance.claims(
        [("a", "proactive", "above"), ("b", "stage1_only", "no difference shown"), ("c", "mixture", "above")], table
    )
    assert list(found["verdict"]) == ["above", "no difference shown", "not run"] and list(found["came_true"])[0] == "yes"
    fig = plots_traces.beyond_chance(table, "right answers", chance="for another", own="for its own")
    FigureCanvasAgg(fig).draw()
    small = table[table["condition"] == "stage1_only"]
    axes = plots_traces.beyond_chance(small, "right answers", chance="for another", own="for its own").axes[0]
    assert axes.get_xlim()[1] < 0.5 and axes.get_xticklabels()[1].get_text() == "5 %"
