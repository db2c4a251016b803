"""One cipher: the parts that it is run in, as Python, the cipher that undoes it, and the familiar ones.

Texts are in capitals, as in classical cryptography, so that no text reads like a name or a word of Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pbb_helpers.programs import Program, UsageError

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
UNITS = tuple(n for n in range(3, 26) if np.gcd(n, 26) == 1)
INDENT = "    "


@dataclass(frozen=True)
class Cipher:
    """A cipher as the parts that it is run in, each an expression or a line of Python; `inverse` is made of them too.

    Attributes:
        letters: What is done to each letter, in order: statements on its number n, or `CIRCLE` ones on the letter c itself.
        schedule: What becomes of the shift k after each letter; "" for nothing.
        before: An expression in T that the text is replaced by at first; "" for none.
        after: The same of what was written, at last.
        alphabet: The letters in the order of their numbers.
        circle: The letters that a `CIRCLE` statement moves among each other.
    """

    letters: tuple[str, ...]
    schedule: str = ""
    before: str = ""
    after: str = ""
    alphabet: str = ALPHABET
    circle: str = ""

    def inverse(self) -> Cipher:
        """Returns the cipher that undoes this one, at the same shift."""
        return Cipher(
            tuple(map(_undone, reversed(self.letters))),
            self.schedule,
            _put_back(self.after),
            _put_back(self.before),
            self.alphabet,
            self.circle,
        )

    @property
    def length(self) -> int:
        """The number of parts."""
        return len(self.letters) + sum(map(bool, (self.schedule, self.before, self.after))) + (self.alphabet != ALPHABET)

    def program(self, name: str) -> Program:
        """Returns the cipher as a function of a text t and a shift k."""
        keyed = self.alphabet != ALPHABET
        number, letter = ("n = a.find(c)", "a[n % 26]") if keyed else ("n = ord(c) - 65", "chr(n % 26 + 65)")
        top = [f"t = {self.before.replace('T', 't')}"] if self.before else []
        top += [f"a = '{self.alphabet}'"] if keyed else []
        top += [f"w = '{self.circle}'"] if self.circle else []
        each, numbered = [], False
        for line in self.letters:
            on_number = line.startswith("n = ")
            if on_number != numbered:
                each.append(number if on_number else f"c = {letter}")
            numbered = on_number
            each += line.split("\n")
        each += [f"s = s + {letter if numbered else 'c'}", *([self.schedule] if self.schedule else [])]
        loop = (
            "for i, c in enumerate(t):"
            if any(re.search(r"\bi\b", line) for line in self.letters if line.startswith("n"))
            else "for c in t:"
        )
        end = f"return {self.after.replace('T', 's') or 's'}"
        lines = [*top, "s = ''", loop, *(INDENT + line for line in each), end]
        return Program(name, "ciphers", "\n".join([f"def {name}(t, k):", *(INDENT + line for line in lines)]), self.length)

    def encode(self, text: str, shift: int) -> str:
        """Returns the text enciphered, by running the program.

        Raises:
            UsageError: The text has a letter, or the shift is one, that ciphers are not defined for.

        >>> caesar().encode("HAL", 1), caesar().decode("IBM", 1)
        ('IBM', 'HAL')
        """
        return self.program("cipher").run((checked_text(text), checked_shift(shift)))

    def decode(self, text: str, shift: int) -> str:
        """Returns the text that `encode` makes this one of at the same shift. Raises as `encode` does."""
        return self.inverse().encode(text, shift)


# ---------------------------------------------------------------- the familiar ones


def caesar() -> Cipher:
    """Returns the cipher that moves every letter on by the shift."""
    return Cipher(("n = n + k",))


def atbash() -> Cipher:
    """Returns the cipher that turns the alphabet around, whatever the shift."""
    return Cipher(("n = 25 - n",))


def vigenere(key: str) -> Cipher:
    """Returns the cipher that adds the letters of a key in turn, and the shift; at shift 0 it is the textbook's.

    Raises:
        UsageError: The key has fewer than two letters, or others than A to Z.
    """
    if len(checked_text(key)) < 2:
        raise UsageError(f"key {key!r}; give at least two letters, for one is a Caesar cipher")
    return Cipher((keyed([ALPHABET.index(letter) for letter in key]), "n = n + k"))


def affine(factor: int) -> Cipher:
    """Returns the cipher that multiplies a letter's number and adds the shift.

    Raises:
        UsageError: The factor has a divisor in common with 26, so that letters would fall together.
    """
    if factor not in (1, *UNITS):
        raise UsageError(f"factor {factor}; choose from 1, {', '.join(map(str, UNITS))}, which have no divisor in common with 26")
    return Cipher((f"n = n * {factor} % 26", "n = n + k"))


# ---------------------------------------------------------------- parts

CIRCLE = "if c in w:\n    c = w[(w.find(c) + k) % len(w)]"
BLOCKS = "''.join((T[j:j + {n}][::-1] for j in range(0, len(T), {n})))"


def keyed(numbers: Iterable[int]) -> str:
    """Returns the statement that adds the numbers in turn.

    >>> keyed([3, 1])
    'n = n + [3, 1][i % 2]'
    """
    numbers = list(numbers)
    return f"n = n + {numbers}[i % {len(numbers)}]"


def _undone(line: str) -> str:
    """Returns the statement on a letter that undoes one."""
    if match := re.fullmatch(r"n = n \* (\d+) % 26", line):
        return f"n = n * {pow(int(match[1]), -1, 26)} % 26"
    if "- n" in line:  # 25 - n and k - n undo themselves
        return line
    place = re.search(r"(?<=n) [+-] |(?<=\)) [+-] (?=k\))", line)
    assert place, line  # whatever else acts on a letter adds or takes away
    return line[: place.start()] + {" + ": " - ", " - ": " + "}[place[0]] + line[place.end() :]


def _put_back(text: str) -> str:
    """Returns the expression that undoes a change of the text's order: a rotation turns around, the others undo themselves."""
    if match := re.fullmatch(r"T\[(-?)(\d+):\] \+ T\[:\1\2\]", text):
        places = f"{'' if match[1] else '-'}{match[2]}"
        return f"T[{places}:] + T[:{places}]"
    return text


def checked_text(text: str) -> str:
    """Returns the text; raises UsageError where it has a letter that ciphers are not defined for."""
    if not isinstance(text, str):
        raise UsageError(f"text {text!r} is none; give capitals A to Z")
    if wrong := sorted(set(text) - set(ALPHABET)):
        raise UsageError(f"text {text!r} has {', '.join(map(repr, wrong))}; ciphers are defined for the capitals A to Z")
    return text


def checked_shift(shift: int) -> int:
    """Returns the shift; raises UsageError where it lies outside the alphabet."""
    if type(shift) is not int or shift not in range(len(ALPHABET)):
        raise UsageError(f"shift {shift!r} lies outside the alphabet; give a whole number from 0 to {len(ALPHABET) - 1}")
    return shift
