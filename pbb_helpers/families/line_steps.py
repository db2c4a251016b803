"""A chain of thought with a line a step, the values put in for the variables: that of every family but ciphers."""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Iterable
from typing import Any

from pbb_helpers.programs import Program, Step, UsageError

STEP = re.compile(r"(?P<target>[A-Za-z_]\w*) = (?:(?P<expression>.+) = )?-?[0-9]+|(?P<test>.+) is (?:True|False)|return -?[0-9]+|end")
"""What a line of an execution looks like: an assignment, a turn of a loop, a test, a return or the end of a loop (`line_steps.render_step`)."""


def step_by_step(steps: Iterable[Step]) -> list[str]:
    """Returns the lines of an execution, one a step; raises as `render_step` does."""
    return [render_step(step) for step in steps]


def render_step(step: Step) -> str:
    """Returns one executed line as text: an assignment, a test, a turn of a loop or a return.

    Raises:
        UsageError: The line is of a kind that has no rendering yet.
    """
    kind, head = _kind(step.line)
    if kind == "assign":
        target = head.split(" = ", 1)[0]
        return f"{target} = {_filled(head.split(' = ', 1)[1], step.before)} = {step.after[target]}"
    if kind == "if":
        test = _filled(head, step.before)
        return f"{test} is {eval(_compiled(test), {'__builtins__': {}})}"  # noqa: S307 - a comparison of numbers from a real trace
    if kind == "for":
        # The header runs once more than the body: its last visit leaves the loop variable as it was.
        return f"{head} = {step.after[head]}" if step.after != step.before else "end"
    return f"return {step.value}"


def is_step(line: str, program: Program) -> bool:
    """Returns whether a line could be of an execution of some program with the parameters of this one: right or wrong, but with the values put in.

    >>> f = Program("f", "arithmetic", "def f(x):\\n    x = x + 3\\n    return x", 1)
    >>> [is_step(line, f) for line in ("x = 5 + 3 = 9", "max(2, 3) > 4 is True", "i = 0", "return 5", "end")]
    [True, True, True, True, True]
    >>> [is_step(line, f) for line in ("5", "x = 8", "x = 5 + = 8", "x = x + 3 = 8", "hello is True", "5 + 3 is True", "return")]
    [False, False, False, False, False, False, False]
    """
    match = STEP.fullmatch(line)
    if match is None:
        return False
    if match["test"]:
        return isinstance(_expression(match["test"]), ast.Compare)
    return _expression(match["expression"]) is not None if match["expression"] else match["target"] not in _parameters(program.source)


@functools.lru_cache(maxsize=10_000)
def _parameters(source: str) -> tuple[str, ...]:
    """Returns the names of what a function takes: unlike the variable of a loop, none gets a number without an expression."""
    return tuple(source.partition("(")[2].partition(")")[0].split(", "))


@functools.lru_cache(maxsize=10_000)
def _expression(text: str) -> ast.expr | None:
    """Returns an expression of whole numbers, operators and functions; None for any other text."""
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):  # of Python, on numbers run into words
            found = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    called = {id(node.func) for node in ast.walk(found) if isinstance(node, ast.Call)}
    plain = all(
        type(node.value) is int if isinstance(node, ast.Constant) else not isinstance(node, ast.Name) or id(node) in called
        for node in ast.walk(found)
    )
    return found if plain else None


@functools.lru_cache(maxsize=10_000)
def _kind(line: str) -> tuple[str, str]:
    if match := re.match(r"for (\w+) in .*:$", line):
        return "for", match[1]
    if match := re.match(r"(?:if|elif) (.*):$", line):
        return "if", match[1]
    if line.startswith("return "):
        return "return", line
    if re.match(r"\w+ = ", line):
        return "assign", line
    raise UsageError(
        f"no step-by-step rendering for the line {line!r}; valid are assignments, if, for and return; extend line_steps.render_step"
    )


@functools.lru_cache(maxsize=10_000)
def _compiled(test: str) -> Any:
    return compile(test, "<test>", "eval")


def _filled(expression: str, values: dict[str, Any]) -> str:
    return re.sub(r"[A-Za-z_]\w*", lambda match: str(values.get(match[0], match[0])), expression)
