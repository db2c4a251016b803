"""Ciphers: programs from a text and a shift to a text, familiar ones and ones built from parts, under made-up names.

The paper's data set of this name (arXiv 2506.18777v1) is not known in detail: the parts, the texts and their lengths are our choice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from pbb_helpers.families import cipher_steps, cipher_words
from pbb_helpers.families.cipher_parts import ALPHABET, BLOCKS, CIRCLE, UNITS, Cipher, checked_shift, keyed
from pbb_helpers.programs import Program, Step, UsageError, did_you_mean, draw_distinct

VOWELS = "AEIOU"
KEYWORDS = (
    "CIPHER",
    "KEYWORD",
    "LEMON",
    "MONARCHY",
    "PALMERSTON",
    "QUARTZ",
    "REPUBLIC",
    "SILVER",
    "THUNDER",
    "WIZARD",
    "ZEBRA",
)
TEXTS = ("words", "letters")
LONGEST = 1_000
"""Letters of the longest text."""
POOL = 5_000
"""Texts of random letters, equal ones among them."""
PARTS = {
    "shift": 5.0,
    "constant": 1.0,
    "mirror": 1.0,
    "times": 1.0,
    "key": 2.0,
    "place": 1.0,
    "circle": 1.0,
    "schedule": 1.5,
    "order": 1.0,
    "alphabet": 0.5,
}
"""The kinds of parts and how often each is drawn; a cipher has at most one of each."""


@dataclass(frozen=True)
class Ciphers:
    """The settings of one distribution of ciphers. Half of those drawn encode, half decode.

    Attributes:
        min_statements: Fewest parts of a cipher.
        max_statements: Most of them.
        parts: Which kinds of `PARTS` may occur.
        texts: "words" (common English ones, words.txt) or "letters" (at random).
        min_letters: Of the shortest text.
        max_letters: Of the longest text.
        n_texts: How many texts there are.
        lowest_shift: The smallest shift, from 0.
        highest_shift: The largest shift, up to 25.
        shifted: Whether only ciphers are drawn that hang on the shift: which make at least half as many different things of a text, on
            average, as there are shifts.
    """

    takes: ClassVar[str] = "text"
    line_a_step: ClassVar[bool] = False
    name: str = field(default="ciphers", init=False)
    min_statements: int = 1
    max_statements: int = 2
    parts: tuple[str, ...] = tuple(PARTS)
    texts: str = "words"
    min_letters: int = 3
    max_letters: int = 4
    n_texts: int = 40
    lowest_shift: int = 1
    highest_shift: int = 25
    shifted: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.min_statements <= self.max_statements:
            raise UsageError(f"parts from {self.min_statements} to {self.max_statements}; give 1 <= min_statements <= max_statements")
        for part in self.parts:
            if part not in PARTS:
                raise did_you_mean("part of a cipher", part, PARTS)
        if self.max_statements > len(self.parts) or not set(self.parts) - {"schedule", "order", "alphabet"}:
            raise UsageError(
                f"{self.max_statements} different parts of {', '.join(self.parts) or 'nothing'}; allow more, one that changes letters among them"
            )
        if self.texts not in TEXTS:
            raise did_you_mean("texts", self.texts, TEXTS)
        if not 3 <= self.min_letters <= self.max_letters <= LONGEST:  # in two letters some orders are all the same
            raise UsageError(
                f"texts of {self.min_letters} to {self.max_letters} letters; give 3 <= min_letters <= max_letters <= {LONGEST}"
            )
        checked_shift(self.lowest_shift)
        if checked_shift(self.highest_shift) <= self.lowest_shift:
            raise UsageError(f"shifts {self.lowest_shift} to {self.highest_shift}; give lowest_shift < highest_shift")
        _texts(self.texts, self.min_letters, self.max_letters, self.n_texts)

    @staticmethod
    def steps(steps: Iterable[Step]) -> list[str]:
        """Returns the lines of a chain of thought; see `programs.Family`."""
        return cipher_steps.letter_by_letter(steps)

    @staticmethod
    def describe(source: str, choose: Callable[[tuple[str, ...]], str]) -> str:
        """Returns a program in words; see `programs.Family`."""
        return cipher_words.describe(source, choose)

    @staticmethod
    def read(text: str) -> Iterator[tuple[str, int]]:
        """Yields what a text may say; see `programs.Family`."""
        return cipher_words.read(text)

    @staticmethod
    def heads() -> list[str]:
        """Returns how a program in words begins; see `programs.Family`."""
        return cipher_words.heads()

    def inputs(self) -> list[tuple[str, int]]:
        """Returns every text at every shift, in order."""
        texts = _texts(self.texts, self.min_letters, self.max_letters, self.n_texts)
        return [(text, shift) for text in texts for shift in range(self.lowest_shift, self.highest_shift + 1)]

    def draw(self, names: list[str], generator: np.random.Generator, *, exclude: Iterable[tuple] = ()) -> list[Program]:
        """Returns one program per name; see `programs.Family.draw`. None leaves more than a fifth of the inputs' texts as they are.

        Raises:
            UsageError: The settings do not hold that many different programs.
        """
        inputs = self.inputs()

        def enciphers(program: Program, outputs: tuple) -> bool:
            different = len({(text, output) for (text, _), output in zip(inputs, outputs, strict=True)})
            plain = sum(text == output for (text, _), output in zip(inputs, outputs, strict=True))
            return plain <= 0.2 * len(inputs) and not (self.shifted and different < 0.5 * len(inputs))

        return draw_distinct(names, lambda name: self.sketch(name, generator), inputs, accept=enciphers, exclude=exclude, tries=2_000,
                             what=f"ciphers of {self.min_statements} to {self.max_statements} parts", unit="parts")  # fmt: skip

    def sketch(self, name: str, generator: np.random.Generator) -> Program:
        """Returns one cipher without the guarantees of `draw`."""
        cipher = self.cipher(generator)
        return (cipher if generator.random() < 0.5 else cipher.inverse()).program(name)

    def cipher(self, generator: np.random.Generator) -> Cipher:
        """Returns one cipher, to encode with; every part of it acts."""
        weights = np.array([PARTS[part] for part in self.parts])
        while True:
            length = int(generator.integers(self.min_statements, self.max_statements + 1))
            chosen = [self.parts[i] for i in generator.choice(len(self.parts), length, replace=False, p=weights / weights.sum())]
            drawn = {part: DRAWS[part](generator) for part in chosen}
            letters = tuple(drawn[part] for part in chosen if part not in ("schedule", "order", "alphabet"))
            on_number = any(line.startswith("n = ") for line in letters)
            # A keyed alphabet says nothing without a number, a schedule nothing without a shift, and a circle alone leaves most letters.
            idle = ("alphabet" in drawn and not on_number) or ("schedule" in drawn and not any("k" in line for line in letters))
            if letters and not idle:
                circle = _circle(generator) if "circle" in drawn else ""
                return Cipher(letters, drawn.get("schedule", ""), drawn.get("order", ""), "", drawn.get("alphabet", ALPHABET), circle)


def _number(generator: np.random.Generator, low: int, high: int) -> int:
    return int(generator.integers(low, high + 1))


def _one(options: tuple[str, ...], generator: np.random.Generator, low: int, high: int) -> str:
    return options[generator.integers(len(options))].replace("{n}", str(_number(generator, low, high)))


def _key(generator: np.random.Generator) -> str:
    while True:
        numbers = generator.integers(0, 10, size=_number(generator, 2, 3)).tolist()
        if len(set(numbers)) > 1:
            return keyed(numbers)


def _circle(generator: np.random.Generator) -> str:
    return (VOWELS, *KEYWORDS)[_number(generator, 0, len(KEYWORDS))]


def _alphabet(generator: np.random.Generator) -> str:
    return "".join(dict.fromkeys(KEYWORDS[_number(generator, 0, len(KEYWORDS) - 1)] + ALPHABET))


DRAWS: dict[str, Callable[[np.random.Generator], str]] = {
    "shift": functools.partial(_one, ("n = n + k", "n = n + k * {n}"), low=2, high=5),
    "constant": functools.partial(_one, ("n = n + {n}", "n = n - {n}"), low=2, high=12),
    "mirror": functools.partial(_one, ("n = 25 - n", "n = k - n"), low=0, high=0),
    "times": lambda generator: f"n = n * {UNITS[generator.integers(len(UNITS))]} % 26",
    "key": _key,
    "place": functools.partial(_one, ("n = n + i * {n}", "n = n - i * {n}"), low=2, high=9),
    "circle": lambda generator: CIRCLE,
    "schedule": functools.partial(_one, ("k = -k", "k = k + {n}", "k = k - {n}"), low=1, high=9),
    "order": functools.partial(_one, ("T[::-1]", "T[2:] + T[:2]", BLOCKS), low=2, high=3),
    "alphabet": _alphabet,
}


@functools.cache
def _texts(kind: str, shortest: int, longest: int, count: int) -> tuple[str, ...]:
    """Returns the texts in alphabetical order: always the same ones, and fewer of them are some of more."""
    draws = np.random.Generator(np.random.PCG64(2506_18777))
    if kind == "words":
        words = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split("\n", 1)[1].upper().split()
        every = [word for word in words if shortest <= len(word) <= longest]
        every = [every[i] for i in draws.permutation(len(every))]
    else:
        lengths = draws.integers(shortest, longest + 1, size=POOL)
        letters = draws.integers(26, size=(POOL, longest))
        every = list(dict.fromkeys("".join(ALPHABET[i] for i in row[:n]) for row, n in zip(letters, lengths, strict=True)))
    if not 1 <= count <= len(every):
        raise UsageError(
            f"{count} texts of {shortest} to {longest} letters; there are {len(every)}: give 1 to {len(every)}, or other lengths"
        )
    return tuple(sorted(every[:count]))
