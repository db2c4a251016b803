"""The training of `train.py` with its model compiled: whether that pays for a training of minutes. No experiment compiles."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pbb_helpers.performance.benchmark import Missing, Work
from pbb_helpers.performance.tasks import Task, TrainingArm
from pbb_helpers.training.batches import Batch, batches
from pbb_helpers.training.loss import autocast, causal_lm, loss
from pbb_helpers.training.merged import inputs_as_they_are, merged_forward
from pbb_helpers.training.store import Store
from pbb_helpers.training.train import WINDOW, Training, order_generator

warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")  # as it is asked to, for the time of compiling
MULTIPLE = 8
"""Widths of its batches are multiples of it, as in pretraining."""


class Compiled(TrainingArm):
    """Ours with torch.compile on the body of the model, as `pretrain` compiles: built and compiled once, by the first `prepare`.

    Attributes:
        compiling: Seconds of the first forward and backward pass, in which it compiles, from an empty cache of kernels.
    """

    name = "ours, compiled"

    def __init__(self, task: Task, backend: str) -> None:
        self.task, self.backend, self.compiling = task, backend, 0.0
        self._kept: Any = None

    def prepare(self) -> None:
        if self._kept is None:
            self._build()
        with torch.no_grad():
            for name, p in self._kept.named_parameters():
                if name in self._start:
                    p.copy_(self._start[name])
        self.model = self._kept

    def run(self) -> Work:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            with store.locked("compiled"):
                _Again(self.model, self.task.loaded, self.task.stage, store, "compiled", None, self.task.dtype).run(lambda line: None)
            seconds = store.metrics("compiled")[-1]["seconds"]
        return replace(self.task.work(seconds), computed=sum(batch.input_ids.numel() for batch in self.batches()))

    def release(self) -> None:
        if self._kept is not None:
            self._kept.zero_grad()
        self.model = None

    def batches(self) -> Iterator[Batch]:
        """Yields the batches that it trains on."""
        return self.task.batches(MULTIPLE)

    def loss(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch."""
        with autocast(self.task.loaded.model.device, self.task.dtype):
            return loss(self._kept, batch.to(self.task.loaded.model.device))

    def _build(self) -> None:
        task, model = self.task, self.task.model().train()
        self._start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        self._patches = ExitStack()  # for good: a layer that is patched anew is another one, and would be compiled again
        tokens = sum(len(prompt) + len(completion) for prompt, completion in task.encoded)
        self._patches.enter_context(merged_forward(model, tokens // -(-len(task.encoded) // task.stage.settings.batch_size)))
        if task.dtype != torch.float32:
            self._patches.enter_context(inputs_as_they_are(model))
        lm = causal_lm(model)
        getattr(lm, lm.base_model_prefix).compile(dynamic=True, backend=self.backend)
        self._kept, began = model, time.perf_counter()
        with torch.compiler.config.patch(force_disable_caches=True):  # what an earlier run left would hide the cost
            self.loss(next(self.batches())).backward()
        self.compiling = time.perf_counter() - began


class _Again(Training):
    """A training of a model that is there already, patched and compiled."""

    def __init__(self, model: Any, *arguments: Any) -> None:
        self._given = model
        super().__init__(*arguments)

    def run(self, on_progress: Any) -> None:
        self.begin(None)
        self._loop(on_progress)
        self.finish()

    def plan(self) -> Iterator[Batch]:
        return batches(self.encoded, self.settings.batch_size, WINDOW, order_generator(self.settings), multiple=MULTIPLE)

    def _build(self) -> Any:
        return self._given


def compiled(task: Task, backend: str = "inductor") -> Compiled | Missing:
    """Returns the arm that compiles, compiled, or why there is none: no C++ compiler, or one that torch cannot work with.

    Args:
        task: What to train.
        backend: Of torch.compile; "eager" traces and compiles nothing, in seconds and without a compiler.
    """
    asked = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if backend == "inductor" and shutil.which(asked) is None:
        return Missing(Compiled.name, f"no C++ compiler: there is no {asked}")
    arm = Compiled(task, backend)
    try:
        arm.prepare()
    except Exception as error:  # torch has many: headers of Python that are missing, a compiler that is too old
        return Missing(Compiled.name, f"torch.compile failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    arm.release()
    return arm
