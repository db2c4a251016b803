"""What to read with one's own eyes: a real program with its documents, and generated answers beside gold, wrong ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pbb_helpers.data.datasets import generator
from pbb_helpers.data.documents import MODES, call_document, source_document
from pbb_helpers.data.plan import Experiment


def facts(said: Mapping[str, Any]) -> pd.DataFrame:
    """Returns facts by their names as a table of two columns."""
    return pd.DataFrame({"": list(said), "value": [str(value) for value in said.values()]})


def one_program(experiment: Experiment, *, seed: int | None = None, index: int = 0) -> str:
    """Returns a w/o IO program, the one document that a model is trained on for it, and the questions it is asked about it.

    Args:
        experiment: Whose program.
        seed: Which seed's; the first by default.
        index: Which of the w/o IO programs.
    """
    dataset = experiment.dataset(experiment.seeds[0] if seed is None else seed)
    program, x = dataset.without_io[index], dataset.eval_inputs[0]
    shown = [("Trained on (one of 20 phrasings of the prompt)", source_document(program, "without_io", 0))]
    shown += [
        (f"Asked, never trained on: {mode}", call_document(program, "without_io", mode, x, 0)) for mode in ("direct", "cot", "recall")
    ]
    shown += [("Asked for the ceiling: the source in the prompt", call_document(program, "without_io", "in_context_direct", x, 0))]
    return "\n\n".join(f"=== {title}\n{example.prompt}>>> {_indented(example.completion)}" for title, example in shown)


def _indented(completion: str) -> str:
    return completion.replace("\n", "\n    ")


def answers(rows: pd.DataFrame, *, condition: str = "proactive", group: str = "without_io", modes: Sequence[str] = MODES[:3], n: int = 10,
            seed: int = 0) -> pd.DataFrame:  # fmt: skip
    """Returns `n` answers drawn at random, wrong ones first and as many of them as there are, up to half.

    Columns: mode, prompt, generated, answer (as parsed), gold, correct.
    """
    some = rows[(rows["condition"] == condition) & (rows["group"] == group) & rows["mode"].isin(list(modes))]
    draws = generator(seed, "answers to read")
    some = some.iloc[draws.permutation(len(some))]
    wrong, right = some[~some["correct"]], some[some["correct"]]
    few = wrong.head(max(n // 2, n - len(right)))
    picked = pd.concat([few, right.head(n - len(few))])
    return picked[["mode", "prompt", "generated", "answer", "gold", "correct"]].reset_index(drop=True)


def in_words(title: str, table: pd.DataFrame, value: str, by: Sequence[str]) -> str:
    """Returns a figure's numbers as text, for who cannot see it: the mean of `value` in each group of `by`, in percent if it is a share.

    >>> in_words("Loss.", pd.DataFrame({"stage": ["a", "a", "b"], "loss": [1.0, 3.0, 0.5]}), "loss", ["stage"])
    'Loss. a 2.00, b 0.50.'
    """
    percent = value in ("accuracy", "share")
    means = table.groupby(list(by), sort=False)[value].mean()
    names = [" ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in means.index]
    shown = (f"{name} {100 * mean:.0f} %" if percent else f"{name} {mean:.2f}" for name, mean in zip(names, means, strict=True))
    return f"{title} {', '.join(shown)}."


def panels(**tables: pd.DataFrame) -> pd.DataFrame:
    """Returns the tables of a figure of several panels as one, for its CSV, with a column that names the panel."""
    return pd.concat([table.assign(panel=name) for name, table in tables.items()], ignore_index=True)
