"""Notebook 04: the same experiment on models of several sizes, and with several numbers of w/ IO programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open

from pbb_helpers.analysis import findings, reading, statistics
from pbb_helpers.analysis.labels import label
from pbb_helpers.data.plan import Experiment
from pbb_helpers.experiments import across, profiles, questions
from pbb_helpers.experiments.experiment import Results
from pbb_helpers.notebook import parameters
from pbb_helpers.programs import UsageError, did_you_mean
from pbb_helpers.training.model_files import find

CONDITIONS = ("in_context", "proactive")
PROFILES = {
    "smoke": replace(profiles.PROFILES["smoke"], conditions=CONDITIONS),
    "quick": replace(profiles.QUICK, conditions=CONDITIONS, seeds=(0, 1, 2)),
    "full": replace(profiles.FULL, conditions=CONDITIONS),
}
MODELS = {
    "smoke": ("pbb-xs", "pbb-s"),
    "quick": ("pbb-xs", "pbb-s", "pbb-m"),
    "full": ("pbb-xs", "pbb-s", "pbb-m", "pbb-l", "pbb-xl"),
}
NUMBERS = {"smoke": (8, 12), "quick": (50, 200, 400, 800, 1600, 3200), "full": (50, 100, 200, 400, 800, 1600, 3200)}
EXPOSURES = ("shared", "kept")


class Given(BaseModel):
    """The parameters that this notebook has beside those of every experiment."""

    model_config = ConfigDict(strict=True)

    models: list[str] | None = None
    numbers: list[int] | None = None
    exposures: str = "shared"
    match: str = "documents"


class Scaling(NamedTuple):
    """What the notebook runs: `sizes` on each of `models`, and one experiment for each number of w/ IO programs; either may be none."""

    sizes: Experiment
    models: tuple[str, ...]
    by_number: dict[int, Experiment]


def plan(values: Mapping[str, Any]) -> Scaling:
    """Returns what the parameters of the notebook ask for; `values` is its `globals()`.

    Raises:
        UsageError: A parameter is not valid.
    """
    given = parameters(Given, values)
    base = profiles.experiment(values, PROFILES)
    base = replace(base, budget=replace(base.budget, match=given.match))
    sizes, models = (base, ()) if given.models == [] else profiles.experiments(values, PROFILES, MODELS)
    if given.exposures not in EXPOSURES:
        raise did_you_mean("exposures", given.exposures, EXPOSURES)
    numbers = given.numbers if given.numbers is not None else NUMBERS[values["profile"]]
    if min(numbers, default=1) < 1 or len(set(numbers)) < len(numbers):
        raise UsageError(f"numbers {list(numbers)}; give numbers of w/ IO programs of 1 or more, each once, or [] for none")
    if not models and not numbers:
        raise UsageError("models [] and numbers []; one of the two axes must have values")
    return Scaling(sizes, models, {n: _with(base, n, max(numbers), given.exposures) for n in sorted(numbers)})


def _with(base: Experiment, number: int, drawn: int, exposures: str) -> Experiment:
    """Returns the experiment with that many w/ IO programs; with exposures "kept" stage 1 grows and shrinks with them."""
    factor = number / base.n_with_io if exposures == "kept" else 1.0
    budget = replace(base.budget, stage1_steps=max(1, math.ceil(base.budget.stage1_steps * factor)))
    return replace(base, n_with_io=number, n_with_io_drawn=drawn, budget=budget)


def run(plans: Mapping[int, Experiment], root: Path, *, processes: int | None = None, progress: Any = None) -> Results:
    """Returns what `experiment.run` gives for each number of w/ IO programs, in one table each, with a column `n_with_io`.

    The floors are those with the most programs to guess from, the highest there are.
    """
    names = [f"{number:,} w/ IO programs" for number in plans]
    return across.run_along(plans, root, column="n_with_io", names=names, processes=processes, progress=progress)


def facts(scaling: Scaling) -> dict[str, Any]:
    """Returns what a reader must know of the sizes, in words and numbers."""
    by_size = profiles.facts(scaling.sizes, scaling.models)
    if not scaling.models:
        by_size |= {"first axis": "left out"}
    if not scaling.by_number:
        return by_size | {"second axis": "left out"}
    steps = {n: one.budget.stage1_steps for n, one in scaling.by_number.items()}
    one = next(iter(scaling.by_number.values()))
    grows = len(set(steps.values())) > 1
    return by_size | {
        "second axis: model": one.model,
        "second axis: w/ IO programs, per seed": ", ".join(f"{n:,}" for n in steps),
        "second axis: steps of stage 1": ", ".join(f"{n:,}: {count:,}" for n, count in steps.items())
        if grows
        else "the same for all, so that each of more programs is seen less often",
    }


def table(scaling: Scaling) -> pd.DataFrame:
    """Returns the same as a table of two columns."""
    return reading.facts(facts(scaling))


def sizes(names: Iterable[str], *, trust_remote_code: bool = False) -> dict[str, int]:
    """Returns the number of parameters of each model, the smallest first, read from the headers of its files; tied ones count once."""
    found = {}
    for name in names:
        total = 0
        for path in find(name, trust_remote_code=trust_remote_code)[0].glob("*.safetensors"):
            with safe_open(path, framework="numpy") as file:
                total += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
        found[name] = total
    return dict(sorted(found.items(), key=lambda item: item[1]))


def headline(
    rows: pd.DataFrame, values: Sequence[Any], *, column: str = "n_with_io", mode: str | None = None, condition: str = "proactive"
) -> str:
    """Returns one line: what the last of the values of an axis adds to the one before it, and to the first.

    Args:
        rows: The answers, with `column`.
        values: Of the axis, in order.
        column: "n_with_io" or "model".
        mode: Of the answers; by default recall, or the first that the condition is asked in.
        condition: Whose answers.
    """

    def said(value: Any) -> str:
        return f"{value:,}" if column == "n_with_io" else f"{value}"

    unit = " w/ IO programs" if column == "n_with_io" else ""
    *others, largest = values
    if not others:
        return f"{said(largest)}{unit}, one alone: nothing to compare"
    asked = questions.modes_of(condition)
    mode = mode or ("recall" if "recall" in asked else asked[0])
    frame = statistics.prepare(across.as_conditions(rows, column, condition))
    parts = []
    for other in dict.fromkeys((others[-1], others[0])):
        d = statistics.paired(frame, str(largest), str(other), mode=mode, group="without_io")
        parts.append(f"{said(other)} {findings.points(d.mean, d.low, d.high)}{'' if d.apart else ' (not shown)'}")
    return (f"{condition} with {said(largest)}{unit} on {label('without_io')} programs, {findings.MODE_WORDS[mode]}, minus that with {'; with '.join(parts)}; "
            f"n = {d.n} pairs over {d.n_programs} programs, {d.n_seeds} seed{'s' if d.n_seeds > 1 else ''}")  # fmt: skip
