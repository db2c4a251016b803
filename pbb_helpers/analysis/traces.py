"""Where a generated execution goes wrong: the first wrong line, and whether the program was recalled wrongly or run wrongly there.

A line of a chain of thought is an operation with the values put in, and its result. Up to the first wrong line the state is the true one, so
that line can be judged alone: another operation than the program's is wrong recall; the right one on other values is a wrong state;
the right one on the right values with another result is wrong arithmetic. A line that is no step of any program, such as a bare answer, is wrong in its form:
it says nothing of what was recalled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

from pbb_helpers.analysis.intervals import wilson
from pbb_helpers.analysis.labels import label
from pbb_helpers.analysis.statistics import begins_with
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.specs import StageSpec, without_io_sources
from pbb_helpers.families.line_steps import is_step, render_step
from pbb_helpers.programs import Program, Step, UsageError, family_of, from_cell

ERRORS = ("right", "wrong arithmetic", "wrong state", "wrong operation", "not a step", "source not written first", "wrong end")
"""What a generated execution is; "source not written first" in recall mode only: another program's, or none (`recall.recalled` tells these apart);
"wrong end" where every line is right, but there are fewer than in the true one, or more."""
TRACED = ("cot", "recall")
NUMBER = r"(-?[0-9]+)"


def first_error(program: Program, x: object, mode: str, generated: str) -> tuple[str, int, int]:
    """Returns what the generated execution is, the number of its first wrong line (from 1; 0 where it is right or the source does not come first), and
    how many lines the true one has.

    >>> f = Program("f", "arithmetic", "def f(x):\\n    x = x + 3\\n    x = x * 2\\n    return x", 2)
    >>> first_error(f, 5, "cot", "x = 5 + 3 = 8\\nx = 8 * 2 = 18\\nreturn 18")
    ('wrong arithmetic', 2, 3)

    Raises:
        UsageError: The program is of a family whose lines hold several operations, as those of a cipher, a letter each, do.
    """
    if not family_of(program).line_a_step:
        raise UsageError(
            f"{program.name} is of the family {program.family}: first wrong lines are told apart for families whose lines are one operation each"
        )
    steps = program.trace(x)
    if mode == "recall":
        if not begins_with(generated, program.source):
            return "source not written first", 0, len(steps)
        generated = generated[len(program.source) + 1 :]
    lines = generated.rstrip().split("\n") if generated.strip() else []
    for number, step in enumerate(steps, start=1):
        if number > len(lines):
            return "wrong end", number, len(steps)
        if lines[number - 1] != render_step(step):
            return _error(step, lines[number - 1], program), number, len(steps)
    return ("right", 0, len(steps)) if len(lines) == len(steps) else ("wrong end", len(steps) + 1, len(steps))


def _error(step: Step, line: str, program: Program) -> str:
    pattern, values = _expected(step)
    match = re.fullmatch(pattern, line)
    if match is None:
        return "wrong operation" if is_step(line, program) else "not a step"
    return "wrong arithmetic" if list(match.groups()[: len(values)]) == values else "wrong state"


def operation(step: Step) -> re.Pattern[str]:
    """Returns the pattern of the line of a step with its operation, whatever the values in it and the result."""
    return re.compile(_expected(step)[0])


def _expected(step: Step) -> tuple[str, list[str]]:
    """Returns the pattern of the line with any values in it, and the values that the state puts in. The result is a further group."""
    if step.line.startswith("for "):
        variable = step.line.split()[1]
        return (f"{variable} = {NUMBER}", [str(step.after[variable])]) if step.after != step.before else ("end", [])
    if step.line.startswith("return "):
        return f"return {NUMBER}", [str(step.value)]
    operation, tail = (
        (step.line.removeprefix("if ").rstrip(":"), " is (True|False)") if step.line.startswith("if ") else (step.line, f" = {NUMBER}")
    )
    target, _, expression = operation.rpartition(" = ") if not step.line.startswith("if ") else ("", "", operation)
    values = [str(step.before[name]) for name in re.findall(r"[A-Za-z_]\w*", expression) if name in step.before]
    filled = "".join(NUMBER if part in step.before else re.escape(part) for part in re.split(r"([A-Za-z_]\w*)", expression))
    return (f"{re.escape(target)} = " if target else "") + filled + tail, values


def programs_of(experiment: Experiment, *, shuffled: bool = False) -> dict[tuple[int, str], Program]:
    """Returns every program of an experiment by seed and name; with `shuffled` a w/o IO name has the program whose source the shuffled arms read under it."""
    spec = StageSpec("stage2", shuffled=shuffled)
    datasets = {seed: experiment.dataset(seed) for seed in experiment.seeds}
    return {(seed, program.name): program for seed, data in datasets.items() for program in data.with_io + without_io_sources(spec, data)}


def first_errors(rows: pd.DataFrame, programs: Mapping[tuple[int, str], Program]) -> pd.DataFrame:
    """Returns the answers in modes that step through the execution, with columns error, line (of the first error, from 1) and lines (of the true one)."""
    traced = rows[rows["mode"].isin(TRACED)].reset_index(drop=True)
    found = [
        first_error(programs[seed, name], from_cell(x), mode, text)
        for seed, name, x, mode, text in traced[["seed", "program", "input", "mode", "generated"]].itertuples(index=False, name=None)
    ]
    return traced.assign(**{column: [line[i] for line in found] for i, column in enumerate(("error", "line", "lines"))})


def shares(errors: pd.DataFrame, by: tuple[str, ...] = ("condition", "group", "mode")) -> pd.DataFrame:
    """Returns, for each cell, how many answers and which share of them is of each kind in `ERRORS`.

    Columns `by`, error, n, share, low, high (95 % Wilson on the number of programs: answers about one program are not independent).
    """
    lines = []
    for cell, answers in errors.groupby(list(by), sort=False):
        counts, programs = answers["error"].value_counts(), number_of_programs(answers)
        for error in ERRORS:
            share = counts.get(error, 0) / len(answers)
            low, high = wilson(share, programs)
            said = {"error": error, "n": int(counts.get(error, 0)), "share": share, "low": low, "high": high}
            lines.append(dict(zip(by, cell, strict=True)) | said)
    return pd.DataFrame(lines, columns=[*by, "error", "n", "share", "low", "high"])


def steps_run(errors: pd.DataFrame, by: tuple[str, ...] = ("condition", "group", "mode")) -> pd.DataFrame:
    """Returns how often a line that has the program's operation is run wrongly: arithmetic or state.

    Wrong operations come first in an execution and hide what would have been run wrongly after them; so of all answers few fail in arithmetic, however
    badly the model calculates. Here the lines that were recalled rightly are counted, up to the first wrong one.

    Returns:
        Columns `by`, lines (with the program's operation), wrong (of these), share, low, high (95 % Wilson on the number of programs).
    """
    run_wrongly = errors["error"].isin(["wrong arithmetic", "wrong state"])
    reached = errors["line"].where(errors["error"] != "right", errors["lines"] + 1) - 1  # lines that are right before the first wrong one
    reached = reached.where(errors["error"] != "source not written first", 0) + run_wrongly
    rows = []
    for cell, answers in errors.assign(reached=reached, run_wrongly=run_wrongly).groupby(list(by), sort=False):
        lines, wrong = int(answers["reached"].sum()), int(answers["run_wrongly"].sum())
        programs = number_of_programs(answers[answers["reached"] > 0])
        share = wrong / lines if lines else float("nan")
        rows.append((*cell, lines, wrong, share, *(wilson(share, programs) if lines else (float("nan"), float("nan")))))
    return pd.DataFrame(rows, columns=[*by, "lines", "wrong", "share", "low", "high"])


def number_of_programs(rows: pd.DataFrame) -> int:
    """Returns how many programs the answers are about; a name in two seeds is two programs."""
    return len(rows[["seed", "program"]].drop_duplicates())


def still_right(errors: pd.DataFrame, *, fewest: int = 5) -> pd.DataFrame:
    """Returns the share of executions that are right up to each line, of those whose true execution has that line.

    Args:
        errors: From `first_errors`.
        fewest: Executions that a line must have; longer ones are too few to say anything.

    Returns:
        condition, mode, line (0 is the source, in recall mode), n, share, low, high (95 % Wilson on the number of programs: answers about
        one program are not independent).
    """
    found = []
    for (condition, mode), cell in errors.groupby(["condition", "mode"], sort=False):
        right, not_written = cell["error"] == "right", cell["error"] == "source not written first"
        for line in range(0 if mode == "recall" else 1, int(cell["lines"].max()) + 1):
            there = cell["lines"] >= line
            if (n := int(there.sum())) >= fewest:
                share = float((there & ~not_written & (right | (cell["line"] > line))).sum() / n)
                found.append((condition, mode, line, n, share, *wilson(share, number_of_programs(cell[there]))))
    return pd.DataFrame(found, columns=["condition", "mode", "line", "n", "share", "low", "high"])


def in_words(errors: pd.DataFrame, condition: str, mode: str, group: str = "without_io") -> str:
    """Returns a sentence on what the executions of a condition are, and of the wrong ones how many fail on their first line."""
    cell = errors[(errors["condition"] == condition) & (errors["mode"] == mode) & (errors["group"] == group)]
    if cell.empty:
        return f"{condition} was not asked in mode {mode} about {label(group)} programs."
    counts, n = cell["error"].value_counts(), len(cell)
    wrong = ", ".join(f"{100 * counts[error] / n:.0f} % {error}" for error in ERRORS[1:] if counts.get(error))
    first = int((cell["line"] == 1).sum())
    tail = f"; {first} of the {n - counts.get('right', 0)} wrong ones fail on their first line" if wrong else ""
    right = counts.get("right", 0) / n
    low, high = wilson(right, number_of_programs(cell))
    return (f"Of {n} executions of {label(group)} programs by {condition} ({label(mode)}), {100 * right:.0f} % ({100 * low:.0f} to {100 * high:.0f} %) are right "
            f"line by line{f', {wrong}' if wrong else ''}{tail}.")  # fmt: skip
