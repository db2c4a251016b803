"""What stands where a program should be recalled is named, and counted."""

from __future__ import annotations

import pandas as pd
import pytest

from pbb_helpers.analysis import recall
from pbb_helpers.data.descriptions import says
from pbb_helpers.programs import Program

BRANCH = Program("f", "arithmetic", "def f(x):\n    if x > 3:\n        x = abs(x - 9)\n    else:\n        x = x * 2\n    return x", 1)
LOOP = Program("g", "arithmetic", "def g(x):\n    for i in range(2):\n        x = x + 5\n    return x", 1)


def test_a_source_that_is_stepped_through_is_begun_but_not_right() -> None:
    texts = [BRANCH.source, f"{BRANCH.source}\n4 > 3 is True", BRANCH.source + "0", LOOP.source]
    rows = [
        {"condition": "c", "group": "g", "mode": "source", "generated": t, "gold": BRANCH.source, "correct": t == BRANCH.source}
        for t in texts
    ]
    found = recall.sources_begun(pd.DataFrame([*rows, rows[0] | {"mode": "cot"}])).iloc[0]
    assert found[["n", "right", "begun"]].tolist() == [4, 0.25, 0.5]


def test_what_stands_in_the_place_of_the_program() -> None:
    program = Program("zibble", "arithmetic", "def zibble(x):\n    x = x + 3\n    return x", 1)
    words = "zibble takes a number x. Add 3 to x. Return x."
    assert says(words, program.source)
    common = {"condition": "c", "group": "without_io", "seed": 0, "program": "zibble", "gold": "8"}
    recalled = [
        f"{program.source}\nx = 5 + 3 = 8",
        "def zibble(x):\n    x = x + 4\n    return x\nx = 5 + 4 = 9",
        "x = 5 + 3 = 8\nreturn 8",
        "def 33333",
        "def snurg(x):\n    x = x + 3\n    return x",
    ]
    in_words = [f"{words}\nx = 5 + 3 = 8", words.replace("3", "4"), "\nx = 5 + 3 = 8", " 3 to x. Return x.\nx = 5 + 3 = 8"]
    rows = [common | {"mode": "recall", "generated": text} for text in recalled]
    rows += [common | {"mode": "recall_description", "generated": text, "condition": "w"} for text in in_words]
    rows += [common | {"mode": "source", "generated": program.source, "gold": program.source}]
    found = recall.recalled(pd.DataFrame(rows)).set_index("condition")
    assert found.loc["c", ["n", *recall.RECALLED]].tolist() == pytest.approx([5, 1 / 5, 1 / 5, 2 / 5, 1 / 5])
    assert found.loc["w", ["n", *recall.RECALLED]].tolist() == pytest.approx([4, 1 / 4, 1 / 4, 0, 2 / 4])
    assert recall.recalled(pd.DataFrame(rows[:3])).empty  # nothing says what the source is


def test_what_becomes_of_answers_whose_first_line_is_given() -> None:
    source, line = "def zibble(x):\n    x = x + 3\n    return x\n", "def zibble(x):"
    plain = [f"{source}return 8", "def 333", "x = 8\nreturn 8", f"{line}\n    return x\nreturn 5"]
    given = [f"{source}return 8", f"{source}return 8", f"{source}return 9", f"{line}\n    return x\nreturn 6"]
    common = {"model": "m", "mode": "recall", "group": "without_io", "seed": 0, "program": "zibble"}
    rows = pd.DataFrame(
        [
            common | {"condition": name, "input": x, "generated": text, "correct": text.endswith("return 8")}
            for name, texts in (("proactive", plain), ("proactive_named", given))
            for x, text in enumerate(texts)
        ]
    )
    found = recall.first_line_given(rows, {"proactive_named": "proactive", "mixture_named": "mixture"}, by=("model",))
    columns = ["model", "condition", "n", "right", "right_given", "unnamed", "unnamed_right", "unnamed_right_given", "changed"]
    assert found[columns].to_numpy().tolist() == [["m", "proactive", 4, 0.5, 0.5, 2, 1, 1, 1]]
    assert recall.first_line_given(rows[rows["condition"] == "proactive"], {"proactive_named": "proactive"}).empty
