"""Programs in words: `describe` writes a program as English prose, `parse` reads the program back out of the prose.

Each family has a grammar of its own (`families`), one table of which serves both directions. `parse` follows every way of reading a text and
refuses one that can be read in two ways, so a round trip through it proves that a description belongs to one program only.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re

import numpy as np

from pbb_helpers.families import FAMILIES
from pbb_helpers.programs import Program, UsageError, family_of


@functools.lru_cache(maxsize=10_000)
def describe(program: Program, phrasing: int = 0) -> str:
    """Returns the program in words, in one line.

    The name stands in it once and moves no other word, so a renamed program has the same description but for the name.

    Args:
        program: The program.
        phrasing: Which of the many ways of saying it, a whole number from 0.

    Raises:
        UsageError: There are no words for something in the program.

    >>> describe(Program("zibble", "arithmetic", "def zibble(x):\\n    x = x + 3\\n    return x", 1))
    'zibble starts from a number x. Add 3 to x. The result is x.'
    """
    if phrasing < 0:
        raise UsageError(f"phrasing {phrasing}; give a whole number from 0")
    nameless = program.source.split("(", 1)[1]
    draws = np.random.Generator(np.random.PCG64([phrasing, int.from_bytes(hashlib.sha256(nameless.encode()).digest()[:8])]))

    def choose(options: tuple[str, ...]) -> str:
        return options[draws.integers(len(options))]

    return family_of(program).describe(program.source, choose)


def parse(text: str) -> str:
    """Returns the source of the program that a description says, as `ast.unparse` writes it.

    Raises:
        UsageError: The text is no description, or can be read in more than one way.

    >>> print(parse("zibble takes a number x. Multiply x by 2. Give back x."))
    def zibble(x):
        x = x * 2
        return x
    """
    found = {source for source, end in _read(text) if end == len(text)}
    if len(found) != 1:
        what = "can be read in more than one way" if found else "is no description"
        shown = text if len(text) <= 120 else f"{text[:100]}…"
        raise UsageError(f"{shown!r} {what}; a description reads like 'zibble takes a number x. Add 3 to x. Return x.'")
    return found.pop()


def find(text: str) -> list[str]:
    """Returns the source of every program that is described somewhere in a text, in order; of none, nothing.

    >>> find("Here it is: zibble takes a number x. Return x. And so on.")
    ['def zibble(x):\\n    return x']
    """
    lines = (text[match.start() :].split("\n", 1)[0] for match in _heads().finditer(text))
    return [source for line in lines for source in dict.fromkeys(source for source, _ in _read(line))]


def says(text: str, source: str) -> bool:
    """Returns whether a text is a description of a program of this source.

    >>> says("zibble takes a number x. Return x.", "def zibble(x):\\n    return (x)")
    True
    """
    return any(end == len(text) and read == canonical(source) for read, end in _read(text))


def canonical(source: str) -> str:
    """Returns a source as `parse` writes it, so that two that differ in spaces or brackets only are equal."""
    return ast.unparse(ast.parse(source))


@functools.lru_cache(maxsize=10_000)
def _read(text: str) -> tuple[tuple[str, int], ...]:
    """Returns every program that the beginning of a text may say, with the place where its words end."""
    found = []
    try:
        for source, end in (reading for kind in FAMILIES.values() for reading in kind.read(text)):
            try:
                found.append((canonical(source), end))
            except (SyntaxError, ValueError):  # a model may call a program or a variable `def`, which no program is
                continue
    except (RecursionError, MemoryError):  # rows of brackets that a model may write; a program that Python reads is never nested so deep
        return ()
    return tuple(found)


@functools.cache
def _heads() -> re.Pattern[str]:
    return re.compile("|".join(pattern for kind in FAMILIES.values() for pattern in kind.heads()))
