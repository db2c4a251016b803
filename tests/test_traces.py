"""The first wrong line of a generated execution is found, and named by what is wrong in it."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pbb_helpers.analysis import traces
from pbb_helpers.data.datasets import generator
from pbb_helpers.data.documents import chain_of_thought
from pbb_helpers.families.arithmetic import Arithmetic
from pbb_helpers.families.names import made_up_names
from pbb_helpers.figures import plots_traces
from pbb_helpers.programs import Program, UsageError

BRANCH = Program("f", "arithmetic", "def f(x):\n    if x > 3:\n        x = abs(x - 9)\n    else:\n        x = x * 2\n    return x", 1)
LOOP = Program("g", "arithmetic", "def g(x):\n    for i in range(2):\n        x = x + 5\n    return x", 1)
CASES = [
    (BRANCH, 4, "4 > 3 is True\nx = abs(4 - 9) = 5\nreturn 5", "right", 0),
    (BRANCH, 4, "4 > 3 is False\nx = 4 * 2 = 8\nreturn 8", "wrong arithmetic", 1),
    (BRANCH, 4, "4 >= 3 is True\nx = abs(4 - 9) = 5\nreturn 5", "wrong operation", 1),
    (BRANCH, 4, "5 > 3 is True\nx = abs(5 - 9) = 4\nreturn 4", "wrong state", 1),
    (BRANCH, 4, "4 > 3 is True\nx = abs(4 - 9) = 4\nreturn 4", "wrong arithmetic", 2),
    (BRANCH, 4, "4 > 3 is True\nx = abs(4 - 8) = 4\nreturn 4", "wrong operation", 2),
    (BRANCH, 4, "4 > 3 is True\nx = abs(5 - 9) = 4\nreturn 4", "wrong state", 2),
    (BRANCH, 4, "4 > 3 is True\nx = abs(4 - 9) = 5\nreturn 4", "wrong state", 3),
    (BRANCH, 4, "4 > 3 is True\nx = abs(4 - 9) = 5", "wrong end", 3),
    (BRANCH, 4, "4 > 3 is True\nx = abs(4 - 9) = 5\nreturn 5\nreturn 5", "wrong end", 4),
    (BRANCH, 4, "", "wrong end", 1),
    (BRANCH, 4, "5", "not a step", 1),
    (BRANCH, 4, "4 > 3 is True\nx = abs(4 - 9) =\nreturn 5", "not a step", 2),
    (LOOP, 1, "i = 0\nx = 1 + 5 = 6\nend\nreturn 6", "wrong operation", 3),
    (LOOP, 1, "i = 0\nx = 1 + 5 = 6\ni = 2\nx = 6 + 5 = 11\nend\nreturn 11", "wrong state", 3),
    (LOOP, 1, "i = 0\nx = 1 + 5 = 6\ni = 1\nx = 6 + 5 = 11\ni = 2\nx = 11 + 5 = 16\nend\nreturn 16", "wrong operation", 5),
]


MORE = [
    (BRANCH, 4, "x + 3 > 3 is True\nreturn 5", "not a step", 1),
    (BRANCH, 4, "x = 5", "not a step", 1),
    (BRANCH, 4, "i = 0", "wrong operation", 1),
]


@pytest.mark.parametrize(("program", "x", "text", "error", "line"), [*CASES, *MORE])
def test_the_first_wrong_line_is_named(program: Program, x: int, text: str, error: str, line: int) -> None:
    assert traces.first_error(program, x, "cot", text) == (error, line, len(program.trace(x)))
    assert traces.first_error(program, x, "recall", f"{program.source}\n{text}") == (error, line, len(program.trace(x)))
    assert (
        traces.first_error(program, x, "recall", f"{LOOP.source if program is BRANCH else BRANCH.source}\n{text}")[0]
        == "source not written first"
    )


def test_a_source_and_nothing_after_it_was_written_first() -> None:
    assert traces.first_error(BRANCH, 4, "recall", BRANCH.source) == ("wrong end", 1, 3)


def test_every_true_execution_is_right_and_a_changed_number_is_never() -> None:
    programs = Arithmetic(max_statements=4).draw(list(made_up_names()[:60]), generator(0, "traces"))
    for program in programs:
        for x in (0, 7, 31):
            gold = chain_of_thought(program, x)
            assert traces.first_error(program, x, "cot", gold)[0] == "right"
            lines = gold.split("\n")
            for i, line in enumerate(lines):
                if line[-1].isdigit():
                    broken = "\n".join([*lines[:i], line[:-1] + str((int(line[-1]) + 1) % 10), *lines[i + 1 :]])
                    error, at, _ = traces.first_error(program, x, "cot", broken)
                    assert (error in ("wrong arithmetic", "wrong state"), at) == (True, i + 1), broken


def table() -> pd.DataFrame:
    rows = [
        {"condition": c, "seed": 0, "group": g, "mode": mode, "program": p.name, "input": float(x), "generated": text if mode == "cot" else f"{p.source}\n{text}"}
        for c in ("proactive", "in_context") for g in ("without_io", "with_io") for mode in ("cot", "recall") for p, x, text, _, _ in CASES
    ]  # fmt: skip
    return traces.first_errors(pd.DataFrame([*rows, rows[0] | {"mode": "direct"}]), {(0, "f"): BRANCH, (0, "g"): LOOP})


def test_shares_and_curves_count_every_answer() -> None:
    errors = table()
    assert len(errors) == 8 * len(CASES), "direct answers have no lines"
    shares = traces.shares(errors).set_index(["condition", "group", "mode", "error"])["n"]
    bounds = traces.shares(errors)
    assert (bounds["low"] <= bounds["share"]).all() and (bounds["share"] <= bounds["high"]).all()
    assert bounds["high"].iloc[0] > 0.6, "sixteen answers about two programs are not sixteen programs"
    cell = shares["proactive", "without_io", "cot"]
    assert cell.to_dict() == {
        "right": 1,
        "wrong arithmetic": 2,
        "wrong state": 4,
        "wrong operation": 4,
        "not a step": 2,
        "source not written first": 0,
        "wrong end": 3,
    }
    right = traces.still_right(errors, fewest=3).set_index(["condition", "mode", "line"])
    assert right.loc[("proactive", "recall", 0), ["n", "share"]].tolist() == [32, 1.0]
    assert right.loc[("proactive", "cot", 1), ["n", "share"]].tolist() == [32, 2 * 11 / 32]  # both groups
    assert right.loc[("proactive", "cot", 5), ["n", "share"]].tolist() == [6, 0.0], "of the lines that only the loop has"


def test_of_the_lines_with_the_right_operation_those_run_wrongly_are_counted() -> None:
    found = traces.steps_run(table()).set_index(["condition", "group", "mode"])
    for mode in ("cot", "recall"):
        line = found.loc[("proactive", "without_io", mode)]
        before = sum(len(p.trace(x)) if error == "right" else number - 1 for p, x, _, error, number in CASES)
        assert (line["lines"], line["wrong"]) == (before + 6, 6) and line["low"] < line["share"] == 6 / (before + 6) < line["high"]
    nothing = table().assign(error="source not written first", line=0)
    assert traces.steps_run(nothing)["lines"].tolist() == [0] * 8 and traces.steps_run(nothing)["share"].isna().all()


@pytest.mark.parametrize("draw", [plots_traces.errors_by_condition, plots_traces.right_so_far])
def test_figures_say_n_and_need_answers(draw) -> None:
    fig = draw(table())
    FigureCanvasAgg(fig).draw()
    assert any(
        "n = 16 answers over 2 programs, 1 seed" in " ".join(text.get_text().split())
        for text in fig.findobj(match=lambda a: hasattr(a, "get_text"))
    )
    with pytest.raises(UsageError, match="no answers in modes cot, recall"):
        draw(table().iloc[:0])


def test_the_sentence_counts_the_first_lines() -> None:
    said = traces.in_words(table(), "proactive", "cot")
    assert said.startswith(
        "Of 16 executions of w/o IO programs by proactive (chain of thought), 6 % (0 to 70 %) are right line by line, 12 % wrong arithmetic"
    )
    assert said.endswith("5 of the 15 wrong ones fail on their first line.") and "source not" not in said
    assert "not asked" in traces.in_words(table(), "mixture", "cot")
