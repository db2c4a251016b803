"""What could be saved at most, counted and not timed: in training the padding, in answering the beginnings that prompts have in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from os.path import commonprefix
from typing import TYPE_CHECKING

import pandas as pd

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments.questions import modes_of, questions
from pbb_helpers.performance.tasks import Task
from pbb_helpers.training.models import LoadedModel, encode
from pbb_helpers.training.train import WINDOW

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def repeated(prompts: Sequence[Sequence[int]]) -> int:
    """Returns how many tokens of the prompts stand in a beginning that an earlier one has too: what a tree of prefixes would not read again.

    >>> repeated([[1, 2, 3], [1, 2, 4], [5]])
    2
    """
    return sum(len(commonprefix(pair)) for pair in pairwise(sorted(list(prompt) for prompt in prompts)))


def prefixes(experiment: Experiment, name: str, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """Returns, for each mode that a condition is asked in and for all together, the tokens of its questions in the first seed.

    Returns:
        mode, questions, prompt, repeated, written (tokens of right answers), at_most: the ratio of all tokens to those without the
        repeated ones. That bounds the speed-up from above: a token of a prompt, read beside the others, costs no more than one that
        is written, for which the model runs anew, and finding the prefixes costs nothing here.
    """
    asked = [example for part in questions(experiment, experiment.dataset(experiment.seeds[0]), modes_of(name)) for example in part]
    lines = []
    for mode in dict.fromkeys(example.kind for example in asked):
        encoded = [encode(tokenizer, example) for example in asked if example.kind == mode]
        prompts, completions = zip(*encoded, strict=True)
        lines.append({"mode": mode, "questions": len(encoded), "prompt": sum(map(len, prompts)), "repeated": repeated(prompts), "written": sum(map(len, completions))})  # fmt: skip
    table = pd.DataFrame(lines)
    table = pd.concat([table, pd.DataFrame([{"mode": "all", **table.drop(columns="mode").sum()}])], ignore_index=True)
    spent = table["prompt"] + table["written"]
    return table.assign(at_most=spent / (spent - table["repeated"]))


def padding(experiment: Experiment, name: str, loaded: LoadedModel, windows: Sequence[int] = (WINDOW, 8 * WINDOW)) -> pd.DataFrame:
    """Returns how much of the positions of each stage of a condition, in the first seed, is padding.

    Args:
        windows: Numbers of batches whose documents are sorted by length together; training takes `WINDOW`, and other results with another.

    Returns:
        stage, window, documents, tokens, positions, padding (share of positions), at_most: positions over tokens. That bounds what packing
        several documents into a row could gain, and a window without end.
    """
    dataset, lines = experiment.dataset(experiment.seeds[0]), []
    for spec in condition(name).stages:
        task = Task(loaded, build_stage(spec, dataset, experiment.budget))
        for window in windows:
            sizes = [(batch.tokens, batch.input_ids.numel()) for batch in task.batches(window=window)]
            tokens, positions = map(sum, zip(*sizes, strict=True))
            lines.append({"stage": spec.name, "window": window, "documents": len(task.encoded), "tokens": tokens, "positions": positions,
                          "padding": 1 - tokens / positions, "at_most": positions / tokens})  # fmt: skip
    return pd.DataFrame(lines)
