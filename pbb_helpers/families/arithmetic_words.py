"""Random Arithmetic in words: one table serves writing and reading.

A pattern of Python stands beside the phrases that say the same. Capital letters stand for parts, in the patterns and in the phrases: V is
a variable, C a number from 1, A and B are operands (a number, a variable, or an expression in parentheses), E is any expression, T a test,
S and R are short statements, X and Y are sentences, N is the program's name.

The words say what Python does: "round down" is towards minus infinity, and a remainder that is never negative is that of `%` by a number
from 1.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pbb_helpers.programs import UsageError

SLOT = re.compile(r"\b[A-Z]\b")
INTEGER = re.compile(r"(?:0|-?[1-9][0-9]*)(?!\w)")
POSITIVE = re.compile(r"[1-9][0-9]*(?!\w)")
WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class Rule:
    """A pattern of Python and the phrases that say it."""

    python: str
    phrases: tuple[str, ...]
    pattern: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        statement = ast.parse(self.python).body[0]
        object.__setattr__(self, "pattern", statement.value if isinstance(statement, ast.Expr) else statement)


# The first pattern that fits a piece of a program is the one whose phrases are used; common ones come first.
EXPRESSIONS = (
    Rule("A + B", ("A plus B", "the sum of A and B")),
    Rule("A - B", ("A minus B", "A reduced by B")),
    Rule("A * B", ("A times B", "the product of A and B")),
    Rule("A // B", ("A divided by B, rounded down", "the quotient of A and B, rounded down")),
    Rule("A % C", ("A modulo C", "the remainder, never negative, of A divided by C")),
    Rule("A % B", ("the remainder of A divided by B with the quotient rounded down",)),
    Rule("max(A, B)", ("the larger of A and B", "the maximum of A and B")),
    Rule("min(A, B)", ("the smaller of A and B", "the minimum of A and B")),
    Rule("abs(A - B)", ("the distance between A and B",)),
    Rule("abs(A)", ("the absolute value of A",)),
)
TESTS = (
    Rule("V % 2 == 0", ("V is even", "V is a multiple of 2")),
    Rule("V % 2 != 0", ("V is odd", "V is not a multiple of 2")),
    Rule("V % C == 0", ("V is divisible by C", "V is a multiple of C")),
    Rule("V % C != 0", ("V is not divisible by C", "V is not a multiple of C")),
    Rule("A < B", ("A is less than B", "A is below B")),
    Rule("A <= B", ("A is at most B", "A is no more than B")),
    Rule("A > B", ("A is greater than B", "A is above B")),
    Rule("A >= B", ("A is at least B", "A is no less than B")),
    Rule("A == B", ("A equals B", "A is equal to B")),
    Rule("A != B", ("A differs from B", "A is not equal to B")),
)
SHORT = (
    Rule("V = V + C", ("add C to V", "increase V by C", "raise V by C")),
    Rule("V = V - C", ("subtract C from V", "decrease V by C", "take C away from V")),
    Rule("V = C - V", ("set V to C minus V", "replace V by C minus V", "subtract V from C to get the new V")),
    Rule("V = V * C", ("multiply V by C", "make V C times as large", "scale V by C")),
    Rule("V = V // C", ("divide V by C and round down", "divide V by C, rounding down", "set V to V divided by C, rounded down")),
    Rule("V = V % C", ("reduce V modulo C", "replace V by its remainder, never negative, after dividing by C",
                       "divide V by C and keep the remainder, never negative")),
    Rule("V = max(V, C)", ("set V to the larger of V and C", "raise V to C if it is smaller", "replace V by the maximum of V and C")),
    Rule("V = min(V, C)", ("set V to the smaller of V and C", "lower V to C if it is larger", "cap V at C")),
    Rule("V = abs(V - C)", ("set V to the distance between V and C", "replace V by its distance from C",
                            "subtract C from V and drop the sign")),
    Rule("V = E", ("set V to E", "let V be E")),
    Rule("return E", ("return E", "give back E", "the result is E")),
)  # fmt: skip
CONTROL = (
    Rule("if T:\n    S\nelse:\n    R", ("if T, S; otherwise, R", "if T, then S; if not, R", "when T, S; else, R")),
    Rule("if T:\n    S", ("if T, S", "only if T, S")),
    Rule("if T:\n    X\nelse:\n    Y", ("check whether T. If so: X If not: Y That ends the check",
                                        "test whether T. When it is: X When it is not: Y That ends the test")),
    Rule("if T:\n    X", ("check whether T. If so: X That ends the check", "test whether T. When it is: X That ends the test")),
)  # fmt: skip
LOOPS = (
    Rule("for i in range(C):\n    S", ("repeat C times: S", "do this C times: S")),
    Rule("for i in range(C):\n    X", ("repeat the following C times: X That ends the repetition",
                                       "do all of this C times: X That ends the repetition")),
)  # fmt: skip
COUNTED_LOOPS = (
    Rule("for V in range(C):\n    S", ("repeat C times, with V counting up from 0: S", "do this C times, V counting up from 0: S")),
    Rule("for V in range(C):\n    X", ("repeat the following C times, with V counting up from 0: X That ends the repetition",
                                       "do all of this C times, V counting up from 0: X That ends the repetition")),
)  # fmt: skip
HEADS = ("N takes a number V.", "N starts from a number V.", "Given a number V, N does this.", "Here is what N does with a number V.")
STATEMENTS = SHORT + CONTROL + LOOPS + COUNTED_LOOPS
RULES = EXPRESSIONS + TESTS + STATEMENTS
VOCABULARY = frozenset(
    word.lower()
    for phrase in (*HEADS, *(phrase for rule in RULES for phrase in rule.phrases))
    for word in WORD.findall(phrase)
    if not SLOT.fullmatch(word)
)
"""The words that phrases are made of: no variable may be called by one."""


def describe(source: str, choose: Callable[[tuple[str, ...]], str]) -> str:
    """Returns the program in words, in one line; `choose` picks one of the phrases that say the same.

    Raises:
        UsageError: There are no words for something in the program.
    """
    return _Writer(choose, _function(source)).program()


def read(text: str) -> Iterator[tuple[str, int]]:
    """Yields the source of every program that the beginning of a text may say, and where its words end."""
    return _Reader(text).program(0)


def heads() -> list[str]:
    """Returns the regular expressions of the sentences that a program in words begins with."""
    return [SLOT.sub(r"\\w+", re.escape(head)) for head in HEADS]


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:100]}…"


# ---------------------------------------------------------------- writing


def _function(source: str) -> ast.FunctionDef:
    function, *others = ast.parse(source).body
    plain = isinstance(function, ast.FunctionDef) and not others and not function.decorator_list and function.returns is None
    if not isinstance(function, ast.FunctionDef) or not plain or not WORD.fullmatch(ast.unparse(function.args)):
        raise UsageError(f"no words for {_short(source)!r}; give one function of one argument, with no default, annotation or decorator")
    returns = [isinstance(statement, ast.Return) for statement in function.body]
    if not returns[-1] or any(returns[:-1]):
        raise UsageError(f"no words for {_short(source)!r}; its last line, and no other of its outermost lines, must be a return")
    return function


class _Writer:
    """Writes one function; `choose` picks a phrase among those that say the same."""

    def __init__(self, choose: Callable[[tuple[str, ...]], str], function: ast.FunctionDef) -> None:
        self.choose, self.function = choose, function
        read = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        # A loop need not name a variable that nobody reads.
        self.statements = SHORT + CONTROL + (COUNTED_LOOPS if "i" in read else LOOPS + COUNTED_LOOPS)

    def program(self) -> str:
        argument = ast.Name(self.function.args.args[0].arg)
        parts = {"N": self.function.name, "V": self.part("V", argument)}
        return f"{SLOT.sub(lambda slot: parts[slot[0]], self.choose(HEADS))} {self.part('X', self.function.body)}"

    def part(self, kind: str, node: Any) -> str:
        """Returns the words for the part of a program that stands in a slot."""
        if kind in "XY":
            return " ".join(f"{_capital(self.phrase(self.statements, statement))}." for statement in node)
        if kind in "SR":
            return self.phrase(SHORT, node[0])
        if kind == "T":
            return self.phrase(TESTS, node)
        if isinstance(node, ast.Name):
            if node.id in VOCABULARY or not WORD.fullmatch(node.id):
                raise UsageError(f"the variable {node.id!r} reads like a word of the description; give it another name")
            return node.id
        if _is_number(node):
            return ast.unparse(node)
        words = self.phrase(EXPRESSIONS, node)
        return words if kind == "E" else f"({words})"

    def phrase(self, rules: tuple[Rule, ...], node: ast.AST) -> str:
        for rule in rules:
            found: dict[str, Any] = {}
            if _fits(rule.pattern, node, found):
                return "".join(self.part(part, found[part]) if part in found else part for part in _parts(self.choose(rule.phrases)))
        raise UsageError(f"no words for {_short(ast.unparse(node))!r}; there are some for {', '.join(_constructs())}; extend the rules")


def _constructs() -> list[str]:
    return [rule.python.split("\n")[0] for rule in (*EXPRESSIONS, *TESTS[4:], SHORT[-2], SHORT[-1], CONTROL[0], COUNTED_LOOPS[0])]


def _fits(pattern: Any, node: Any, found: dict[str, Any]) -> bool:
    """Whether a piece of a program is of a pattern; what stands in the slots is put into `found`."""
    if isinstance(pattern, list):
        if len(pattern) == 1 and isinstance(pattern[0], ast.Expr) and isinstance(pattern[0].value, ast.Name):
            slot = pattern[0].value.id
            found[slot] = node
            short = len(node) == 1 and isinstance(node[0], (ast.Assign, ast.Return))
            return bool(node) if slot in "XY" else short
        return len(pattern) == len(node) and all(_fits(p, n, found) for p, n in zip(pattern, node, strict=True))
    if isinstance(pattern, ast.Name) and SLOT.fullmatch(pattern.id):
        before = found.setdefault(pattern.id, node)
        if pattern.id == "V":
            return isinstance(node, ast.Name) and node.id == getattr(before, "id", None)
        if pattern.id == "C":
            return _is_number(node) and getattr(node, "value", 0) > 0
        return True
    if isinstance(pattern, ast.AST):
        if type(pattern) is not type(node):
            return False
        fields = (name for name in pattern._fields if name not in ("ctx", "type_comment", "kind"))
        return all(_fits(getattr(pattern, name), getattr(node, name), found) for name in fields)
    return type(pattern) is type(node) and pattern == node


def _is_number(node: ast.AST) -> bool:
    """Whether a node is a whole number that could stand in a description, "-3" or "0"; True is none."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) is int and node.operand.value > 0
    return isinstance(node, ast.Constant) and type(node.value) is int


def _capital(phrase: str) -> str:
    return phrase[0].upper() + phrase[1:]


# ---------------------------------------------------------------- reading


class _Reader:
    """Reads a text in every way that the rules allow. Each method returns pairs of a source and the place in the text where it ends."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.part = functools.cache(self._part)

    def program(self, start: int) -> Iterator[tuple[str, int]]:
        for head in HEADS:
            for found, end in self._phrase(_parts(head), start, {}):
                for body, last in self._body(end):
                    source = f"def {found['N']}({found['V']}):\n{textwrap.indent(body, '    ')}"
                    yield source, last

    def _body(self, start: int) -> Iterator[tuple[str, int]]:
        """The sentences up to the first outermost return."""
        for sentence, end in self.part(".", start + 1) if self.text.startswith(" ", start) else ():
            if sentence.startswith("return "):
                yield sentence, end
            else:
                yield from ((f"{sentence}\n{rest}", last) for rest, last in self._body(end))

    def _part(self, kind: str, start: int) -> list[tuple[str, int]]:
        """Returns the ways to read a slot, or a sentence where the kind is "."."""
        if kind in "VCN":
            match = (POSITIVE if kind == "C" else WORD).match(self.text, start)
            return [(match[0], match.end())] if match and not (kind == "V" and match[0] in VOCABULARY) else []
        if kind == "T":
            return self._rules(TESTS, start)
        if kind in "SR":
            return self._rules(SHORT, start)
        if kind == ".":
            ends = self._rules(STATEMENTS, start, capital=True)
            return [(source, end + 1) for source, end in ends if self.text.startswith(".", end)]
        if kind in "XY":
            first = self.part(".", start)
            more = [
                (f"{one}\n{rest}", last) for one, end in first if self.text.startswith(" ", end) for rest, last in self.part("X", end + 1)
            ]
            return [*first, *more]
        number = INTEGER.match(self.text, start)
        atoms = [*self.part("V", start), *([(number[0], number.end())] if number else [])]
        if kind == "E":
            return [*atoms, *self._rules(EXPRESSIONS, start)]
        inside = self.part("E", start + 1) if self.text.startswith("(", start) else []
        return [*atoms, *((f"({source})", end + 1) for source, end in inside if self.text.startswith(")", end))]

    def _rules(self, rules: tuple[Rule, ...], start: int, *, capital: bool = False) -> list[tuple[str, int]]:
        ways = {
            (_filled(rule.python, found), end): None
            for rule in rules
            for phrase in rule.phrases
            for found, end in self._phrase(_parts(_capital(phrase) if capital else phrase), start, {})
        }
        return list(ways)

    def _phrase(self, parts: tuple[str, ...], start: int, found: dict[str, str]) -> Iterator[tuple[dict[str, str], int]]:
        if not parts:
            yield found, start
        elif not SLOT.fullmatch(parts[0]):
            if self.text.startswith(parts[0], start):
                yield from self._phrase(parts[1:], start + len(parts[0]), found)
        else:
            for source, end in self.part(parts[0], start):
                if found.get(parts[0], source) == source:
                    yield from self._phrase(parts[1:], end, {**found, parts[0]: source})


@functools.cache
def _parts(phrase: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"(\b[A-Z]\b)", phrase) if part)


def _filled(python: str, found: dict[str, str]) -> str:
    """Returns a pattern with the sources in its slots, a block indented as its slot is."""
    lines = (re.fullmatch(r"(\s*)(.*)", line) for line in python.split("\n"))
    return "\n".join(textwrap.indent(SLOT.sub(lambda slot: found[slot[0]], line[2]), line[1]) for line in lines if line)
