"""Examples of unequal length as batches with little padding."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Encoded = tuple[Sequence[int], Sequence[int]]
"""Prompt ids and completion ids (EOS included) of one example."""


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

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch on `device`."""
        return Batch(self.input_ids.to(device), self.positions.to(device), self.targets.to(device), self.tokens)

    def __len__(self) -> int:
        return self.input_ids.shape[0]


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


def batches(
    encoded: Iterable[Encoded], batch_size: int, window: int = 16, generator: torch.Generator | None = None, *, multiple: int = 1
) -> Iterator[Batch]:
    """Yields batches of the examples, in their order up to a window.

    Each run of `window * batch_size` consecutive examples is sorted by length and cut into batches, which are shuffled by `generator`:
    little padding, and no drift from short to long. Nothing is shuffled beyond the window, so an endless stream may be passed, and the
    order of the caller is the order of training. Without a generator the batches of a window go from short to long.
    """
    stream = iter(encoded)
    while rows := list(itertools.islice(stream, window * batch_size)):
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        cut = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        order = torch.randperm(len(cut), generator=generator).tolist() if generator is not None else range(len(cut))
        for i in order:
            yield collate(cut[i], multiple)
