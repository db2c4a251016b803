"""Tokens that a base model has to write in finetuning and never read in its pretraining: their embeddings are those that chance gave them.

With LoRA the embeddings stay as they are, but for those of the programs' names. A vector that no document ever used was only pushed away, together
with all others of its kind: several such tokens in a row are hardly told apart, however well the rest is learned.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.corpus import Mix, conversations
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.stages import build_stage
from pbb_helpers.training.model_files import find, read_json

SAMPLE = 4_000
"""Documents of the pretraining that are looked through."""


def unread(experiment: Experiment) -> pd.DataFrame:
    """Returns the tokens of the completions, but for names, that occur in none of `SAMPLE` documents of the model's pretraining.

    Args:
        experiment: The documents of its first seed are looked through, of every stage.

    Returns:
        Columns token (its text) and documents (how many different ones have it in their completion); empty for a model that we did not make.
    """
    from pbb_helpers.training import models

    folder, _ = find(experiment.model, trust_remote_code=experiment.trust_remote_code)
    loaded = models.load(experiment.model, trust_remote_code=experiment.trust_remote_code)
    tokenizer, counts = loaded.tokenizer, Counter[int]()
    if (folder / "card.json").is_file():
        read = _read(folder, tokenizer)
        dataset, count = experiment.dataset(experiment.seeds[0]), models.token_counter(tokenizer)
        specs = {spec for name in experiment.conditions for spec in condition(name).stages}
        examples = {example for spec in specs for example in build_stage(spec, dataset, experiment.budget, count).examples}
        for ids in tokenizer([example.completion for example in examples])["input_ids"]:
            counts.update(set(ids) - read)
    # In an order of their own: that of a set hangs on the process, and a stage's key on the order of its new tokens.
    found = sorted((-n, token) for token, n in counts.items())
    return pd.DataFrame([(tokenizer.decode([token]), -n) for n, token in found], columns=["token", "documents"])


@functools.cache
def _read(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Returns the tokens that a model of ours read, by a sample of its documents, and its names, all of which it may have read."""
    from pbb_helpers.training.pretrain import encode_conversation

    settings = read_json(folder / "card.json")["settings"]
    fields = {name: value for name, value in settings["mix"].items() if name in Mix.__dataclass_fields__}
    mix = Mix(**fields | {"lengths": {int(length): share for length, share in fields["lengths"].items()}})
    documents = itertools.islice(conversations(mix, [settings["seed"], 0]), SAMPLE)
    found = {token for document in documents for token in encode_conversation(tokenizer, document)[0]}
    return frozenset(found | set(tokenizer.get_added_vocab().values()))
