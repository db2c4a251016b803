"""Ciphers in words, a sentence a line: one table of lines of Python and the phrases that say them serves writing and reading.

Slots: {n} is a whole number from 1, {numbers} several of them from 0, {letters} capitals, {count} how many `numbers` there are.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pbb_helpers.programs import UsageError

SLOTS = {"n": r"[1-9][0-9]*", "numbers": r"[0-9]+(?:, [0-9]+)+", "letters": r"[A-Z]+", "count": r"[0-9]+"}
SLOT = re.compile(r"\{(\w+)\}")
INDENT = "    "


@dataclass(frozen=True)
class Line:
    """A line of a cipher, or two that belong together, and the ways of saying it, each without its full stop."""

    python: str
    phrases: tuple[str, ...]


BEFORE = (
    Line("t = t[::-1]", ("Reverse the text", "Turn the text around")),
    Line("t = t[{n}:] + t[:{n}]", ("Move the first {n} letters of the text to its end", "Take {n} letters off the front of the text and put them at its end")),
    Line("t = ''.join((t[j:j + {n}][::-1] for j in range(0, len(t), {n})))",
         ("Cut the text into blocks of {n} letters and reverse each block", "Reverse every block of {n} letters of the text")),
    Line("a = '{letters}'", ("The alphabet is {letters}, numbered from 0", "Number the alphabet {letters} from 0")),
    Line("w = '{letters}'", ("The circle is {letters}", "Put {letters} in a circle")),
)  # fmt: skip
LOOP = (
    Line("s = ''\n    for c in t:", ("Go through the letters in turn", "Take one letter after the other")),
    Line("s = ''\n    for i, c in enumerate(t):", ("Go through the letters in turn, counting places from 0", "Take one letter after the other, its place counted from 0")),
)  # fmt: skip
EACH = (
    Line("n = ord(c) - 65", ("Number the letter, A being 0", "Take the letter's number, with A as 0")),
    Line("n = a.find(c)", ("Number the letter by the alphabet", "Take the letter's number in the alphabet")),
    Line("n = n + k", ("Add the shift", "Increase the number by the shift")),
    Line("n = n - k", ("Subtract the shift", "Decrease the number by the shift")),
    Line("n = n + k * {n}", ("Add {n} times the shift", "Increase the number by {n} times the shift")),
    Line("n = n - k * {n}", ("Subtract {n} times the shift", "Decrease the number by {n} times the shift")),
    Line("n = n + {n}", ("Add {n}", "Increase the number by {n}")),
    Line("n = n - {n}", ("Subtract {n}", "Decrease the number by {n}")),
    Line("n = 25 - n", ("Subtract the number from 25", "Take 25 minus the number")),
    Line("n = k - n", ("Subtract the number from the shift", "Take the shift minus the number")),
    Line("n = n * {n} % 26", ("Multiply by {n}, modulo 26", "Take {n} times the number, modulo 26")),
    Line("n = n + [{numbers}][i % {count}]", ("Add {numbers} in turn, one to each letter", "Increase the numbers by {numbers} in turn")),
    Line("n = n - [{numbers}][i % {count}]", ("Subtract {numbers} in turn, one from each letter", "Decrease the numbers by {numbers} in turn")),
    Line("n = n + i * {n}", ("Add {n} times the place", "Increase the number by {n} times the place")),
    Line("n = n - i * {n}", ("Subtract {n} times the place", "Decrease the number by {n} times the place")),
    Line("if c in w:\n            c = w[(w.find(c) + k) % len(w)]",
         ("If the letter is in the circle, take the one that is the shift further round it", "Move a letter of the circle on round it by the shift")),
    Line("if c in w:\n            c = w[(w.find(c) - k) % len(w)]",
         ("If the letter is in the circle, take the one that is the shift back round it", "Move a letter of the circle back round it by the shift")),
    Line("c = chr(n % 26 + 65)", ("Go on with the letter of the number modulo 26, 0 being A", "Turn the number, modulo 26, into a letter, with 0 as A")),
    Line("c = a[n % 26]", ("Go on with the alphabet's letter of the number modulo 26", "Turn the number, modulo 26, into a letter of the alphabet")),
    Line("s = s + chr(n % 26 + 65)", ("Write the letter of the number modulo 26, 0 being A", "Write down the letter with the number modulo 26, 0 being A")),
    Line("s = s + a[n % 26]", ("Write the alphabet's letter of the number modulo 26", "Write down the alphabet's letter with the number modulo 26")),
    Line("s = s + c", ("Write the letter", "Write the letter down")),
    Line("k = -k", ("Then change the sign of the shift", "Then make the shift its negative")),
    Line("k = k + {n}", ("Then add {n} to the shift", "Then increase the shift by {n}")),
    Line("k = k - {n}", ("Then subtract {n} from the shift", "Then decrease the shift by {n}")),
)  # fmt: skip
LAST = (
    Line("return s", ("Return what was written", "Give back what was written")),
    Line("return s[::-1]", ("Return what was written, reversed", "Give back what was written in reverse")),
    Line("return s[-{n}:] + s[:-{n}]", ("Return what was written, its last {n} letters moved to the front", "Move the last {n} letters of what was written to its front and give it back")),
    Line("return ''.join((s[j:j + {n}][::-1] for j in range(0, len(s), {n})))",
         ("Return what was written, every block of {n} letters reversed", "Reverse every block of {n} letters of what was written and give it back")),
)  # fmt: skip
PARTS = (BEFORE, LOOP, EACH, LAST)
LINES = (*BEFORE, *LOOP, *EACH, *LAST)
ORDER = {(0, 0), (0, 1), (1, 2), (2, 2), (2, 3)}
"""Which part may follow which: any other order is no program."""
HEADS = (
    "{name} takes a text and a shift.",
    "Given a text and a shift, {name} does this.",
    "Here is what {name} does with a text and a shift.",
)


def describe(source: str, choose: Callable[[tuple[str, ...]], str]) -> str:
    """Returns the cipher in words, in one line; `choose` picks one of the phrases that say the same.

    Raises:
        UsageError: There are no words for a line.

    >>> describe("def zibble(t, k):\\n    s = ''\\n    for c in t:\\n        n = ord(c) - 65\\n        n = n + k\\n"
    ...          '        s = s + chr(n % 26 + 65)\\n    return s', lambda phrases: phrases[0])  # doctest: +NORMALIZE_WHITESPACE
    'zibble takes a text and a shift. Go through the letters in turn. Number the letter, A being 0. Add the shift.
    Write the letter of the number modulo 26, 0 being A. Return what was written.'
    """
    head, *lines = source.split("\n")
    sentences = [choose(HEADS).format(name=head.split("(")[0].removeprefix("def "))]
    while lines:
        size, line, slots = next(
            ((size, *found) for size in (1, 2) for found in _matches("\n".join(lines[:size]).strip())), (0, LINES[0], {})
        )
        if not size:
            raise UsageError(f"the line {lines[0].strip()!r} is none of a cipher's; those that can be read and said are cipher_words.LINES")
        sentences.append(f"{choose(line.phrases).format(**slots)}.")
        del lines[:size]
    return " ".join(sentences)


def read(text: str) -> Iterator[tuple[str, int]]:
    """Yields the source of the cipher that the beginning of a text says, and where its words end; nothing where it says none."""
    head = _heads().match(text)
    if head is None:
        return
    name = next(name for name in head.groups() if name)
    source, end, stage = [f"def {name}(t, k):"], head.end(), 0
    while sentence := re.match(r" ([^.]+)\.", text[end:]):
        found = _sentence(sentence[1])
        if found is None:
            return
        line, slots = found
        now = next(i for i, part in enumerate(PARTS) if line in part)
        if (stage, now) not in ORDER:
            return
        stage, end = now, end + sentence.end()
        source.append(INDENT * (2 if line in EACH else 1) + _fill(line.python, slots))
        if line in LAST:
            yield "\n".join(source), end
            return


def heads() -> list[str]:
    """Returns the regular expressions of the sentences that a cipher in words begins with."""
    return [re.escape(head).replace(re.escape("{name}"), r"\w+") for head in HEADS]


def _fill(python: str, slots: dict[str, str]) -> str:
    return SLOT.sub(lambda slot: slots[slot[1]], python)


def _matches(text: str) -> Iterator[tuple[Line, dict[str, str]]]:
    for line in LINES:
        found = _pattern(line.python).fullmatch(text)
        if found and text == _fill(line.python, slots := _counted(found.groupdict())):
            yield line, slots


@functools.lru_cache(maxsize=10_000)
def _sentence(sentence: str) -> tuple[Line, dict[str, str]] | None:
    for line in LINES:
        for phrase in line.phrases:
            if found := _pattern(phrase).fullmatch(sentence):
                return line, _counted(found.groupdict())
    return None


def _counted(slots: dict[str, str]) -> dict[str, str]:
    return slots | {"count": str(slots["numbers"].count(",") + 1)} if "numbers" in slots else slots


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """Returns the regular expression of a template: a slot that comes twice is the same both times."""
    seen: set[str] = set()
    parts = []
    for i, part in enumerate(SLOT.split(template)):
        if i % 2 == 0:
            parts.append(re.escape(part))
        else:
            parts.append(f"(?P={part})" if part in seen else f"(?P<{part}>{SLOTS[part]})")
            seen.add(part)
    return re.compile("".join(parts))


@functools.cache
def _heads() -> re.Pattern[str]:
    return re.compile("|".join(pattern.replace(r"\w+", r"(\w+)") for pattern in heads()))
