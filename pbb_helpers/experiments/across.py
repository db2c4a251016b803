"""One experiment along an axis, several base models for one: the same programs, inputs and budget, and what differs between the values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pbb_helpers.analysis import findings, intervals, statistics, verdicts
from pbb_helpers.analysis.labels import label
from pbb_helpers.data.conditions import condition
from pbb_helpers.data.documents import way_of_answering
from pbb_helpers.data.plan import Experiment
from pbb_helpers.experiments import experiment
from pbb_helpers.experiments.experiment import Results
from pbb_helpers.experiments.questions import modes_of
from pbb_helpers.programs import UsageError

IN_CODE = {"direct": "direct", "cot": "cot", "recall": "recall", "source": "source"}
IN_WORDS = {"direct": "direct", "cot": "cot", "recall_description": "recall", "description": "source"}
"""Ways of answering of a program that was learned in words, under the names that the same have in code."""


def run(plan: Experiment, models: Sequence[str], root: Path, *, processes: int | None = None, progress: Any = None) -> Results:
    """Returns what `experiment.run` gives for each of the models, in one table each, with a column `model`.

    The floors are those of any: every model gets the same programs and inputs.
    """
    plans = {model: replace(plan, model=model) for model in models}
    return run_along(plans, root, column="model", names=models, processes=processes, progress=progress)


def run_along(
    plans: Mapping[Any, Experiment],
    root: Path,
    *,
    column: str,
    names: Sequence[str] = (),
    processes: int | None = None,
    progress: Any = None,
) -> Results:
    """Returns what `experiment.run` gives for each of the plans, in one table each, their keys in `column`; the floors are those of the last.

    Raises:
        UsageError: A cell of a plan has no answers, or not those that it was asked for.
    """
    found = experiment.run_each(list(plans.values()), root, names=names, processes=processes, progress=progress)
    for each, plan in zip(found, plans.values(), strict=True):
        modes = {name: modes_of(name) for name in plan.conditions}
        statistics.require_complete(each.rows, conditions=plan.conditions, seeds=plan.seeds, modes=modes, groups=["without_io", "with_io"])
    rows, metrics = (
        pd.concat([getattr(each, kind).assign(**{column: value}) for each, value in zip(found, plans, strict=True)], ignore_index=True)
        for kind in ("rows", "metrics")
    )
    return Results(rows, metrics, found[-1].floors, experiment.reused(*found))


def in_own_words(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the answers in the representation that the condition gave the w/o IO programs in, with one name for both.

    Mode "recall" is then: write out what was learned, source or description, and step through it; "source": write it out. So a condition
    in code and one in words can be paired question by question. Answers in the other representation are left out.
    """
    kept = []
    for name, some in rows.groupby("condition", sort=False):
        names = IN_WORDS if is_in_words(name) else IN_CODE
        some = some[some["mode"].isin(names)]
        kept.append(some.assign(mode=some["mode"].map(names)))
    return pd.concat(kept).sort_index().reset_index(drop=True)


def is_in_words(name: str) -> bool:
    """Returns whether a condition shows its w/o IO programs as descriptions, in training or, untuned, in the prompt.

    >>> is_in_words("proactive"), is_in_words("code_to_description"), is_in_words("in_context_description")
    (False, True, True)
    """
    chosen = condition(name)
    if not chosen.stages:
        return any(way_of_answering(mode)[1] == "description" for mode in chosen.modes)
    return any("description" in spec.kinds_without_io() for spec in chosen.stages)


def results(rows: pd.DataFrame, *, by: Iterable[str] = ("model",)) -> pd.DataFrame:
    """Returns the table of `statistics.results` for each model (or whatever `by` names), models in the order of the rows."""
    by = list(by)
    tables = [statistics.results(some).assign(**dict(zip(by, key, strict=True))) for key, some in rows.groupby(by, sort=False)]
    table = pd.concat(tables, ignore_index=True)
    return table[[*by, *(column for column in table if column not in by)]]


def beside(table: pd.DataFrame, model: str, others: pd.DataFrame) -> pd.DataFrame:
    """Returns the table of one model and that of others as one, so that all of a notebook's arms are recorded; a line of both stands once."""
    whole = pd.concat([table.assign(model=model), others], ignore_index=True)[list(others.columns)]
    return whole.drop_duplicates(["model", "condition", "mode", "group", "seed"], ignore_index=True)


def contrasts(
    rows: pd.DataFrame, a: str, b: str, *, modes: Sequence[str], group: str = "without_io", column: str = "model"
) -> pd.DataFrame:
    """Returns the paired difference of condition `a` over `b` in each model and mode.

    Columns: `column`, mode, effect, low, high (points as shares, 95 % over programs), interval, seed_low, seed_high, n (pairs), n_programs,
    n_seeds, apart (the interval excludes zero and every seed agrees).
    """
    lines = []
    for model, some in rows.groupby(column, sort=False):
        frame = statistics.prepare(some)
        for mode in modes:
            d = statistics.paired(frame, a, b, mode=mode, group=group)
            lines.append({column: model, "mode": mode, "effect": d.mean, "low": d.low, "high": d.high, "interval": d.interval, "seed_low": d.seed_low,
                          "seed_high": d.seed_high, "n": d.n, "n_programs": d.n_programs, "n_seeds": d.n_seeds, "apart": d.apart})  # fmt: skip
    return pd.DataFrame(lines)


def claims(
    predictions: Mapping[str, Sequence[verdicts.Prediction]], rows: pd.DataFrame, table: pd.DataFrame, floors: pd.DataFrame
) -> pd.DataFrame:
    """Returns `verdicts.claims` of each model's predictions, each claim under the model's name; models that were not run are left out."""
    known = set(rows["model"])
    lines = []
    for model, some in predictions.items():
        if model in known:
            found = verdicts.claims(some, rows[rows["model"] == model], table=table[table["model"] == model], floors=floors)
            lines.append(found.assign(claim=[f"{model}: {text}" for text in found["claim"]]))
    return pd.concat(lines, ignore_index=True) if lines else pd.DataFrame(columns=list(verdicts.CLAIM))


def claims_along(
    predictions: Sequence[verdicts.Prediction], rows: pd.DataFrame, column: str, *, table: pd.DataFrame, floors: pd.DataFrame,
    condition: str = "proactive",
) -> pd.DataFrame:  # fmt: skip
    """Returns `verdicts.claims` of one condition along an axis: `a` and `b` of a prediction are values of `column`, as text, or "floor".

    The questions are the same at every value, so that the differences are paired.
    """
    return verdicts.claims(
        predictions, as_conditions(rows, column, condition), table=as_conditions(table, column, condition), floors=floors
    )


def as_conditions(table: pd.DataFrame, column: str, condition: str) -> pd.DataFrame:
    """Returns the lines of one condition, with the values of `column` in the place of conditions."""
    own = table[table["condition"] == condition]
    return own.assign(condition=own[column].astype(str))


def interactions(rows: pd.DataFrame, a: str, b: str, pairs: Iterable[tuple[str, str]], modes: Iterable[str]) -> pd.DataFrame:
    """Returns `interaction` for each pair of models that were both run, and each mode."""
    known, modes = set(rows["model"]), list(modes)
    lines = [interaction(rows, a, b, one, other, mode=mode) for one, other in pairs if {one, other} <= known for mode in modes]
    return pd.DataFrame(lines, columns=["mode", "one", "other", "effect", "low", "high", "n", "n_programs", "n_seeds", "apart"])


def headline(table: pd.DataFrame, a: str, b: str, mode: str) -> str:
    """Returns one line from the table of `contrasts`: `a` minus `b` in each model."""
    shown = table[table["mode"] == mode]
    said = "; ".join(
        f"{line.model} {findings.points(line.effect, line.low, line.high)}{'' if line.apart else ' (not shown)'}"
        for line in shown.itertuples()
    )
    seeds = "1 seed" if shown["n_seeds"].max() == 1 else f"{shown['n_seeds'].max()} seeds"
    return (f"{a} minus {b} on {label('without_io')} programs, {findings.MODE_WORDS[mode]}: {said}; n = {shown['n'].min()} pairs over "
            f"{shown['n_programs'].min()} programs per model, {seeds}")  # fmt: skip


def interaction(rows: pd.DataFrame, a: str, b: str, one: str, other: str, *, mode: str, group: str = "without_io", n_boot: int = 2000,
                seed: int = 0) -> dict[str, Any]:  # fmt: skip
    """Returns how much larger the advantage of condition `a` over `b` is in model `one` than in model `other`, question by question.

    The two models were asked the same questions, so each question gives one difference of differences; programs are resampled, seeds held.

    Returns:
        mode, one, other, effect, low, high (NaN where there are too few programs), n, n_programs, n_seeds, apart.

    Raises:
        UsageError: The models were not asked the same questions.
    """
    sides = []
    for model in (one, other):
        frame = statistics.prepare(rows[rows["model"] == model])
        sides.append(statistics.question_differences(frame, a, b, mode=mode, group=group))
    merged = sides[0].merge(sides[1], on=[*statistics.QUESTION, "cluster"], suffixes=("_one", "_other"))
    if not len(merged) == len(sides[0]) == len(sides[1]):
        raise UsageError(f"{one!r} and {other!r} were not asked the same questions in mode {mode}: {len(sides[0])} and {len(sides[1])}, "
                         f"{len(merged)} in common; run both with the same seeds and sizes")  # fmt: skip
    merged["score"] = merged["score_one"] - merged["score_other"]
    totals, counts, seeds = statistics.per_program(merged, "score")
    means = totals.sum(axis=0) / counts.sum(axis=0)
    interval = intervals.cluster_bootstrap(totals, counts, n_boot=n_boot, seed=seed)
    apart = (interval.low > 0 and means.min() > 0) or (interval.high < 0 and means.max() < 0)
    return {"mode": mode, "one": one, "other": other, "effect": float(np.mean(means)), "low": interval.low, "high": interval.high,
            "n": len(merged), "n_programs": len(totals), "n_seeds": len(seeds), "apart": bool(apart)}  # fmt: skip
