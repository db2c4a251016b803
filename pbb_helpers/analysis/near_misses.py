"""Whether a line that was recalled wrongly is wrong altogether, or has the form of the true line with other numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from pbb_helpers.analysis import beyond_chance
from pbb_helpers.analysis.traces import operation
from pbb_helpers.families.line_steps import render_step
from pbb_helpers.programs import Program, from_cell


def form(line: str) -> str:
    """Returns a line without its numbers and without the outcome of a test: 15 - 4 and 4 - 15 are one form.

    >>> form("x = 15 + 30 = 45") == form("x = 15 + 4 = 19"), form("x = 15 + 4 = 19") == form("x = 15 * 4 = 60")
    (True, False)
    >>> form("5 > 30 is False") == form("35 > 30 is True")
    True
    """
    return re.sub(r"-?[0-9]+|True|False", "N", line)


def kind(line: str) -> str:
    """Returns what a line does, from its `form`: "test", "return", "end", "turn" (of a loop) or "assignment"."""
    if line.endswith(" is N"):
        return "test"
    if line.startswith("return "):
        return "return"
    return "end" if line == "end" else "assignment" if line.count(" = ") > 1 else "turn"


def near_misses(
    errors: pd.DataFrame, programs: Mapping[tuple[int, str], Program], by: Sequence[str] = ("condition", "group"), *, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:  # fmt: skip
    """Returns how often a wrong operation has the form of the true one, beside how often it has that of another program's.

    A model that knew nothing of a program and wrote a frequent operation would often have the form right, too. So each wrong line is also held
    against the same line of other questions of its cell and seed: those whose true executions do the same kinds of things up to this line (else
    knowing that a second line is an assignment and no return would count as knowing the assignment), and for which it would not have been the
    right operation, as it never is for its own. `chance` is the share of these that have its form. True lines that are no operation (turns and
    ends of loops, returns) have nothing to be near to, and are left out.

    Args:
        errors: From `traces.first_errors`; chains of thought whose first wrong line is a "wrong operation" are judged.
        programs: From `traces.programs_of`.
        by: What to tell apart; the group must be among them.
        n_boot: Resamples.
        seed: Of the resampling.

    Returns:
        What `beyond_chance.table` does, of these answers: `share` of them has the form of the true line.
    """
    asked = errors[errors["mode"] == "cot"]
    judged = [_judged(some, programs) for _, some in asked.groupby([*by, "seed"], sort=False)]
    return beyond_chance.table(pd.concat(judged) if judged else asked.assign(same=[], chance=[]), by, n_boot=n_boot, seed=seed)


def _judged(cell: pd.DataFrame, programs: Mapping[tuple[int, str], Program]) -> pd.DataFrame:
    """Returns the wrong operations of one seed with columns same (1.0 or 0.0) and chance; one that no other question can be held against is left out."""
    true: dict[tuple[str, object], list[tuple[re.Pattern[str], str, tuple[str, ...]]]] = {}
    for seed, name, x in cell[["seed", "program", "input"]].itertuples(index=False, name=None):
        if (name, x) not in true:
            steps = programs[seed, name].trace(from_cell(x))
            forms = [form(render_step(step)) for step in steps]
            kinds = [tuple(map(kind, forms[: number + 1])) for number in range(len(forms))]
            true[name, x] = list(zip(map(operation, steps), forms, kinds, strict=True))
    wrong = cell[cell["error"] == "wrong operation"]
    same, chance = [], []
    for name, x, text, number in wrong[["program", "input", "generated", "line"]].itertuples(index=False, name=None):
        said = text.rstrip().split("\n")[number - 1]
        _, own, kinds = true[name, x][number - 1]
        others = [lines[number - 1] for (other, _), lines in true.items() if other != name and len(lines) >= number]
        forms = [its for pattern, its, done in others if done == kinds and not pattern.fullmatch(said)]
        same.append(float(form(said) == own))
        chance.append(forms.count(form(said)) / len(forms) if forms and kinds[-1] in ("assignment", "test") else float("nan"))
    return wrong.assign(same=same, chance=chance).dropna(subset=["chance"])
