"""Whether answers hold anything of the program that they are about: each is held against the other programs of its group as well.

The floor is the best score of a strategy that knows no program, and a model need not play it: below the floor it may still know something.
What the very same answers would score on other programs, at the same input, is what they are right by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pbb_helpers.analysis.intervals import cluster_bootstrap, t_interval
from pbb_helpers.analysis.statistics import CELL, per_program
from pbb_helpers.analysis.verdicts import CLAIM, NOT_RUN, came_true, verdict
from pbb_helpers.data import conditions
from pbb_helpers.programs import Program, from_cell

COLUMNS = ("n", "n_programs", "n_seeds", "share", "chance", "excess", "low", "high", "seed_least", "seed_most", "seed_low", "seed_high")


def right(
    rows: pd.DataFrame, programs: Mapping[tuple[int, str], Program], by: Sequence[str] = CELL, *, modes: Sequence[str] = ("direct", "cot", "recall"),
    n_boot: int = 2000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Returns how often answers are right, beside how often they would be for the other programs that are asked in their seed and group.

    Of a model that knows nothing of its programs, whatever else it does, the two are alike: which of the programs has which name is chance.

    Args:
        rows: Answers.
        programs: From `traces.programs_of`.
        by: What to tell apart; the group must be among them.
        modes: The ways of answering that are looked at.
        n_boot, seed: As `table` takes them.

    Returns:
        What `table` does, `share` being the accuracy.
    """
    asked = rows[rows["mode"].isin(modes)]
    judged = []
    for (its_seed, _), some in asked.groupby(["seed", "group"], sort=False):
        names = list(some["program"].unique())
        there = {name: number for number, name in enumerate(names)}
        given = {x: [str(programs[its_seed, name].run(from_cell(x))) for name in names] for x in some["input"].unique()}
        chance = []
        for name, x, answer in some[["program", "input", "answer"]].itertuples(index=False, name=None):
            others = given[x][: there[name]] + given[x][there[name] + 1 :]
            chance.append(others.count(answer) / len(others) if others else float("nan"))
        judged.append(some.assign(same=some["correct"].astype(float), chance=chance).dropna(subset=["chance"]))
    return table(pd.concat(judged, ignore_index=True) if judged else asked.assign(same=[], chance=[]), by, n_boot=n_boot, seed=seed)


def as_read(rows: pd.DataFrame, programs: Mapping[tuple[int, str], Program], by: Sequence[str] = CELL) -> pd.DataFrame:
    """Returns what `right` does of the arms with shuffled sources, each answer about a w/o IO program held against the one whose source its name had.

    Args:
        rows: Answers of any arms; the others are left out.
        programs: From `traces.programs_of` with `shuffled`.
        by: As `right` takes it.
    """
    shuffled = rows["condition"].map(lambda name: conditions.condition(name).shuffled) & (rows["group"] == "without_io")
    return right(judged_by(rows[shuffled.astype(bool)], programs), programs, by)


def judged_by(rows: pd.DataFrame, programs: Mapping[tuple[int, str], Program]) -> pd.DataFrame:
    """Returns the answers to calls, `correct` as the program of `programs` has it: of an arm whose names have another's source, by what it read."""
    rows = rows[rows["input"].notna()]  # asked for a source, there is no output to judge
    asked = rows[["seed", "program", "input", "answer"]].itertuples(index=False, name=None)
    return rows.assign(correct=[answer == str(programs[seed, name].run(from_cell(x))) for seed, name, x, answer in asked])


def table(judged: pd.DataFrame, by: Sequence[str], *, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Returns shares beside those by chance.

    Args:
        judged: A line per answer with columns `by`, seed, program, same (1.0 or 0.0: what is counted) and chance (its probability without knowledge).
        by: What to tell apart.
        n_boot: Resamples.
        seed: Of the resampling.

    Returns:
        Columns `by`, n (answers), n_programs, n_seeds, share, chance, excess (share minus chance), low, high (its 95 % interval, over programs; NaN
        where there are too few of them), seed_least, seed_most (the excess in single seeds), seed_low, seed_high (its 95 % t interval over them).
        Share, chance and excess are means over seeds of means over answers.
    """
    # A name in two seeds is two programs.
    judged = judged.assign(
        excess=judged["same"] - judged["chance"],
        cluster=judged["seed"].astype(str) + "/" + judged["program"],
        seed=judged["seed"].astype(str),
    )
    lines = []
    for key, cell in judged.groupby(list(by), sort=False):
        totals, counts, _ = per_program(cell, "excess")
        interval = cluster_bootstrap(totals, counts, n_boot=n_boot, seed=seed)
        means = cell.groupby("seed")[["same", "chance", "excess"]].mean()
        share, chance, excess = means.mean()
        seed_low, seed_high = t_interval(list(means["excess"]), lowest=-1.0)
        lines.append(
            dict(zip(by, key, strict=True))
            | {"n": len(cell), "n_programs": len(totals), "n_seeds": len(means), "share": share, "chance": chance, "excess": excess}
            | {"low": interval.low, "high": interval.high, "seed_least": means["excess"].min(), "seed_most": means["excess"].max()}
            | {"seed_low": seed_low, "seed_high": seed_high}
        )
    return pd.DataFrame(lines, columns=[*by, *COLUMNS])


def claims(predictions: Sequence[tuple[str, str, str]], table: pd.DataFrame) -> pd.DataFrame:
    """Returns what came of predictions about w/o IO programs, as `verdicts.claims` does.

    Args:
        predictions: (text, condition, what is expected of its excess) each.
        table: From `table`, of one mode; a condition that has no line there (it was not asked, or nothing in it can be judged) is "not run".
    """
    cells = table[table["group"] == "without_io"].set_index("condition")
    lines = []
    for text, condition, expected in predictions:
        found: dict[str, Any] = dict(NOT_RUN)
        if condition in cells.index:
            cell = cells.loc[condition]
            found = {"verdict": verdict(cell["low"], cell["high"], (cell["seed_least"], cell["seed_most"])), "effect": cell["excess"]}
            found |= {name: cell[name] for name in ("low", "high", "seed_low", "seed_high", "n", "n_programs", "n_seeds")}
        came = came_true(expected, found["verdict"], found["low"], found["high"])
        lines.append({"claim": text, "expected": expected} | found | {"came_true": came})
    return pd.DataFrame(lines, columns=list(CLAIM))
