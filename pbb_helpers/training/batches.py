"""Examples of unequal length as batches with little padding."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Encoded = tuple[Sequence[int], Sequence[int]]
"""Prompt ids and completion ids (EOS included) of one example."""


Row = TypeVar("Row")


@dataclass(frozen=True)
class Batch:
    """Right-padded examples and the places where they are supervised."""

    input_ids: Tensor
    """(batch, seq) int64. The last token of an example is a target only and is left out; padding is id 0 and never looked at."""
    positions: Tensor
    """(supervised,) int64, indices into the flattened (batch * seq) hidden states that predict a token of a completion."""
    targets: Tensor
    """(supervised,) int64, the tokens predicted there."""
    tokens: int
    """Tokens that are not padding."""
    position_ids: Tensor | None = None
    """(batch, seq) int64 of packed rows: each example starts again at 0. None: one example a row."""

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch on `device`."""
        position_ids = None if self.position_ids is None else self.position_ids.to(device)
        return Batch(self.input_ids.to(device), self.positions.to(device), self.targets.to(device), self.tokens, position_ids)

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def require_unpacked(self) -> None:
        """Refuses packed rows, for what would lose their `position_ids`: their examples would see each other, and nothing would say so."""
        if self.position_ids is not None:
            raise ValueError("a batch of packed rows can be neither parted nor put beside others; collate its examples instead")


def collate(encoded: Sequence[Encoded], multiple: int = 1) -> Batch:
    """Returns one batch of the examples, right-padded to their longest, rounded up to `multiple`.

    Padding on the right needs no attention mask: under causal attention no supervised position can see it. The first token of an
    example has nothing before it, so with an empty prompt supervision starts at the second token.
    """
    rows = [[*prompt, *completion] for prompt, completion in encoded]
    width = -(-(max(map(len, rows)) - 1) // multiple) * multiple
    positions: list[int] = []
    targets: list[int] = []
    for i, (row, (prompt, _)) in enumerate(zip(rows, encoded, strict=True)):
        start = max(len(prompt), 1)
        positions.extend(range(i * width + start - 1, i * width + len(row) - 1))
        targets.extend(row[start:])
    input_ids = torch.tensor([row[:-1] + [0] * (width - len(row) + 1) for row in rows])
    return Batch(input_ids, torch.tensor(positions), torch.tensor(targets), sum(map(len, rows)) - len(rows))


def pack(encoded: Sequence[Encoded], tokens: int) -> Batch:
    """Returns one batch of the same examples as `collate`, several to a row of at most `tokens` tokens; a longer example has its own row.

    No experiment uses it: it is meant for a GPU, where an arm of the benchmark measures it (`performance/packed.py`).
    From `position_ids` that start again transformers tells the examples of a row apart, but only without a cache: `loss` passes
    `use_cache=False`. With a cache each example would see those before it in its row, and nothing would say so.
    """
    rows: list[list[Encoded]] = []
    left: list[int] = []
    for example in sorted(encoded, key=lambda example: -len(example[0]) - len(example[1])):
        size = len(example[0]) + len(example[1]) - 1  # the last token is a target only
        at = next((i for i, free in enumerate(left) if free >= size), len(rows))
        if at == len(rows):
            rows.append([])
            left.append(max(tokens, size))
        rows[at].append(example)
        left[at] -= size
    width = max(sum(len(prompt) + len(completion) - 1 for prompt, completion in row) for row in rows)
    input_ids, position_ids = torch.zeros(len(rows), width, dtype=torch.long), torch.arange(width).repeat(len(rows), 1)
    positions: list[int] = []
    targets: list[int] = []
    for i, row in enumerate(rows):
        start = 0
        for prompt, completion in row:
            ids = [*prompt, *completion]
            end = start + len(ids) - 1
            input_ids[i, start:end] = torch.tensor(ids[:-1])
            position_ids[i, start:] = torch.arange(width - start)
            first = max(len(prompt), 1)
            positions.extend(range(i * width + start + first - 1, i * width + end))
            targets.extend(ids[first:])
            start = end
        position_ids[i, start:] = torch.arange(width - start)  # padding is looked at by nothing but padding
    count = sum(len(prompt) + len(completion) - 1 for prompt, completion in encoded)
    return Batch(input_ids, torch.tensor(positions), torch.tensor(targets), count, position_ids)


def side_by_side(batches: Sequence[Batch]) -> Batch:
    """Returns the batches as one, block under block, each padded on the right and below to the widest and the longest."""
    for batch in batches:
        batch.require_unpacked()
    rows, width = max(map(len, batches)), max(batch.input_ids.shape[1] for batch in batches)
    input_ids = torch.zeros(len(batches), rows, width, dtype=torch.long)
    positions = []
    for number, batch in enumerate(batches):
        input_ids[number, : len(batch), : batch.input_ids.shape[1]] = batch.input_ids
        row, column = batch.positions // batch.input_ids.shape[1], batch.positions % batch.input_ids.shape[1]
        positions.append((number * rows + row) * width + column)
    targets = torch.cat([batch.targets for batch in batches])
    return Batch(input_ids.flatten(0, 1), torch.cat(positions), targets, sum(batch.tokens for batch in batches))


def by_length(rows: Iterable[Row], batch_size: int, window: int, *, length: Callable[[Row], int]) -> Iterator[list[list[Row]]]:
    """Yields for each run of `window * batch_size` rows its batches, from short rows to long ones.

    >>> list(by_length("abc de f ghij k".split(), 2, 2, length=len))
    [[['f', 'de'], ['abc', 'ghij']], [['k']]]
    """
    stream = iter(rows)
    while some := list(itertools.islice(stream, window * batch_size)):
        some.sort(key=length)
        yield [some[i : i + batch_size] for i in range(0, len(some), batch_size)]


def batches(
    encoded: Iterable[Encoded],
    batch_size: int,
    window: int = 16,
    generator: torch.Generator | None = None,
    *,
    multiple: int = 1,
    make: Callable[[Sequence[Encoded]], Batch] | None = None,
) -> Iterator[Batch]:
    """Yields batches of the examples, in their order up to a window.

    Each run of `window * batch_size` consecutive examples is sorted by length and cut into batches, which are shuffled by `generator`:
    little padding, and no drift from short to long. Nothing is shuffled beyond the window, so an endless stream may be passed, and the
    order of the caller is the order of training. Without a generator the batches of a window go from short to long. `make` makes a batch of
    its examples; by default they are collated, to a width that is a multiple of `multiple`.
    """
    make = make or functools.partial(collate, multiple=multiple)
    for cut in by_length(encoded, batch_size, window, length=lambda row: len(row[0]) + len(row[1])):
        order = torch.randperm(len(cut), generator=generator).tolist() if generator is not None else range(len(cut))
        for i in order:
            yield make(cut[i])
