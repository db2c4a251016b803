"""Every program can be said in words, no two programs in the same words, and no words can be read in two ways."""

from __future__ import annotations

import ast
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbb_helpers.data import descriptions
from pbb_helpers.data.descriptions import describe, find, parse
from pbb_helpers.families import arithmetic_words
from pbb_helpers.families.arithmetic import Arithmetic
from pbb_helpers.families.arithmetic_words import RULES
from pbb_helpers.programs import Program, UsageError, behaviour

FAMILIES = [Arithmetic(min_statements=n, max_statements=n, weights=(0.6, 0.2, 0.2)) for n in range(1, 7)]
ZIBBLE = "def zibble(x):\n    x = x + 3\n    return x"


@pytest.fixture(autouse=True)
def _nothing_kept():
    """What was written and read is kept: a test that changes the rules must not see it, nor leave its own behind."""
    kept = (descriptions.describe, descriptions._read)
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()


def program(source: str) -> Program:
    return Program("zibble", "arithmetic", source, 1)


def drawn(count: int, seed: int = 0) -> list[Program]:
    generator = np.random.default_rng(seed)
    return [FAMILIES[i % 6].sketch("zibble", generator) for i in range(count)]


# ---------------------------------------------------------------- programs of every shape, far beyond those that a family draws

NUMBERS = st.integers(-60, 60).map(str)
VARIABLES = st.sampled_from(["x", "y", "total"])
EXPRESSIONS = st.recursive(
    NUMBERS | VARIABLES,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner)
        | st.builds("{}({}, {})".format, st.sampled_from(["max", "min"]), inner, inner)
        | st.builds("abs({})".format, inner)
    ),
    max_leaves=4,
)
TESTS = st.builds("{} {} {}".format, EXPRESSIONS, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), EXPRESSIONS) | st.builds(
    "x % {} {} 0".format, st.integers(1, 5), st.sampled_from(["==", "!="])
)
IDIOMS = st.builds(str.format, st.sampled_from(["x = x + {0}", "x = x - {0}", "x = {0} - x", "x = x * {0}", "x = x // {0}", "x = x % {0}",
                                                "x = max(x, {0})", "x = min(x, {0})", "x = abs(x - {0})"]), NUMBERS)  # fmt: skip
SHORT = IDIOMS | st.builds("{} = {}".format, VARIABLES, EXPRESSIONS) | st.builds("return {}".format, EXPRESSIONS)


def indented(lines: list[str]) -> str:
    return "\n".join("    " + line for statement in lines for line in statement.split("\n"))


def blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    bodies = st.lists(inner, min_size=1, max_size=3).map(indented)
    return (
        st.builds("if {}:\n{}\nelse:\n{}".format, TESTS, bodies, bodies)
        | st.builds("if {}:\n{}".format, TESTS, bodies)
        | st.builds("for {} in range({}):\n{}".format, st.sampled_from(["i", "i", "j", "x"]), st.integers(1, 9), bodies)
        | st.builds("for i in range({}):\n    x = x + i".format, st.integers(1, 9))
    )


STATEMENTS = st.recursive(SHORT, blocks, max_leaves=6)
BODIES = st.lists(STATEMENTS.filter(lambda s: not s.startswith("return")), max_size=4)
SOURCES = st.builds(lambda body, end: f"def zibble(x):\n{indented([*body, f'return {end}'])}", BODIES, EXPRESSIONS)


def same(one: str, other: str) -> bool:
    return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))


@settings(max_examples=250, deadline=None)
@given(source=SOURCES, phrasing=st.integers(0, 2**31))
def test_any_program_of_the_constructs_is_read_back_from_its_description(source, phrasing):
    """`parse` follows every reading and refuses a text that has two, so this is also the proof that none is ambiguous."""
    text = describe(program(source), phrasing)
    assert same(parse(text), source), text
    assert find(f"Before it. {text} And after it.\nreturn 3") == [parse(text)]


def test_a_thousand_drawn_programs_come_back_letter_for_letter_and_behave_the_same():
    for i, one in enumerate(drawn(1200)):
        back = parse(describe(one, i))
        assert back == one.source
        if i % 10 == 0:
            inputs = range(-20, 60)
            assert behaviour(program(back), inputs) == behaviour(one, inputs)


def test_programs_and_descriptions_are_one_to_one():
    programs = [one for one in {p.source: p for p in drawn(1500, 1)}.values()]
    said = [describe(one, i % 3) for i, one in enumerate(programs)]
    assert len(programs) > 1200 and len(set(said)) == len(programs)


def test_every_phrase_of_every_rule_is_written_and_read(monkeypatch):
    """Each phrase is found by drawing; what was drawn is read back, so no phrase is one that the reader does not know."""
    used: Counter[str] = Counter()

    class Counting(arithmetic_words._Writer):
        def __init__(self, choose, function):
            super().__init__(lambda options: used.update([text := choose(options)]) or text, function)

    monkeypatch.setattr(arithmetic_words, "_Writer", Counting)
    rare = """def zibble(x):
    y = (x + -2) * (x - y) // x % 3
    total = max(x % y, min(0, x * x)) - abs(x - y) - abs(0)
    if x == 0:
        y = 3
    if x % 2 == 0:
        y = 3
        if x % 2 != 0:
            return y
    if x % 3 == 0:
        for j in range(3):
            x = x + 1
        for j in range(3):
            x = x + j
            x = 2 * x
    elif x <= 3:
        if x >= y:
            return x // 2
        elif x % 3 != 0:
            x = x + 1
        for i in range(3):
            x = x - 1
            y = y - 1
    else:
        if x != -2:
            x = y
        else:
            x = x - 0
    return total"""
    for i in range(40):
        assert same(parse(describe(program(rare), i)), rare)
    for i, one in enumerate(drawn(400)):
        assert parse(describe(one, i)) == one.source
    every = {*arithmetic_words.HEADS, *(phrase for rule in RULES for phrase in rule.phrases)}
    assert set(used) == every, every - set(used)


def test_a_family_needs_no_generic_phrase():
    """What is drawn most is said most naturally: "add 3 to x" and not "set x to x plus 3"."""
    for i, one in enumerate(drawn(300)):
        text = describe(one, i)
        assert not any(word in text for word in (" plus ", " times x", "the sum", "let x", "(")), text


def test_a_renamed_program_is_described_by_the_same_words():
    for i, one in enumerate(drawn(60)):
        text = describe(one, i)
        assert text.count("zibble") == 1 and text.replace("zibble", "quorn") == describe(one.renamed("quorn"), i)
        assert "\n" not in text and text.endswith(".")


def test_a_phrasing_is_always_the_same_and_there_are_many():
    one = drawn(6)[5]
    assert describe(one, 3) == describe(one, 3) and describe(one) == describe(one, 0)
    assert len({describe(one, i) for i in range(200)}) > 150


def test_a_description_shows_no_input_and_no_output():
    """It says what the source says and no more: the numbers in it are those of the source."""
    for i, one in enumerate(drawn(200)):
        numbers = Counter(n.value for n in ast.walk(ast.parse(one.source)) if isinstance(n, ast.Constant))
        text = describe(one, i)
        for word in ("divisible by", "multiple of"):
            numbers[0] -= text.count(word)  # "% 3 == 0"
        numbers[0] -= text.count(" is even") + text.count(" is odd")
        numbers[2] -= text.count(" is even") + text.count(" is odd")
        assert Counter(int(n) for n in arithmetic_words.INTEGER.findall(text)) == +numbers, text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Divide x by 4 and round down.", "x = x // 4"),
        ("Divide x by 4 and keep the remainder, never negative.", "x = x % 4"),
        ("Subtract x from 9 to get the new x.", "x = 9 - x"),
        ("Subtract 9 from x and drop the sign.", "x = abs(x - 9)"),
        ("Raise x to 9 if it is smaller.", "x = max(x, 9)"),
        ("Raise x by 9.", "x = x + 9"),
        ("Cap x at 9.", "x = min(x, 9)"),
        ("Let x be (x plus 2) times 3.", "x = (x + 2) * 3"),
        ("Let x be x plus (2 times 3).", "x = x + 2 * 3"),
        ("If x is odd, add 1 to x.", "if x % 2 != 0:\n    x = x + 1"),
        ("Repeat 2 times: cap x at 3.", "for i in range(2):\n    x = min(x, 3)"),
        ("Check whether x is below 3. If so: Add 1 to x. Add 2 to x. If not: Cap x at 4. That ends the check.",
         "if x < 3:\n    x = x + 1\n    x = x + 2\nelse:\n    x = min(x, 4)"),
        ("Check whether x is below 3. If so: Repeat 2 times: add 1 to x. That ends the check. Add 2 to x.",
         "if x < 3:\n    for i in range(2):\n        x = x + 1\nx = x + 2"),
    ],
)  # fmt: skip
def test_words_mean_what_they_say(text, line):
    """Readings written by hand, so that writer and reader cannot agree on something wrong."""
    assert parse(f"zibble takes a number x. {text} Return x.") == f"def zibble(x):\n{indented([line, 'return x'])}"


def test_a_loop_names_its_variable_only_where_somebody_reads_it():
    plain, counted, other = (
        "def zibble(x):\n    for {} in range(3):\n        x = x + {}\n    return x".format(*pair) for pair in ("i2", "ii", "j2")
    )
    assert not any("counting" in describe(program(plain), i) for i in range(9))
    assert all("i counting up from 0:" in describe(program(counted), i) for i in range(9))
    assert all("j counting up from 0:" in describe(program(other), i) for i in range(9))


@pytest.mark.parametrize(
    "text",
    ["", "zibble", ZIBBLE, "zibble takes a number x.", "zibble takes a number x. Add 3 to x.", "zibble takes a number x. Return x",
     "zibble takes a number x. add 3 to x. Return x.", "zibble takes a number x. Add 03 to x. Return x.",
     "zibble takes a number x. Add 3 to x. Return x. Return x.", "zibble takes a number x.  Return x.", " zibble takes a number x. Return x.",
     "zibble takes a number x. Add 3 to y plus 2. Return x.", "zibble takes a number x. Check whether x is odd. If so: Add 1 to x. Return x.",
     "zibble takes a number x. Add ３ to x. Return x.", "zibble takes a number x. Let add be 3. Return x."],
)  # fmt: skip
def test_what_is_no_description_is_refused(text):
    with pytest.raises(UsageError, match="is no description; a description reads like 'zibble takes"):
        parse(text)


def test_a_text_with_two_readings_would_be_refused(monkeypatch):
    text = "zibble takes a number x. Add 3 to x. Return x."
    assert parse(text) == ZIBBLE
    descriptions._read.cache_clear()
    monkeypatch.setattr(arithmetic_words, "STATEMENTS", (*arithmetic_words.SHORT, arithmetic_words.Rule("V = V * C", ("add C to V",))))
    with pytest.raises(UsageError, match="can be read in more than one way"):
        parse(text)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def zibble(x):\n    while x > 3:\n        x = x - 1\n    return x", "no words for 'while x > 3:"),
        ("def zibble(x):\n    x += 3\n    return x", r"no words for 'x \+= 3'; there are some for"),
        ("def zibble(x):\n    return x ** 2", "no words for"),
        ("def zibble(x):\n    return max(x, 1, 2)", "no words for"),
        ("def zibble(x):\n    return x < 3 < 5", "no words for"),
        ("def zibble(x):\n    if x:\n        x = 3\n    return x", "no words for 'x'"),
        ("def zibble(x):\n    return True", "no words for 'True'"),
        ("def zibble(x):\n    for i in range(x):\n        x = x + 1\n    return x", "no words for"),
        ("def zibble(x):\n    x = x + 1", "must be a return"),
        ("def zibble(x):\n    return x\n    return 3", "must be a return"),
        ("def zibble(x, y):\n    return x", "one function of one argument"),
        ("def zibble(x=3):\n    return x", "one function of one argument"),
        ("def zibble(x: int):\n    return x", "one function of one argument"),
        ("y = 3\ndef zibble(x):\n    return x", "one function of one argument"),
        ("def zibble(number):\n    return number", "the variable 'number' reads like a word"),
    ],
)
def test_what_has_no_words_is_named(source, message):
    with pytest.raises(UsageError, match=message):
        describe(program(source))


def test_a_phrasing_is_a_number_from_zero():
    with pytest.raises(UsageError, match="phrasing -1; give a whole number from 0"):
        describe(program(ZIBBLE), -1)
