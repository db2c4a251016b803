"""Random Arithmetic: small integer programs from int to int under made-up names.

The paper's data set of this name is synthetic Python with made-up names (arXiv 2506.18777v1); its operators, control flow and
ranges are not known, so those below are our choice: + - * // % abs min max, comparisons, if/else and for loops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from pbb_helpers.families import arithmetic_words
from pbb_helpers.families.plain import Plain
from pbb_helpers.programs import Program, UsageError, draw_distinct

# Each operator with the constants that it draws from, both ends included: small enough that values stay in two or three digits.
OPERATORS: dict[str, tuple[str, int, int]] = {
    "add": ("x + {c}", 2, 30),
    "subtract": ("x - {c}", 2, 30),
    "subtract_from": ("{c} - x", 10, 60),
    "multiply": ("x * {c}", 2, 4),
    "divide": ("x // {c}", 2, 5),
    "modulo": ("x % {c}", 4, 20),
    "maximum": ("max(x, {c})", 10, 40),
    "minimum": ("min(x, {c})", 10, 40),
    "distance": ("abs(x - {c})", 5, 40),
}
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
CONSTRUCTS = ("assign", "if", "for")
INDENT = "    "
MOST_STATEMENTS = 12
"""Of longer ones hardly a draw stays within the values that are allowed (of twelve statements one in sixty, of twenty none in 500): they would take hours to draw."""


@dataclass(frozen=True)
class Arithmetic(Plain):
    """The settings of one distribution of programs.

    Attributes:
        min_statements: Fewest top-level statements of a program, the return not counted.
        max_statements: Most of them. An if/else or a loop is one statement.
        constructs: Which of "assign", "if" and "for" may occur.
        weights: How often each construct is drawn, in the order of `constructs`.
        lowest_input: The smallest input.
        highest_input: The largest input.
        lowest_value: No variable is ever below this, at any step, on any input.
        highest_value: Nor above this.
    """

    name: str = field(default="arithmetic", init=False)
    min_statements: int = 1
    max_statements: int = 2
    constructs: tuple[str, ...] = CONSTRUCTS
    weights: tuple[float, ...] = (0.8, 0.12, 0.08)
    lowest_input: int = 0
    highest_input: int = 49
    lowest_value: int = -99
    highest_value: int = 199

    def __post_init__(self) -> None:
        if not 1 <= self.min_statements <= self.max_statements <= MOST_STATEMENTS:
            raise UsageError(
                f"statements from {self.min_statements} to {self.max_statements}; give 1 <= min_statements <= max_statements <= {MOST_STATEMENTS}"
            )
        weighted = len(self.weights) == len(self.constructs) and min(self.weights, default=0) >= 0 and sum(self.weights) > 0
        if not self.constructs or set(self.constructs) - set(CONSTRUCTS) or not weighted:
            raise UsageError(
                f"constructs {self.constructs} with weights {self.weights}; choose from {', '.join(CONSTRUCTS)}, one weight of 0 or more each"
            )
        if not self.lowest_value <= self.lowest_input < self.highest_input <= self.highest_value:
            raise UsageError(
                f"inputs {self.lowest_input}..{self.highest_input} do not lie within values {self.lowest_value}..{self.highest_value}"
            )

    @staticmethod
    def describe(source: str, choose: Callable[[tuple[str, ...]], str]) -> str:
        """Returns a program in words; see `programs.Family`."""
        return arithmetic_words.describe(source, choose)

    @staticmethod
    def read(text: str) -> Iterator[tuple[str, int]]:
        """Yields what a text may say; see `programs.Family`."""
        return arithmetic_words.read(text)

    @staticmethod
    def heads() -> list[str]:
        """Returns how a program in words begins; see `programs.Family`."""
        return arithmetic_words.heads()

    def inputs(self) -> list[int]:
        """Returns every input, in order."""
        return list(range(self.lowest_input, self.highest_input + 1))

    def draw(self, names: list[str], generator: np.random.Generator, *, exclude: Iterable[tuple] = ()) -> list[Program]:
        """Returns one program per name; see `programs.Family.draw`.

        Beside being different in behaviour, each has values in range on every input, assignments that each change x on at least half of
        their executions, and an output that is neither near constant nor mostly the input, which keeps what can be guessed low. Short
        programs run out first, so later ones are longer: shuffle before splitting them into groups.

        Raises:
            UsageError: The settings do not hold that many different programs.
        """
        inputs = self.inputs()

        def accept(program: Program, outputs: tuple) -> bool:
            return self.informative(inputs, outputs) and self._every_statement_acts(program, inputs)

        return draw_distinct(names, lambda name: self.sketch(name, generator), inputs, accept=accept, exclude=exclude, tries=5_000,
                             what=f"programs of {self.min_statements} to {self.max_statements} statements", unit="statements")  # fmt: skip

    def sketch(self, name: str, generator: np.random.Generator) -> Program:
        """Returns one program whose values are in range at both ends and in the middle of the inputs, without the guarantees of `draw`."""
        while True:
            length = int(generator.integers(self.min_statements, self.max_statements + 1))
            lines = [line for _ in range(length) for line in self._statement(generator)]
            body = "\n".join(INDENT + line for line in lines)
            program = Program(name, self.name, f"def {name}(x):\n{body}\n{INDENT}return x", length)
            middle = (self.lowest_input + self.highest_input) // 2
            if all(self.in_range(program, x) for x in (self.lowest_input, self.highest_input, middle)):
                return program

    def in_range(self, program: Program, x: int) -> bool:
        """Returns whether every intermediate value of `program` at `x` lies in the stated range."""
        return all(self.lowest_value <= step.after["x"] <= self.highest_value for step in program.trace(x))

    def _statement(self, generator: np.random.Generator) -> list[str]:
        construct = self.constructs[_weighted(self.weights, generator)]
        if construct == "assign":
            return [_assignment(generator)]
        if construct == "if":
            comparison = COMPARISONS[generator.integers(len(COMPARISONS))]
            # == and != on a drawn constant would nearly always fall on one side, so they compare a remainder.
            test = (
                f"x % {generator.integers(2, 5)} {comparison} 0"
                if comparison in ("==", "!=")
                else f"x {comparison} {generator.integers(10, 41)}"
            )
            return [f"if {test}:", INDENT + _assignment(generator), "else:", INDENT + _assignment(generator)]
        repeats = int(generator.integers(2, 5))
        body = ("add", "subtract") if repeats > 2 else ("add", "subtract", "multiply", "divide")
        return [f"for i in range({repeats}):", INDENT + _assignment(generator, body, largest=9)]

    @staticmethod
    def informative(inputs: list[int], outputs: tuple[int, ...]) -> bool:
        """Returns whether the outputs are neither near constant nor mostly the inputs, so that little can be had by guessing."""
        commonest = Counter(outputs).most_common(1)[0][1]
        unchanged = sum(x == y for x, y in zip(inputs, outputs, strict=True))
        return commonest <= 0.34 * len(inputs) and unchanged <= 0.2 * len(inputs)

    def _every_statement_acts(self, program: Program, inputs: list[int]) -> bool:
        """Whether values stay in range on every input, and each assignment changes x on at least half of its executions."""
        runs: Counter[tuple[str, int]] = Counter()
        idle: Counter[tuple[str, int]] = Counter()
        for x in inputs:
            seen: Counter[str] = Counter()
            for step in program.trace(x):
                if not self.lowest_value <= step.after["x"] <= self.highest_value:
                    return False
                if step.line.startswith("x ="):
                    seen[step.line] += 1
                    runs[step.line, seen[step.line]] += 1
                    idle[step.line, seen[step.line]] += step.before["x"] == step.after["x"]
        return all(idle[key] <= 0.5 * count for key, count in runs.items())


def _weighted(weights: tuple[float, ...], generator: np.random.Generator) -> int:
    return int(np.searchsorted(np.cumsum(weights), generator.random() * sum(weights), side="right"))


def _assignment(generator: np.random.Generator, operators: tuple[str, ...] = tuple(OPERATORS), largest: int = 10**6) -> str:
    template, low, high = OPERATORS[operators[generator.integers(len(operators))]]
    return "x = " + template.format(c=generator.integers(low, min(high, largest) + 1))
