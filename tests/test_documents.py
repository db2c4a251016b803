"""Every document says what is true: the completion is the real execution, the prompt points by name, the parser reads it back."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbb_helpers.data.descriptions import describe
from pbb_helpers.data.documents import (
    CALL_TEMPLATES,
    CUES,
    DESCRIPTION_TEMPLATES,
    EVERY_MODE,
    MODES,
    NAMED,
    SOURCE_TEMPLATES,
    call_document,
    chain_of_thought,
    description_document,
    in_context_document,
    source_document,
    way_of_answering,
)
from pbb_helpers.families.arithmetic import Arithmetic
from pbb_helpers.programs import Program, UsageError

CALL_MODES = tuple(mode for mode in EVERY_MODE if mode not in ("source", "description"))
WIDE = Arithmetic(min_statements=1, max_statements=4, weights=(1.0, 1.0, 1.0))


def program(*lines: str, name: str = "zibble") -> Program:
    return Program(name, "arithmetic", "\n".join([f"def {name}(x):", *(f"    {line}" for line in lines), "    return x"]), 1)


@pytest.mark.parametrize(
    ("lines", "x", "text"),
    [
        (["x = x + 3"], 5, "x = 5 + 3 = 8\nreturn 8"),
        (["x = x - 9"], 5, "x = 5 - 9 = -4\nreturn -4"),
        (["x = x - 9", "x = 10 - x"], 5, "x = 5 - 9 = -4\nx = 10 - -4 = 14\nreturn 14"),
        (["x = x * 4"], 5, "x = 5 * 4 = 20\nreturn 20"),
        (["x = x // 2"], -5, "x = -5 // 2 = -3\nreturn -3"),
        (["x = x % 4"], -5, "x = -5 % 4 = 3\nreturn 3"),
        (["x = max(x, 10)"], 5, "x = max(5, 10) = 10\nreturn 10"),
        (["x = min(x, 10)"], 5, "x = min(5, 10) = 5\nreturn 5"),
        (["x = abs(x - 8)"], -5, "x = abs(-5 - 8) = 13\nreturn 13"),
        (["if x < 6:", "    x = x + 1", "else:", "    x = x - 1"], 5, "5 < 6 is True\nx = 5 + 1 = 6\nreturn 6"),
        (["if x < 5:", "    x = x + 1", "else:", "    x = x - 1"], 5, "5 < 5 is False\nx = 5 - 1 = 4\nreturn 4"),
        (["if x <= 5:", "    x = 0", "else:", "    x = 1"], 5, "5 <= 5 is True\nx = 0 = 0\nreturn 0"),
        (["if x % 3 == 0:", "    x = x + 1", "else:", "    x = x + 2"], -6, "-6 % 3 == 0 is True\nx = -6 + 1 = -5\nreturn -5"),
        (["if x % 3 != 0:", "    x = x + 1", "else:", "    x = x + 2"], 6, "6 % 3 != 0 is False\nx = 6 + 2 = 8\nreturn 8"),
        (["if x > 5:", "    x = x + 1"], 5, "5 > 5 is False\nreturn 5"),
        (
            ["if x > 9:", "    x = 1", "elif x >= 5:", "    x = 2", "else:", "    x = 3"],
            5,
            "5 > 9 is False\n5 >= 5 is True\nx = 2 = 2\nreturn 2",
        ),
        (["for i in range(2):", "    x = x + 3"], 1, "i = 0\nx = 1 + 3 = 4\ni = 1\nx = 4 + 3 = 7\nend\nreturn 7"),
        (["for i in range(2):", "    x = x * i"], 4, "i = 0\nx = 4 * 0 = 0\ni = 1\nx = 0 * 1 = 0\nend\nreturn 0"),
        (
            ["for i in range(2):", "    x = x + 1", "for i in range(2):", "    x = x - 1"],
            0,
            "i = 0\nx = 0 + 1 = 1\ni = 1\nx = 1 + 1 = 2\nend\ni = 0\nx = 2 - 1 = 1\ni = 1\nx = 1 - 1 = 0\nend\nreturn 0",
        ),
    ],
)
def test_chain_of_thought_of_every_construct(lines, x, text):
    assert chain_of_thought(program(*lines), x) == text


def test_a_line_without_a_rendering_is_named():
    with pytest.raises(UsageError, match=r"no step-by-step rendering for the line 'while x > 3:'"):
        chain_of_thought(program("while x > 3:", "    x = x - 1"), 5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**40), x=st.integers(0, 49))
def test_every_line_of_a_chain_of_thought_is_true_and_follows_from_the_one_before(seed, x):
    drawn = WIDE.sketch("zibble", np.random.default_rng(seed))
    now = x
    *steps, last = chain_of_thought(drawn, x).split("\n")
    for line in steps:
        if match := re.fullmatch(r"x = (.*) = (-?\d+)", line):
            assert eval(match[1]) == int(match[2]) and str(now) in match[1], line
            now = int(match[2])
        elif match := re.fullmatch(r"(.*) is (True|False)", line):
            assert str(eval(match[1])) == match[2] and line.startswith(str(now)), line
        else:
            assert re.fullmatch(r"i = \d|end", line), line
    assert last == f"return {now}" == f"return {drawn.run(x)}"


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    mode=st.sampled_from(CALL_MODES),
    x=st.integers(0, 49),
    template=st.integers(0, 19),
    phrasing=st.integers(0, 99),
)
def test_a_question_holds_what_its_mode_says(seed, mode, x, template, phrasing):
    drawn = WIDE.sketch("zibble", np.random.default_rng(seed))
    example = call_document(drawn, "with_io", mode, x, template, phrasing=phrasing)
    words = describe(drawn, phrasing)
    in_code, in_words = mode in MODES and mode.startswith("in_context_"), mode.startswith("in_context_description_")
    way = mode.removeprefix("in_context_").removeprefix("description_")
    cue = "recall_description" if in_words and way == "recall" else "recall" if way == NAMED else way
    assert way_of_answering(mode) == (cue, "source" if in_code else "description" if in_words else None)
    assert example.prompt.endswith(CUES[cue]) and f"zibble({x})" in example.prompt
    assert (drawn.source in example.prompt, words in example.prompt) == (in_code, in_words)
    assert example.completion.startswith(drawn.source) == (cue == "recall")
    assert example.completion.startswith(words + "\n") == (cue == "recall_description")
    assert (example.kind, example.input, example.answer, example.length) == (mode, x, str(drawn.run(x)), drawn.length)
    from pbb_helpers.training.evaluate import parse_answer

    assert parse_answer(mode, example.completion) == example.answer


@pytest.mark.parametrize("templates", [SOURCE_TEMPLATES, DESCRIPTION_TEMPLATES, CALL_TEMPLATES])
def test_there_are_twenty_templates_each_with_one_pointer(templates):
    assert len(templates) == len(set(templates)) == 20
    pointer = "{name}({input})" if templates is CALL_TEMPLATES else "{name}"
    assert all(template.count(pointer) == template.count("{name}") == 1 for template in templates)


def test_a_source_document_is_pointer_then_source():
    drawn = program("x = x + 3")
    made = [source_document(drawn, "without_io", i) for i in range(20)]
    assert len({example.prompt for example in made}) == 20
    for example in made:
        assert example.completion == example.answer == drawn.source and example.input is None and example.kind == "source"
        assert example.prompt.count("zibble") == 1 and example.prompt.endswith("\n") and "x = x + 3" not in example.prompt


def test_a_description_document_is_pointer_then_words_and_its_answer_is_the_program():
    drawn = program("x = x + 3")
    made = [description_document(drawn, "without_io", i, i) for i in range(20)]
    assert len({example.prompt for example in made} - {source_document(drawn, "without_io", i).prompt for i in range(20)}) == 20
    assert len({example.completion for example in made}) > 5
    for i, example in enumerate(made):
        assert example.completion == describe(drawn, i) and example.answer == drawn.source and example.kind == "description"
        assert example.input is None and example.prompt.count("zibble") == example.completion.count("zibble") == 1


def test_distractors_stand_in_the_prompt_in_every_order_and_change_no_answer():
    called = program("x = x + 3")
    others = [program("x = x * 2", name="florp"), program("x = x - 4", name="quorn")]
    made = [in_context_document(called, "replay", "recall", 5, 0, others, np.random.default_rng(seed)) for seed in range(40)]
    orders = {tuple(re.findall(r"def (\w+)", example.prompt)) for example in made}
    assert len(orders) == 6
    assert {example.completion for example in made} == {f"{called.source}\nx = 5 + 3 = 8\nreturn 8"}


@pytest.mark.parametrize(
    "mode", ["source", "cott", "in_context_source", "description", "in_context_description", "in_context_recall_description"]
)
def test_a_mode_that_is_none_is_refused(mode):
    with pytest.raises(UsageError, match=f"unknown mode of answering '{mode}'"):
        call_document(program("x = x + 3"), "with_io", mode, 5, 0)
