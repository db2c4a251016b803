"""The chain of thought of a cipher: a line a letter, read from the true trace. Look-ups are silent, arithmetic is spelled out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pbb_helpers.programs import Step, UsageError

LOOKUP = re.compile(r"\[[\d, ]+\]\[i % \d+\]|w\.find\(c\)|len\(w\)|\b[nki]\b")
"""What an expression is filled in for: 3 in place of `[3, 1][i % 2]`, 23 in place of `n`."""
SILENT = ("n = ord(c) - 65", "n = a.find(c)", "c = chr(n % 26 + 65)", "c = a[n % 26]")
"""Lines whose result stands in the next piece."""


def letter_by_letter(steps: Iterable[Step]) -> list[str]:
    """Returns the lines of an execution: "X: 23 + 5 = 28, C" for the letter X, its number, the shift, and the letter written.

    A change of the text's order and the returned text are lines of their own; "yes" and "no" say whether a letter is in the circle.

    Raises:
        UsageError: A line is of a kind that has no rendering.
    """
    lines: list[list[str]] = []
    for step in steps:
        head, _, expression = step.line.partition(" = ")
        if step.line.startswith("return "):
            # The loop's head ran once more than its body: the line that it began is not one.
            return [*(f"{start} {', '.join(pieces)}" for start, *pieces in lines[:-1]), f"return {step.value}"]
        if step.line.startswith("for "):
            lines.append([f"{step.after.get('c')}:"])
        elif step.line == "if c in w:":
            lines[-1].append("yes" if step.before["c"] in step.before["w"] else "no")
        elif step.line in SILENT or step.line == "s = ''" or head in ("a", "w"):
            continue
        elif head == "t":
            lines.append(["t =", step.after["t"]])
        elif head == "s":
            lines[-1].append(step.after["s"][-1])
        elif head == "c":
            index = expression.removeprefix("w[").removesuffix("]")
            lines[-1].append(f"{_filled(index, step)} = {step.before['w'].find(step.after['c'])}")
        elif head in ("n", "k"):
            sum_ = "" if expression == "-k" else f"{_filled(expression, step)} = "
            lines[-1].append(f"{'k = ' if head == 'k' else ''}{sum_}{step.after[head]}")
        else:
            raise UsageError(f"no step-by-step rendering for the line {step.line!r} of a cipher; extend cipher_steps.letter_by_letter")
    raise UsageError("an execution without a return has no step-by-step rendering")


def _filled(expression: str, step: Step) -> str:
    return LOOKUP.sub(lambda found: str(_looked_up(found[0], step.before)), expression)


def _looked_up(text: str, values: dict[str, Any]) -> int:
    """Returns what one of the look-ups gives in a state."""
    if text == "w.find(c)":
        return values["w"].find(values["c"])
    if text == "len(w)":
        return len(values["w"])
    if text in values:
        return values[text]
    *key, count = map(int, re.findall(r"\d+", text))
    return key[values["i"] % count]
