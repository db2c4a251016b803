"""What a pretraining reads: encoded documents in batches, a function of its settings alone, made while the last ones are trained on."""

from __future__ import annotations

import functools
import itertools
import math
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pbb_helpers.data.corpus import Mix, conversations
from pbb_helpers.data.documents import Example
from pbb_helpers.processes import follow_parent
from pbb_helpers.programs import UsageError
from pbb_helpers.training.model_files import read_json
from pbb_helpers.training.recipes import PretrainSettings


def encode_conversation(tokenizer: Any, document: list[Example]) -> tuple[list[int], list[int]]:
    """Returns token ids and, for each, 1 where it is supervised: the completions, each closed by the end token."""
    texts = [text for i, e in enumerate(document) for text in (("\n\n" if i else "") + e.prompt, e.completion)]
    ids: list[int] = []
    marks: list[int] = []
    for i, part in enumerate(tokenizer(texts)["input_ids"]):
        part = part + [tokenizer.eos_token_id] if i % 2 else part
        ids += part
        marks += [i % 2] * len(part)
    return ids, marks


def collate(rows: list[tuple[list[int], list[int]]], multiple: int = 8) -> Any:
    """Returns a `train.Batch` of conversations, right-padded, supervised wherever marked."""
    import torch

    from pbb_helpers.training.batches import Batch

    width = -(-(max(len(ids) for ids, _ in rows) - 1) // multiple) * multiple
    inputs = np.zeros((len(rows), width), dtype=np.int64)
    targets = np.full((len(rows), width), -1, dtype=np.int64)
    for i, (ids, marks) in enumerate(rows):
        inputs[i, : len(ids) - 1] = ids[:-1]
        targets[i, : len(ids) - 1] = np.where(marks[1:], ids[1:], -1)
    positions = np.flatnonzero(targets >= 0)
    return Batch(torch.from_numpy(inputs), torch.from_numpy(positions), torch.from_numpy(targets.ravel()[positions]),
                 sum(len(ids) - 1 for ids, _ in rows))  # fmt: skip


WINDOW = 16
FEWEST = 0.2
"""Of the documents at least this share must be short enough: fewer would be another distribution than the one asked for, and none an endless wait."""
TRIAL = 1000


def short_enough(rows: Iterable[tuple[list[int], list[int]]], longest: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yields the encoded conversations of at most `longest` tokens.

    Raises:
        UsageError: After `TRIAL` of them or more, fewer than `FEWEST` were.
    """
    kept = 0
    for seen, row in enumerate(rows, 1):
        if len(row[0]) <= longest:
            kept += 1
            yield row
        if seen >= TRIAL and kept < FEWEST * seen:
            raise UsageError(
                f"longest {longest}: only {kept} of the first {seen} documents have no more tokens than that; give a larger longest, or a larger bpe_size"
            )


def window_of_rows(folder: Path, settings: PretrainSettings, index: int) -> list[list[tuple[list[int], list[int]]]]:
    """Returns the encoded batches of one window of `WINDOW` steps: a function of the seed and the index alone, so that a resume is exact."""
    tokenizer = tokenizer_of(folder)
    encoded = (encode_conversation(tokenizer, document) for document in conversations(settings.mix, [settings.seed, index]))
    rows = list(itertools.islice(short_enough(encoded, settings.longest), WINDOW * settings.batch_size))
    rows.sort(key=lambda row: len(row[0]))
    cut = [rows[i : i + settings.batch_size] for i in range(0, len(rows), settings.batch_size)]
    order = np.random.Generator(np.random.PCG64([settings.seed, index, 1])).permutation(len(cut))
    return [cut[i] for i in order]


def tokens_read(folder: Path, settings: PretrainSettings) -> list[int]:
    """Returns the tokens, but for the names, that stand in the documents of a pretraining: the embeddings of all others are as chance made them.

    Every document is made again for it, which takes minutes for the shipped models; `pretrain` writes the answer into the card.
    """
    names, found = set(tokenizer_of(folder).get_added_vocab().values()), set[int]()
    for index in range(math.ceil(settings.steps / WINDOW)):
        for batch in window_of_rows(folder, settings, index)[: settings.steps - index * WINDOW]:
            found.update(*(ids for ids, _ in batch))
    return sorted(found - names)


def settings_of(folder: Path) -> PretrainSettings:
    """Returns the settings that a model of ours was made with, from its card; what the card does not know has its default."""
    card = read_json(folder / "card.json")["settings"]
    fields, shares = PretrainSettings.__dataclass_fields__, Mix.__dataclass_fields__
    mix = {name: value for name, value in card["mix"].items() if name in shares}
    mix["lengths"] = {int(length): share for length, share in mix["lengths"].items()}  # JSON has texts for keys
    return PretrainSettings(**{name: value for name, value in card.items() if name in fields} | {"mix": Mix(**mix)})


@functools.cache
def tokenizer_of(folder: Path) -> Any:
    """Returns the tokenizer that lies in a folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _one_thread() -> None:
    """Begins a process that encodes a document at a time: handing each to a pool of threads costs more than it saves, and far more on a busy machine."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    follow_parent()


def windows(folder: Path, settings: PretrainSettings, first: int) -> Iterator[tuple[int, Any]]:
    """Yields (index, rows) of the windows still to train, the next one made in a second process while this one trains."""
    last = math.ceil(settings.steps / WINDOW)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        ahead = pool.submit(window_of_rows, folder, settings, first)
        for index in range(first, last):
            rows = ahead.result()
            if index + 1 < last:
                ahead = pool.submit(window_of_rows, folder, settings, index + 1)
            yield index, rows
