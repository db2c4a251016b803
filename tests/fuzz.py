"""Random inputs for the answer parser, the parameter reader and the escaping of reports: `python -m tests.fuzz 200000 50000 20000`.

Seeded: the same numbers give the same inputs. A finding is an exception of another kind than `UsageError`, or a broken promise;
it stops the run and is printed with the input. The default of a few thousand of each runs as a test.
"""

from __future__ import annotations

import json
import random
import re
import sys
import warnings
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np

from pbb_helpers import markup
from pbb_helpers.data.descriptions import canonical, describe
from pbb_helpers.data.documents import EVERY_MODE
from pbb_helpers.families import FAMILIES
from pbb_helpers.parameters import check, parse, parse_cell, resolve
from pbb_helpers.programs import UsageError
from pbb_helpers.running.runner import parameters_key
from pbb_helpers.sharing import report
from pbb_helpers.training.evaluate import INTEGER, TEXT, parse_answer

CHARACTERS = [*"0123456789+-._eEjxX()[]{}<>'\"\\/&#;:=,|*@!%$ \t\n\r", "\0", "\x1b", "\x85", "\x9b", "\xa0", "\xad", "\u0663", "\u2028",
              "\u202e", "\u200b", "\ufeff", "\uff15", "\ud800", "\udcff", "\U0001f642", "\U000e0041", "é", "中", "אב"]  # fmt: skip
ANSWERS = [
    "return ",
    "return",
    "x = ",
    " = ",
    "def zibble(x):",
    "\n",
    "\r\n",
    "17",
    "-17",
    "0",
    "-0",
    "007",
    "9" * 5000,
    "end",
    "True",
    "None",
    "HELLO",
    "return HELLO",
    "Return x.",
    "takes a number x. ",
]
VALUES = ["1", "-1", "1.5", "1e999", "nan", "inf", "True", "none", "null", "[]", "[1, 2]", "(1,)", "{}", "{1: 2, 'a': 3}", "{1, 2}", "b'a'", "1j", "...",
          "'a'", "f''", "0x" + "f" * 5000, "9" * 5000, "[" * 300, "-" * 3000, "int", "lambda: 0", "__import__('os')", "[1j]", "[b'a']", "{(1, 2): 3}"]  # fmt: skip
TYPES = ["int", "float", "str", "bool", "list", "tuple", "dict", "None", "list[int]", "list[str]", "tuple[int, ...]", "tuple[()]", "dict[str, int]",
         "dict[str]", "list[...]", "int | None", "str | None", "list[float] | None", "set", "x.y", "list[list[int]]", "'int'"]  # fmt: skip
CELL = [
    "x",
    "y",
    "_",
    ": ",
    " = ",
    " # a | b",
    "# comment",
    "\n",
    ";",
    "\\\n",
    "'''",
    '"""',
    "    ",
    "import os",
    "x = 1",
    "if x:",
    "\f",
    "%matplotlib",
]
TAGS = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</pre>", "</td></table>", "<svg/onload=alert(1)>", "<a href='javascript:alert(1)'>",
        "<iframe src=https://x.org>", "<p style='background:URL(//x.org)'>", "<style>@import '//x.org'", "<!--", "-->", "<![CDATA[", "&lt;script&gt;",
        "&#x202e;", "&rlm;", "&#60script>", "$\\href{javascript:1}{x}$", "$x^2$", "[x](javascript:alert(1))", "![x](https://x.org/a.png)", "{{ 7*7 }}",
        "<math><mtext><style><img src=x onerror=alert(1)>", "<x onclick=alert(1)>", "`", "# ", "\n\n", "<details ontoggle=alert(1) open>", "\x1b[31m"]  # fmt: skip


def draw(random_: random.Random, *parts: list[str], longest: int = 12) -> str:
    """Returns pieces of the lists, and single characters, in a row."""
    pool = [random_.choice((CHARACTERS, *parts)) for _ in range(random_.randint(0, longest))]
    return "".join(random_.choice(some) for some in pool)


def answer(random_: random.Random) -> str:
    """Fuzzes `parse_answer` once: an output as Python prints it that stands in the text, or None, and written out it is read back."""
    text, mode = draw(random_, ANSWERS, ANSWERS), random_.choice(EVERY_MODE)
    if mode == "description":
        return said(random_, text)
    number = random_.randint(-(10 ** random_.randint(0, 30)), 10 ** random_.randint(0, 30))
    letters = "".join(random_.choices("ABCXYZ", k=random_.randint(1, 9)))
    output, gold = random_.choice([(INTEGER, str(number)), (TEXT, letters)])
    found = parse_answer(mode, text, output)
    if mode == "source":
        assert found == (text.rstrip() or None)
        return text
    assert found is None or (re.fullmatch("0|-?[1-9][0-9]*" if output == INTEGER else "[A-Z]+", found) and found in text)
    written = gold if mode.endswith("direct") else f"{text}\nreturn {gold}"
    assert parse_answer(mode, written, output) == gold
    return text


def said(random_: random.Random, noise: str) -> str:
    """Fuzzes the reading of a description: of words that say a program its source, and of words that say none, or a text beside them, None."""
    family = FAMILIES[random_.choice(sorted(FAMILIES))]()
    program = family.sketch(random_.choice(["zibble", "quorn"]), np.random.default_rng(random_.getrandbits(40)))
    words = describe(program, random_.getrandbits(20))
    assert parse_answer("description", words) == canonical(program.source), words
    place, end = sorted(random_.choices(range(len(words) + 1), k=2))
    text = words[:place] + noise + words[random_.choice([place, end]) :]
    found = parse_answer("description", text)
    assert found is None or canonical(found) == found, (text, found)
    return text


def parameter(random_: random.Random) -> str:
    """Fuzzes the reading of a parameters cell and of a typed value: a value of the type that JSON can hold, or a UsageError of one line."""
    kind = random_.choice(["", f": {random_.choice(TYPES)}"])
    line = f"x{kind} = {random_.choice(VALUES) if random_.random() < 0.7 else draw(random_, VALUES, longest=4)}"
    source = line if random_.random() < 0.6 else draw(random_, CELL, VALUES, [line], longest=8)
    text = draw(random_, VALUES, longest=3)
    try:
        known = parse_cell(source)
    except UsageError as error:
        assert "\n" not in str(error), (source, error)
        return source + text
    for name, one in known.items():
        assert parameters_key({name: check(one, one.default)}) == parameters_key(resolve({name: one}, {}))
        try:
            value = parse(one, text)
        except UsageError as error:
            assert len(str(error)) < 30_000, (source, text)
            continue
        assert check(one, value) == value and json.dumps(value) and parameters_key({name: value})
        assert ast_literal(value) == value
    return source + text


def ast_literal(value: object) -> object:
    """Returns the value as a notebook would get it."""
    from pbb_helpers.running.engine import Literals

    namespace: dict = {"__builtins__": {}}
    exec(Literals.codify({"x": value}), namespace)
    return namespace["x"]


class Tags(HTMLParser):
    """Collects what is active in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        allowed = tag in markup.TAGS or tag in ("math", "semantics") or re.fullmatch("m[a-z]+", tag)
        self.active += [] if allowed else [tag]
        for name, value in attrs:
            dangerous = name.startswith("on") or (value or "").strip().lower().startswith(("javascript:", "vbscript:"))
            self.active += [f"{tag} {name}={value}"] if dangerous or name == "srcdoc" else []


def page(random_: random.Random) -> str:
    """Fuzzes the ways of text into a report: nothing active, nothing loaded, nothing that cannot be seen."""
    text = draw(random_, TAGS, TAGS)
    for made in (
        f'<p title="{markup.safe(text)}">{markup.safe(text)}</p>',
        markup.sanitise(text),
        report.markdown(text, "here", strict=False),
    ):
        reader = Tags()
        reader.feed(made)
        reader.close()
        assert not reader.active, (text, reader.active, made)
        assert not markup.external_loads(made), (text, made)
        assert not [c for c in made if c != "\r" and markup.visible(c) != c], (text, made)
    return text


def fuzz(one: Callable[[random.Random], str], count: int, seed: int = 0) -> int:
    """Returns how many different inputs were tried.

    Raises:
        AssertionError: A finding; the message holds the seed of the input.
    """
    seen = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python, about the escapes and literals in what is tried
        for i in range(count):
            try:
                seen.add(hash(one(random.Random(f"{seed} {one.__name__} {i}"))))
            except Exception as error:
                raise AssertionError(f"{one.__name__}, seed {seed}, input {i}: {type(error).__name__}: {error}"[:2000]) from error
    return len(seen)


if __name__ == "__main__":
    for one, count in zip((answer, parameter, page), map(int, sys.argv[1:] or ["5000"] * 3), strict=False):
        print(f"{one.__name__}: {count:,} inputs, {fuzz(one, count):,} of them different, no finding", flush=True)
