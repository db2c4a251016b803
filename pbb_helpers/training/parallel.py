"""One training on several GPUs: each process takes its part of every batch, and their gradients are added up.

The processes are those that `accelerate launch` (or torchrun) started and that `accelerate.PartialState()` has introduced to each other; in a
plain process everything here does nothing. Only the first process writes to the store. Who starts the processes ends them too, with
`PartialState().destroy_process_group()` after the last stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from pbb_helpers.training.batches import Batch
from pbb_helpers.training.store import Store


def processes() -> tuple[int, int]:
    """Returns the number of this process, from 0, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def number() -> tuple[int, ...]:
    """Returns what tells the random draws of this process from those of the first, and nothing in the first."""
    return processes()[:1] if processes()[0] else ()


def part(batch: Batch, rank: int, world: int) -> Batch:
    """Returns every `world`-th row of a batch from `rank` on; it may have none.

    >>> whole = Batch(torch.arange(6).view(3, 2), torch.tensor([1, 2, 5]), torch.tensor([7, 8, 9]), 6)
    >>> part(whole, 0, 2).input_ids.tolist(), part(whole, 0, 2).positions.tolist(), part(whole, 0, 2).targets.tolist()
    ([[0, 1], [4, 5]], [1, 3], [7, 9])
    """
    batch.require_unpacked()
    width = batch.input_ids.shape[1]
    row, column = batch.positions // width, batch.positions % width
    mine = row % world == rank
    return Batch(batch.input_ids[rank::world], (row // world * width + column)[mine], batch.targets[mine], batch.tokens)


def backward(batch: Batch, weights: list[Tensor], mean_loss: Callable[[Batch], Tensor]) -> Tensor:
    """Returns the mean loss of a batch, after leaving its gradient in `weights`: in every process that of the whole batch.

    Args:
        batch: The whole batch, the same in every process.
        weights: What is trained.
        mean_loss: Gives the mean over the supervised tokens of a batch.
    """
    rank, world = processes()
    if world == 1:
        value = mean_loss(batch)
        value.backward()
        return value.detach()
    mine = part(batch, rank, world)
    value = torch.zeros((), device=weights[0].device)
    if len(mine.targets):
        # A mean of means would give the tokens of a part with few of them more weight than the others.
        share = mean_loss(mine) * (len(mine.targets) / len(batch.targets))
        share.backward()
        value = share.detach()
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        distributed.all_reduce(weight.grad)
    distributed.all_reduce(value)
    return value


def agree(answer: Any) -> Any:
    """Returns the first process's answer, in every process."""
    if processes()[1] == 1:
        return answer
    answers = [answer]
    distributed.broadcast_object_list(answers, src=0)
    return answers[0]


class Onlooker(Store):
    """The store as all processes but the first see it: what is finished can be read, nothing is written or locked."""

    @contextmanager
    def locked(self, key: str, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Holds nothing: the first process holds the key for all."""
        yield

    def is_done(self, key: str) -> bool:
        """Returns whether the stage is finished and its files are whole; the first process sets aside what is not."""
        return self.is_whole(key)

    def last_checkpoint(self, key: str, at_most: float = math.inf) -> tuple[int, Path] | None:
        """Returns None: the first process looks for it."""
        return None

    def _nothing(self, *_: object, **__: object) -> None:
        return None

    write_config = start_metrics = append_metrics = save_checkpoint = drop_checkpoints = finish = _nothing


def view(store: Store) -> Store:
    """Returns the store for this process: itself in the first, one that writes nothing in the others."""
    return store if processes()[0] == 0 else Onlooker(store.root)
