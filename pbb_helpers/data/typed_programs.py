"""Source that comes from a person or a file, held to the grammar of a family before it is run: what passes counts, or moves letters, and no more.

`Program.run` is no sandbox, so text that this project did not draw itself is compared, line by line, with the table that the family draws
from. Nothing of it is executed before it has passed, and what passes ends soon: its loops are short and never nested.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pbb_helpers.families import cipher_words
from pbb_helpers.families.arithmetic import COMPARISONS, INDENT, OPERATORS, Arithmetic
from pbb_helpers.families.cipher_parts import caesar
from pbb_helpers.families.ciphers import Ciphers
from pbb_helpers.programs import BUILTINS, Program, UsageError, did_you_mean

LONGEST = 2_000  # characters of a source
EXAMPLE = "def zibble(x):\n    x = x + 3\n    return x"
CIPHER_EXAMPLE = caesar().program("zibble").source
IDLE = ("s = ", "for ", "n = ord(c)", "n = a.find(c)", "c = chr(", "c = a[", "c = w[", "w = ", "return s")
"""How lines of a cipher begin that are none of its parts, but for a `return s` that changes the order of what was written."""


def read(text: str, family: str = "arithmetic") -> Program:
    """Returns the program that `text` is, its layout and comments made those of the family.

    >>> read("def zibble(x): x=x+3 ;return x").source
    'def zibble(x):\\n    x = x + 3\\n    return x'

    Raises:
        UsageError: It is no program of that family; nothing of it was run.
    """
    if family not in READERS:
        raise did_you_mean("family whose programs can be read", family, READERS)
    return READERS[family].read(text)


def typed(text: str, family: str = "arithmetic") -> Program:
    """Returns the program of `read`, after running it on every input of the family: its values are such as the family's have.

    Raises:
        UsageError: It is no program of the family, or fails on an input, or leaves the range of values.
    """
    program = read(text, family)
    READERS[family].check(program)
    return program


def _in_range(program: Program) -> None:
    of = Arithmetic()
    outside = [x for x in of.inputs() if not of.in_range(program, x)]
    if outside:
        raise UsageError(
            f"{program.name}({outside[0]}) leaves the values from {of.lowest_value} to {of.highest_value} that programs of this family keep to; "
            "take smaller constants or fewer statements"
        )


def _writes_letters(program: Program) -> None:
    for text, shift in Ciphers().inputs():
        try:
            written = program.run((text, shift))
        except Exception as error:  # whatever it is: a letter that the alphabet lacks, a name that no line has set
            raise UsageError(f"{program.name}({text!r}, {shift}) ends with {type(error).__name__}: {error}; no cipher may fail") from None
        if not re.fullmatch("[A-Z]+", written):
            raise UsageError(f"{program.name}({text!r}, {shift}) gives {written!r}; a cipher writes the capitals A to Z")


def _function(text: str, arguments: str, example: str) -> tuple[str, list[str]]:
    """Returns the name of the function that a source begins with, and its lines in the layout that ours have; what is in it is not looked at yet."""
    if len(text) > LONGEST:
        raise UsageError(f"a source of {len(text):,} characters; at most {LONGEST:,} are read")
    try:
        lines = ast.unparse(ast.parse(text)).splitlines()
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"this is no Python ({getattr(error, 'msg', error)}); write for example {example!r}") from None
    head = re.fullmatch(rf"def ([A-Za-z]\w*)\({arguments}\):", lines[0], re.ASCII) if lines else None
    if not head or head[1] in BUILTINS:
        of = arguments.replace(",", " and")
        raise UsageError(
            f"a source begins with {(lines or [''])[0]!r}; give one function of {of} under a name of its own, such as {example!r}"
        )
    return head[1], lines


def _ciphers(text: str) -> Program:
    name, lines = _function(text, "t, k", CIPHER_EXAMPLE)
    source = "\n".join(lines)
    # Words exist for the lines of a cipher and for no others, and only a cipher can be read back from them.
    words = cipher_words.describe(source, lambda phrases: phrases[0])
    if (source, len(words)) not in cipher_words.read(words):
        raise UsageError(
            f"the lines of {name} are a cipher's, but not in its order: changes of the text, s = '', the loop, what is done to each letter, "
            f"return; such as {CIPHER_EXAMPLE!r}"
        )
    parts = [line for line in map(str.strip, lines[1:]) if not line.startswith(IDLE) or line.startswith("return ") and line != "return s"]
    return Program(name, "ciphers", source, len(parts))


def _arithmetic(text: str) -> Program:
    name, lines = _function(text, "x", EXAMPLE)
    if lines[-1] != f"{INDENT}return x" or len(lines) < 3:
        raise UsageError(f"a source ends with {lines[-1].strip()!r}; give statements and then 'return x', such as {EXAMPLE!r}")
    rest = iter(lines[1:-1])
    length = sum(1 for line in rest if _statement(line, rest))
    return Program(name, "arithmetic", "\n".join(lines), length)


def _statement(line: str, rest: Iterator[str]) -> bool:
    """Returns True after taking the further lines of the statement that begins with `line`; raises where it is none of the family."""
    line = line.removeprefix(INDENT)
    if line.startswith("for "):
        repeats = _constant(line, "for i in range({c}):", 2, 4)
        names = ("add", "subtract") if repeats > 2 else ("add", "subtract", "multiply", "divide")
        _assignment(next(rest, ""), INDENT * 2, names, largest=9)
    elif line.startswith("if "):
        _test(line)
        _assignment(next(rest, ""), INDENT * 2)
        if (other := next(rest, "")) != f"{INDENT}else:":
            raise UsageError(f"after {line!r} and one statement comes {other.strip()!r}; give 'else:' and one statement")
        _assignment(next(rest, ""), INDENT * 2)
    else:
        _assignment(INDENT + line, INDENT)
    return True


def _assignment(line: str, indent: str, names: Iterable[str] = tuple(OPERATORS), largest: int = 10**6) -> None:
    valid = [OPERATORS[name] for name in names]
    forms = ", ".join(f"x = {template}".replace("{c}", f"{low}..{min(high, largest)}") for template, low, high in valid)
    fits = any(_matches(line, f"{indent}x = {template}", low, min(high, largest)) for template, low, high in valid)
    if not fits:
        raise UsageError(f"the line {line.strip()!r} is not of this family; here it takes {forms}")


def _test(line: str) -> None:
    order = [sign for sign in COMPARISONS if sign not in ("==", "!=")]
    forms = [(f"if x {sign} {{c}}:", 10, 40) for sign in order] + [(f"if x % {{c}} {sign} 0:", 2, 4) for sign in ("==", "!=")]
    if not any(_matches(line, *form) for form in forms):
        shown = ", ".join(form.replace("{c}", f"{low}..{high}") for form, low, high in forms)
        raise UsageError(f"the line {line!r} is not of this family; here it takes {shown}")


def _constant(line: str, form: str, low: int, high: int) -> int:
    if not _matches(line, form, low, high):
        raise UsageError(f"the line {line!r} is not of this family; here it takes {form.replace('{c}', f'{low}..{high}')}")
    return int(re.findall(r"\d+", line)[0])


def _matches(line: str, form: str, low: int, high: int) -> bool:
    match = re.fullmatch(re.escape(form).replace(re.escape("{c}"), "([1-9][0-9]?)"), line)
    return match is not None and low <= int(match[1]) <= high


class Reader(NamedTuple):
    """How a family's programs are read from text, and what is asked of what they give."""

    read: Callable[[str], Program]
    check: Callable[[Program], None]


READERS = {"arithmetic": Reader(_arithmetic, _in_range), "ciphers": Reader(_ciphers, _writes_letters)}
"""By family. A family without a reader has its answers shown, and no source of it is run that lies in a file or was typed."""
