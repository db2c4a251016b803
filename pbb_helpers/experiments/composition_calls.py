"""Which program a composition calls, once its source is written: its own part, or one that was shown being called?"""

from __future__ import annotations

import math
import re

import pandas as pd

from pbb_helpers.analysis import intervals, traces
from pbb_helpers.data.datasets import Dataset
from pbb_helpers.data.plan import Experiment
from pbb_helpers.experiments.composition_results import true_lines

SLOTS = ("inner", "outer")
PARTS = ("w/ IO, shown in this slot", "w/ IO, shown in the other slot", "w/ IO, in no shown composition", "w/o IO")
"""Whether the part that should be called was demonstrated, and whether a demonstrated composition calls it in this slot."""
CALLED = ("the part", "the other part", "another, shown in this slot", "another program", "no call")
REACHED = {"inner": ("inner call", "inner part", "outer call", "value passed on", "outer part", "right"),
           "outer": ("outer call", "value passed on", "outer part", "right")}  # fmt: skip
"""Places of the first wrong line (`composition_results.PLACES`) at which everything before the call of a slot is right."""
AFTER = {"inner": REACHED["outer"], "outer": ("right",)}
"""Places at which what follows the call of a slot, the execution of its part, is right too."""


def calls(answers: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Returns which name stands in each call of answers in recall mode that are right up to there, by what the called part is.

    The name has just been written: it stands in the composition's own source, two lines above or further up. A model that copies it calls any part
    equally well; one that has learned which names are called calls those that it was shown. And a part that is called may still not be recalled there.

    Args:
        answers: From `composition_results.beside_parts`.
        experiment: Theirs.

    Returns:
        Columns condition, slot (of `SLOTS`), part (of `PARTS`), n (answers), n_programs (compositions), the shares of each of `CALLED`, low and
        high (95 % Wilson of "the part" on the number of compositions), then_right (of the calls of the part, the share whose execution is right;
        NaN where there are none), seed_least and seed_most (the share of "the part" in single seeds).
    """
    asked = answers[(answers["mode"] == "recall") & (answers["group"] == "without_io")]
    lines = []
    for seed, some in asked.groupby("seed", sort=False):
        dataset = experiment.dataset(seed)
        programs = {program.name: program for program in dataset.without_io}
        hidden, shown = set(programs), shown_in(dataset)
        for row in some.itertuples():
            program = programs[row.program]
            written = row.generated.rstrip().split("\n")
            places = [place for place, _ in true_lines(program, int(row.input), "recall")]
            for (slot, parts), part in zip(shown.items(), program.calls, strict=True):
                if row.place not in REACHED[slot]:
                    break
                elsewhere = any(part.name in others for others in shown.values())
                kind = PARTS[3 if part.name in hidden else 0 if part.name in parts else 1 if elsewhere else 2]
                other = next(own.name for own in program.calls if own is not part)
                at = places.index(f"{slot} call")
                called = _who(written[at : at + 1], part.name, other, parts)
                lines.append((row.condition, slot, kind, seed, program.name, called, row.place in AFTER[slot]))
    found = pd.DataFrame(lines, columns=["condition", "slot", "part", "seed", "program", "called", "then_right"])
    table = []
    for (condition, slot, part), cell in found.groupby(["condition", "slot", "part"], sort=False):
        counts, compositions = cell["called"].value_counts(), traces.number_of_programs(cell)
        shares = {name: counts.get(name, 0) / len(cell) for name in CALLED}
        its = cell["called"] == "the part"
        by_seed = its.groupby(cell["seed"]).mean()
        bounds = intervals.wilson(shares["the part"], compositions)
        then = cell.loc[its, "then_right"].mean() if its.any() else math.nan
        table.append((condition, slot, part, len(cell), compositions, *shares.values(), *bounds, then, by_seed.min(), by_seed.max()))
    order = {name: i for i, name in enumerate((*SLOTS, *PARTS))}
    columns = ["condition", "slot", "part", "n", "n_programs", *CALLED, "low", "high", "then_right", "seed_least", "seed_most"]
    return (
        pd.DataFrame(table, columns=columns)
        .sort_values(["condition", "slot", "part"], key=lambda column: column.map(order) if column.name != "condition" else column)
        .reset_index(drop=True)
    )


def shown_in(dataset: Dataset) -> dict[str, set[str]]:
    """Returns, for each slot, the names that demonstrated compositions call there."""
    demonstrated = [program.calls for program in dataset.with_io if program.calls]
    return {slot: {parts[index].name for parts in demonstrated} for index, slot in enumerate(SLOTS)}


def _who(line: list[str], name: str, other: str, shown: set[str]) -> str:
    match = re.fullmatch(r"(\w+)\(-?[0-9]+\)", line[0]) if line else None
    if match is None:
        return "no call"
    if match[1] in (name, other):
        return "the part" if match[1] == name else "the other part"
    return "another, shown in this slot" if match[1] in shown else "another program"
