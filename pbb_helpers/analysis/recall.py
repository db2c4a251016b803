"""What is written where a program should be recalled: itself, another one, something without its name, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from pbb_helpers.analysis.statistics import begins_with
from pbb_helpers.data.descriptions import find, says


def sources_begun(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns, for each condition and group asked for the source, the share of answers that are the source and of those that begin with it.

    A model whose last training held sources only in front of an execution may go on to step through: that is another failure than not
    knowing the source. Columns condition, group, n, right, begun.
    """
    asked = rows[rows["mode"] == "source"]
    begun = [begins_with(text, gold) for text, gold in zip(asked["generated"], asked["gold"], strict=True)]
    cells = asked.assign(right=asked["correct"].astype(float), begun=begun).groupby(["condition", "group"], sort=False)
    return cells.agg(n=("begun", "size"), right=("right", "mean"), begun=("begun", "mean")).reset_index()


RECALLED = ("the program", "another program", "not its name", "no program")


def recalled(rows: pd.DataFrame, by: Sequence[str] = ("condition",)) -> pd.DataFrame:
    """Returns what answers in recall mode, in code or in words, write where the program should stand, before they step through it.

    An answer with no program there goes straight to stepping through, or begins in the middle of a sentence; one that begins with `def` and does
    not go on with the program's own name (a description has none to write) does not say which program it is: its form is wrong, before
    anything can be said of what it knows. Columns: `by`, group, n, and the share of answers of each of `RECALLED`.
    """
    asked = rows[rows["mode"].isin(["recall", "recall_description"])]
    sources = rows[rows["mode"].isin(["source", "description"])].drop_duplicates(["seed", "program"]).set_index(["seed", "program"])["gold"]
    asked = asked[[key in sources.index for key in zip(asked["seed"], asked["program"], strict=True)]]  # others cannot be judged
    known = [sources[seed, program] for seed, program in zip(asked["seed"], asked["program"], strict=True)]
    written = [_written(*answer) for answer in zip(asked["mode"], asked["generated"].astype(str), known, strict=True)]
    shares = pd.get_dummies(pd.Categorical(written, RECALLED)).astype(float).set_index(asked.index)
    cells = pd.concat([asked[[*by, "group"]], shares], axis=1).groupby([*by, "group"], sort=False)
    return cells.agg(n=(RECALLED[0], "size"), **{name: (name, "mean") for name in RECALLED}).reset_index()


def first_line_given(rows: pd.DataFrame, named: Mapping[str, str], by: Sequence[str] = ()) -> pd.DataFrame:
    """Returns what becomes of answers in recall mode where their first line is given, question by question.

    Args:
        rows: Answers.
        named: Condition in which the first line is given → the same training, asked without.
        by: What to tell apart beside the condition.

    Returns:
        Columns `by`, condition, group, n (questions), right and right_given (shares, without and with the line), unnamed (how many answers did
        not begin with the program's own name), unnamed_right, unnamed_right_given (how many of these were right without, and with it),
        changed (how many of the others are another text with the line); a line for each condition that was asked both ways.
    """
    recall = rows[rows["mode"] == "recall"]
    key = [*by, "group", "seed", "program", "input"]
    lines = []
    for given, plain in named.items():
        both = recall[recall["condition"] == plain].merge(
            recall[recall["condition"] == given], on=key, suffixes=("", "_given"), validate="1:1"
        )
        starts = [text.startswith(f"def {name}(") for text, name in zip(both["generated"].astype(str), both["program"], strict=True)]
        both = both.assign(named=pd.Series(starts, index=both.index, dtype=bool), same=both["generated"] == both["generated_given"])
        for cell, some in both.groupby([*by, "group"], sort=False):
            unnamed = some[~some["named"]]
            lines.append(
                dict(zip([*by, "group"], cell, strict=True))
                | {"condition": plain, "n": len(some), "right": some["correct"].mean(), "right_given": some["correct_given"].mean()}
                | {"unnamed": len(unnamed), "changed": int((some["named"] & ~some["same"]).sum())}
                | {"unnamed_right": int(unnamed["correct"].sum()), "unnamed_right_given": int(unnamed["correct_given"].sum())}
            )
    columns = ["n", "right", "right_given", "unnamed", "unnamed_right", "unnamed_right_given", "changed"]
    return pd.DataFrame(lines, columns=[*by, "condition", "group", *columns])


def _written(mode: str, text: str, source: str) -> str:
    if mode == "recall":
        if begins_with(text, source):
            return "the program"
        if text.startswith("def "):
            return "another program" if text.startswith(source.partition("(")[0] + "(") else "not its name"
        return "no program"
    first = text.split("\n")[0]
    return "the program" if says(first, source) else "another program" if find(first) else "no program"
