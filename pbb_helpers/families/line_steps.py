"""A chain of thought with a line a step, the values put in for the variables: that of every family but ciphers."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

from pbb_helpers.programs import Step, UsageError


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
