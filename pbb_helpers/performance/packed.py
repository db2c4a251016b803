"""The training of `train.py` with several documents to a row: whether that pays beside batches of similar length. No experiment packs."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pbb_helpers.performance.benchmark import Work
from pbb_helpers.performance.tasks import Task, TrainingArm
from pbb_helpers.training.batches import Batch, batches, pack
from pbb_helpers.training.loss import autocast, loss
from pbb_helpers.training.store import Store
from pbb_helpers.training.train import WINDOW, Training, order_generator

ROW = 512
"""Tokens of a row: some documents share one, and attention, which is over the row, stays small beside the matrix products."""


class Packed(TrainingArm):
    """Ours on the same documents at each step, packed; positions that start again keep the documents of a row apart (`batches.pack`)."""

    name = "ours, packed"

    def __init__(self, task: Task, tokens: int = ROW) -> None:
        self.task, self.tokens = task, tokens

    def prepare(self) -> None:
        self.model = self.task.model().train()

    def run(self) -> Work:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            with store.locked("packed"):
                _Training(self, store).run(lambda line: None)
            seconds = store.metrics("packed")[-1]["seconds"]
        return replace(self.task.work(seconds), computed=sum(batch.input_ids.numel() for batch in self.batches()))

    def batches(self) -> Iterator[Batch]:
        """Yields the batches that it trains on."""
        settings = self.task.stage.settings
        make = functools.partial(pack, tokens=self.tokens)
        return batches(self.task.encoded, settings.batch_size, WINDOW, order_generator(settings), make=make)

    def loss(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch."""
        device = torch.device(self.task.loaded.model.device)
        with autocast(device, self.task.dtype):
            return loss(self.model, batch.to(device))


class _Training(Training):
    """A training of the arm's model on its batches."""

    def __init__(self, arm: Packed, store: Store) -> None:
        self.arm = arm
        super().__init__(arm.task.loaded, arm.task.stage, store, "packed", None, arm.task.dtype)

    def plan(self) -> Iterator[Batch]:
        return self.arm.batches()

    def _build(self) -> Any:
        return self.arm.model
