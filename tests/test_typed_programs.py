"""Only a program of the family is read, and nothing of the rest is run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbb_helpers.data.typed_programs import CIPHER_EXAMPLE, EXAMPLE, read, typed
from pbb_helpers.families.arithmetic import Arithmetic
from pbb_helpers.families.ciphers import Ciphers
from pbb_helpers.programs import UsageError


@given(st.integers(0, 10**6), st.integers(1, 6))
@settings(deadline=None)
def test_whatever_the_family_draws_is_read_as_it_is(seed: int, statements: int) -> None:
    family = Arithmetic(min_statements=statements, max_statements=statements, weights=(0.4, 0.3, 0.3))
    program = family.sketch("zibble", np.random.default_rng(seed))
    assert read(program.source) == program


def body(*lines: str) -> str:
    return "def zibble(x):\n" + "".join(f"    {line}\n" for line in lines) + "    return x"


REFUSED = [
    "", " ", "\x00", "x = 3", "def zibble(x):\n    return x", "def zibble(x, y=1):\n    x = x + 3\n    return x", "(" * 500,
    "import os\n" + EXAMPLE, EXAMPLE + "\nimport os", EXAMPLE + "\n" + EXAMPLE, "@print\n" + EXAMPLE, "async " + EXAMPLE,
    EXAMPLE.replace("zibble", "abs"), EXAMPLE.replace("zibble", "__import__"), EXAMPLE.replace("(x)", "(x: print(1))"),
    body("x = x + 1"), body("x = x + 99"), body("x = x + x"), body("x = x ** 9"), body("x = x * 10"), body("x = x // 0"), body("y = x + 3"),
    body("x = __import__('os')"), body("x = ().__class__"), body("x = x + 3", "print(x)"), body("while True: x = x + 3"), body("x = abs(x)"),
    body("for i in range(999): x = x + 3"), body("for i in range(3): x = x * 2"), body("for i in range(2): x = x + 10"),
    body("for i in range(2):", "    for i in range(2):", "        x = x + 3"), body("if x < 20: x = x + 3"), body("if x == 20:", "    x = x + 3", "else:", "    x = x - 3"),
    body("if x < 20:", "    x = x + 3", "    x = x + 3", "else:", "    x = x - 3"), body("if x < 20:", "    x = x + 3", "elif x < 30:", "    x = x - 3"),
    EXAMPLE.replace("return x", "return 8"), "x" * 2_001, EXAMPLE + "\n#" * 2_000,
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(text)
    assert len(str(refused.value).splitlines()) == 1


@given(st.text(max_size=60), st.integers(0, 60))
def test_a_changed_source_is_refused_or_still_counts(text: str, place: int) -> None:
    try:
        program = read(EXAMPLE[:place] + text + EXAMPLE[place:])
    except UsageError:
        return
    assert isinstance(program.run(4), int)


def test_layout_and_comments_do_not_matter() -> None:
    assert read("def zibble(x):  # mine\n\tx = (x+3)\n\n\treturn x").source == EXAMPLE


def test_a_typed_program_stays_in_range() -> None:
    assert typed(EXAMPLE).run(4) == 7
    with pytest.raises(UsageError, match=r"zibble\(\d+\) leaves the values from -99 to 199"):
        typed(body("x = x * 4", "x = x * 4"))


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(UsageError, match="unknown family whose programs can be read 'cipher'"):
        read(EXAMPLE, "cipher")


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(deadline=None)
def test_whatever_cipher_is_drawn_is_read_as_it_is(seed: int, parts: int) -> None:
    program = Ciphers(min_statements=parts, max_statements=parts).sketch("zibble", np.random.default_rng(seed))
    assert read(program.source, "ciphers") == program


def cipher(*lines: str, top: str = "", end: str = "s") -> str:
    each = "".join(f"        {line}\n" for line in lines)
    return f"def zibble(t, k):\n{top}    s = ''\n    for c in t:\n{each}    return {end}"


WRITE = "s = s + chr(n % 26 + 65)"


@pytest.mark.parametrize(
    "text",
    [
        "", EXAMPLE, "import os\n" + CIPHER_EXAMPLE, CIPHER_EXAMPLE + "\n" + CIPHER_EXAMPLE, CIPHER_EXAMPLE.replace("zibble", "ord"),
        CIPHER_EXAMPLE.replace("(t, k)", "(t, k=1)"), CIPHER_EXAMPLE.replace("return s", "return k"), CIPHER_EXAMPLE.replace("n = n + k", "n = n ** k"),
        CIPHER_EXAMPLE.replace("    s = ''\n", ""), CIPHER_EXAMPLE.replace("n = n + k", "while True:\n            n = 1"),
        CIPHER_EXAMPLE.replace("n = n + k", "n = __import__('os')"), CIPHER_EXAMPLE.replace("        n = n + k\n", "") + "\n    n = n + k",
        CIPHER_EXAMPLE.replace("return s", "return s\n    s = ''"), CIPHER_EXAMPLE.replace("n + k", "n + k" + " + 1" * 2_000), "(" * 500,
    ],
)  # fmt: skip
def test_anything_but_a_cipher_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(text, "ciphers")
    assert len(str(refused.value).splitlines()) == 1


@given(st.text(max_size=40), st.integers(0, 120))
def test_a_changed_cipher_is_refused_or_writes_letters(text: str, place: int) -> None:
    try:
        program = typed(CIPHER_EXAMPLE[:place] + text + CIPHER_EXAMPLE[place:], "ciphers")
    except UsageError:
        return
    assert program.run(("CAB", 3)).isalpha()


def test_a_typed_cipher_counts_its_parts_and_runs() -> None:
    program = typed(cipher("n = ord(c) - 65", "n = n + k", WRITE, "k = -k  # mine", top="    t=t[::-1]\n"), "ciphers")
    assert (program.length, program.run(("CAB", 1))) == (3, "CZD")
    assert typed(CIPHER_EXAMPLE, "ciphers").run(("HAL", 1)) == "IBM"
    assert typed(cipher("n = ord(c) - 65", "n = 25 - n", WRITE, end="s[::-1]"), "ciphers").length == 2


@pytest.mark.parametrize(("text", "says"), [
    (cipher("n = n + k", WRITE), "ends with UnboundLocalError: .*; no cipher may fail"),
    (cipher("n = ord(c) - 65", "n = a.find(c)", WRITE), "ends with NameError"),
    (cipher("n = a.find(c)", "s = s + a[n % 26]", top="    a = 'ABC'\n"), "ends with IndexError"),
])  # fmt: skip
def test_a_cipher_that_fails_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        typed(text, "ciphers")
