"""A wrong operation is held against the true one, and against what it would be by chance."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pbb_helpers.analysis import beyond_chance, near_misses, traces
from pbb_helpers.data.documents import chain_of_thought
from pbb_helpers.figures import plots_traces
from pbb_helpers.programs import Program, UsageError

BODIES = ("x + {c}", "x * {c}", "max(x, {c})", "abs(x - {c})")
PROGRAMS = {
    (seed, f"f{i}"): Program(f"f{i}", "arithmetic", f"def f{i}(x):\n    x = {BODIES[i % 4].format(c=2 + i)}\n    return x", 1)
    for seed in (0, 1) for i in range(24)
}  # fmt: skip


def errors(answer) -> pd.DataFrame:
    """Answers about every program on the inputs 3 and 5, and what is wrong in them; `answer` takes program, input and number and returns a text."""
    rows = [
        {"condition": "c", "seed": seed, "group": "without_io", "mode": "cot", "program": name, "input": float(x), "generated": answer(f, x, int(name[1:]))}
        for (seed, name), f in PROGRAMS.items() for x in (3, 5)
    ]  # fmt: skip
    return traces.first_errors(pd.DataFrame(rows), PROGRAMS)


def judged(answer) -> pd.Series:
    table = near_misses.near_misses(errors(answer), PROGRAMS)
    assert len(table) <= 1
    return table.iloc[0] if len(table) else pd.Series({"n": 0})


def test_right_forms_with_other_numbers_are_above_chance() -> None:
    line = judged(lambda f, x, i: chain_of_thought(Program(f.name, "arithmetic", f.source.replace(str(2 + i), str(40 + i)), 1), x))
    assert line["n"] == 96 and line["n_programs"] == 48
    assert line["share"] == 1.0
    assert line["chance"] == pytest.approx(5 / 23), "of the 23 other programs five have the form"
    assert line["excess"] == pytest.approx(18 / 23)


def test_one_operation_for_all_is_at_chance() -> None:
    line = judged(lambda f, x, i: f"x = {x} + 50 = {x + 50}\nreturn {x + 50}")
    assert line["n"] == 96
    assert line["share"] == pytest.approx(1 / 4)
    assert line["excess"] == pytest.approx(0, abs=0.01) and line["low"] < 0 < line["high"]


def test_the_operation_of_another_program_is_no_evidence_of_its_form() -> None:
    """An answer that is right for another program is not held against that one: for its own it is wrong by definition."""
    line = judged(lambda f, x, i: chain_of_thought(PROGRAMS[0, f"f{(i + 1) % 24}"], x))
    assert line["share"] == 0.0
    assert line["chance"] == pytest.approx(5 / 22), "six have the form, one of them is the program itself"


def test_what_is_no_wrong_operation_is_not_judged() -> None:
    assert judged(lambda f, x, i: chain_of_thought(f, x))["n"] == 0
    assert judged(lambda f, x, i: "7")["n"] == 0
    assert judged(lambda f, x, i: chain_of_thought(f, x + 1))["n"] == 0


def test_one_question_alone_cannot_be_held_against_chance() -> None:
    rows = pd.DataFrame(
        [{"condition": "c", "seed": 0, "group": "without_io", "mode": "cot", "program": "f0", "input": 3, "generated": "x = 3 - 1 = 2"}]
    )
    found = traces.first_errors(rows, PROGRAMS)
    assert found["error"].tolist() == ["wrong operation"]
    assert near_misses.near_misses(found, PROGRAMS).empty


def test_claims_need_every_seed_and_say_what_was_not_run() -> None:

    def mostly_near(f: Program, x: int, i: int) -> str:
        other = f.source.replace(str(2 + i), str(40 + i)) if i % 3 else f"def {f.name}(x):\n    x = x // {40 + i}\n    return x"
        return chain_of_thought(Program(f.name, "arithmetic", other, 1), x)

    near = errors(mostly_near)
    by_chance = errors(lambda f, x, i: f"x = {x} + 50 = {x + 50}\nreturn {x + 50}").assign(condition="d")
    right = errors(lambda f, x, i: chain_of_thought(f, x)).assign(condition="e")
    texts = [("near", "c", "above"), ("chance", "d", "no difference shown"), ("right", "e", "above"), ("absent", "z", "above")]
    found = beyond_chance.claims(texts, near_misses.near_misses(pd.concat([near, by_chance, right]), PROGRAMS)).set_index("claim")
    assert found["verdict"].to_dict() == {
        "near": "above",
        "chance": "no difference shown",
        "right": "not run",
        "absent": "not run",
    }
    assert found["came_true"].to_dict() == {"near": "yes", "chance": "open", "right": "-", "absent": "-"}
    assert found.loc["near", ["n", "n_programs", "n_seeds"]].tolist() == [96, 48, 2]
    assert found.loc["near", "low"] < found.loc["near", "effect"] == pytest.approx(2 / 3 - 0.145, abs=0.02)


def test_knowing_that_a_line_is_there_is_not_knowing_what_it_does() -> None:
    """Half of the programs have a second statement; a model that knows which, and writes what is frequent, is at chance."""
    programs = {(0, f.name): f for f in (longer(i) for i in range(24))}
    rows = []
    for (seed, name), f in programs.items():
        first, *rest = chain_of_thought(f, 3).split("\n")
        said = "\n".join([first, "x = 3 * 90 = 270", "return 270"]) if len(rest) > 1 else f"{first}\nreturn 1"
        rows.append({"condition": "c", "seed": seed, "group": "without_io", "mode": "cot", "program": name, "input": 3, "generated": said})
    line = near_misses.near_misses(traces.first_errors(pd.DataFrame(rows), programs), programs).iloc[0]
    assert line["n"] == 12, "a return is no operation"
    assert line["share"] == pytest.approx(1 / 4) and line["chance"] == pytest.approx(1 / 4), "held against second statements alone"


def longer(i: int) -> Program:
    body = [f"x = {BODIES[i % 4].format(c=2 + i)}"] + ([f"x = {BODIES[i // 2 % 4].format(c=40 + i)}"] if i % 2 else [])
    return Program(f"f{i}", "arithmetic", "\n    ".join([f"def f{i}(x):", *body, "return x"]), len(body))


@pytest.mark.parametrize(
    ("line", "kind"),
    [("x = 5 + 3 = 8", "assignment"), ("i = 0", "turn"), ("5 != 3 is True", "test"), ("return 5", "return"), ("end", "end")],
)
def test_kinds_of_lines(line: str, kind: str) -> None:
    assert near_misses.kind(near_misses.form(line)) == kind


def test_the_figure_shows_share_and_chance() -> None:
    table = near_misses.near_misses(errors(lambda f, x, i: f"x = {x} + 50 = {x + 50}\nreturn {x + 50}"), PROGRAMS)
    fig = plots_traces.beyond_chance(table, "wrong operations", chance="another form", own="its own form")
    FigureCanvasAgg(fig).draw()
    texts = [" ".join(text.get_text().split()) for text in fig.findobj(match=lambda a: hasattr(a, "get_text"))]
    assert "25, by chance 25" in texts and any("n = 96 answers over 48 programs" in text for text in texts)
    with pytest.raises(UsageError, match="nothing to draw about w/o IO programs: wrong operations"):
        plots_traces.beyond_chance(table.iloc[:0], "wrong operations", chance="another form", own="its own form")
