"""What answering could save if the beginnings that prompts have in common were read once: counted, not timed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from os.path import commonprefix
from typing import TYPE_CHECKING

import pandas as pd

from pbb_helpers.data.plan import Experiment
from pbb_helpers.experiments.questions import modes_of, questions
from pbb_helpers.training.models import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def repeated(prompts: Sequence[Sequence[int]]) -> int:
    """Returns how many tokens of the prompts stand in a beginning that an earlier one has too: what a tree of prefixes would not read again.

    >>> repeated([[1, 2, 3], [1, 2, 4], [5]])
    2
    """
    return sum(len(commonprefix(pair)) for pair in pairwise(sorted(list(prompt) for prompt in prompts)))


def prefixes(experiment: Experiment, condition: str, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """Returns, for each mode that a condition is asked in and for all together, the tokens of its questions in the first seed.

    Returns:
        mode, questions, prompt, repeated, written (tokens of right answers), at_most: the ratio of all tokens to those without the
        repeated ones. That bounds the speed-up from above: a token of a prompt, read beside the others, costs no more than one that
        is written, for which the model runs anew, and finding the prefixes costs nothing here.
    """
    asked = [example for part in questions(experiment, experiment.dataset(experiment.seeds[0]), modes_of(condition)) for example in part]
    lines = []
    for mode in dict.fromkeys(example.kind for example in asked):
        encoded = [encode(tokenizer, example) for example in asked if example.kind == mode]
        prompts, completions = zip(*encoded, strict=True)
        lines.append({"mode": mode, "questions": len(encoded), "prompt": sum(map(len, prompts)), "repeated": repeated(prompts), "written": sum(map(len, completions))})  # fmt: skip
    table = pd.DataFrame(lines)
    table = pd.concat([table, pd.DataFrame([{"mode": "all", **table.drop(columns="mode").sum()}])], ignore_index=True)
    spent = table["prompt"] + table["written"]
    return table.assign(at_most=spent / (spent - table["repeated"]))
