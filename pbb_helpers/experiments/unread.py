"""Tokens that a base model has to write in finetuning and never read in its pretraining: their embeddings are those that chance gave them.

With LoRA the embeddings stay as they are, but for those of the programs' names. A vector that no document ever used was only pushed away, together
with all others of its kind: several such tokens in a row are hardly told apart, however well the rest is learned.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.stages import build_stage
from pbb_helpers.training.model_files import find, read_json

WINDOWS = 4
"""Of the pretraining of a model whose card doesn't say what it read, the documents that are looked through: `pretrain_documents.WINDOW` steps each."""


def unread(experiment: Experiment) -> pd.DataFrame:
    """Returns the tokens of the completions, but for names, that stand in no document of the model's pretraining; where its card
    does not say what stands there, in none of the first.

    Args:
        experiment: The documents of its first seed are looked through, of every stage.

    Returns:
        Columns token (its text) and documents (how many different ones have it in their completion), in the order of the vocabulary, so
        that no process and no other arm changes it; empty for a model that we did not make.
    """
    from pbb_helpers.training.models import token_counter
    from pbb_helpers.training.pretrain_documents import tokenizer_of

    folder, _ = find(experiment.model, trust_remote_code=experiment.trust_remote_code)
    counts = Counter[int]()
    if not (folder / "card.json").is_file():
        return pd.DataFrame(columns=["token", "documents"])
    tokenizer, read = tokenizer_of(folder), _read(folder)
    dataset, count = experiment.dataset(experiment.seeds[0]), token_counter(tokenizer)
    specs = {spec for name in experiment.conditions for spec in condition(name).stages}
    stages = [build_stage(spec, dataset, experiment.budget, count) for spec in specs]
    completions = {example.completion for stage in stages for example in stage.examples}
    for ids in tokenizer(list(completions))["input_ids"]:
        counts.update(set(ids) - read)
    return pd.DataFrame([(tokenizer.decode([token]), counts[token]) for token in sorted(counts)], columns=["token", "documents"])


@functools.cache
def _read(folder: Path) -> frozenset[int]:
    """Returns the tokens that a model of ours read, as its card says, or else those of its first documents; and the names."""
    from pbb_helpers.training.pretrain_documents import WINDOW, settings_of, tokenizer_of, tokens_read

    names = tokenizer_of(folder).get_added_vocab().values()
    known = read_json(folder / "card.json").get("tokens_read")
    if known is None:
        settings = settings_of(folder)
        known = tokens_read(folder, replace(settings, steps=min(settings.steps, WINDOWS * WINDOW)))
    return frozenset([*known, *names])
