"""What the arms of the benchmark train: a stage on a model, and its batches in the two forms that they are taken in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pbb_helpers.data.settings import Stage
from pbb_helpers.performance.benchmark import Arm, Work, shape_of, training_flops
from pbb_helpers.training import models
from pbb_helpers.training.batches import Batch, Encoded, batches
from pbb_helpers.training.models import LoadedModel
from pbb_helpers.training.train import WINDOW, fresh, order_generator, resolve_dtype

IGNORED = -100
"""The label of a token without loss, in transformers and TRL."""


@dataclass(frozen=True)
class Task:
    """A stage to train, by whichever arm: the model it starts from, the documents, the settings."""

    loaded: LoadedModel
    stage: Stage

    @property
    def dtype(self) -> torch.dtype:
        """Returns the dtype of the arithmetic."""
        return resolve_dtype(self.stage.settings.dtype, self.loaded.model.device)

    @cached_property
    def encoded(self) -> list[Encoded]:
        """Returns the token ids of prompt and completion of each document."""
        return [models.encode(self.loaded.tokenizer, example) for example in self.stage.examples]

    def batches(self, multiple: int = 1, window: int = WINDOW) -> Iterator[Batch]:
        """Yields the batches of ours, in the order of training, of widths that are multiples of `multiple`; with another `window` than training's, as they would be."""
        settings = self.stage.settings
        return batches(self.encoded, settings.batch_size, window, order_generator(settings), multiple=multiple)

    @cached_property
    def computed(self) -> int:
        """Returns how many positions the batches of ours have, padding included."""
        return sum(batch.input_ids.numel() for batch in self.batches())

    def model(self, attention: str | None = None) -> Any:
        """Returns a fresh copy of the model with its adapter, the same at every call; `attention` changes its implementation."""
        base = fresh(self.loaded.model, share=self.stage.settings.method == "lora")
        if attention:
            base.set_attn_implementation(attention)
        return models.add_adapter(base, self.stage.settings, self.stage.names, self.loaded.tokenizer)

    @cached_property
    def _counts(self) -> tuple[int, int, float]:
        lengths = [len(prompt) + len(completion) - 1 for prompt, completion in self.encoded]
        supervised = sum(len(completion) - (not prompt) for prompt, completion in self.encoded)
        return len(lengths), sum(lengths), training_flops(shape_of(self.model()), lengths, supervised)

    def work(self, seconds: float) -> Work:
        """Returns the work of one pass over the documents, done in so many seconds."""
        examples, tokens, flops = self._counts
        return Work(seconds, examples, tokens, flops)


class TrainingArm(Arm):
    """An arm that trains; `model` holds what came out until it is released."""

    model: Any = None

    def release(self) -> None:
        self.model = None


def labelled(encoded: Sequence[Encoded]) -> list[dict[str, list[int]]]:
    """Returns documents as transformers and TRL take them: all ids, and labels that leave the prompt out.

    >>> labelled([([5, 6], [7, 2])])
    [{'input_ids': [5, 6, 7, 2], 'labels': [-100, -100, 7, 2]}]
    """
    return [{"input_ids": [*prompt, *completion], "labels": [IGNORED] * len(prompt) + [*completion]} for prompt, completion in encoded]


def padded(batch: Batch) -> dict[str, Tensor]:
    """Returns a batch as a model takes it: input_ids, labels and attention_mask, each (batch, seq + 1), the last token included."""
    width = batch.input_ids.shape[1]
    row, column = batch.positions // width, batch.positions % width + 1
    ids = nn.functional.pad(batch.input_ids, (0, 1))
    labels = torch.full_like(ids, IGNORED)
    ids[row, column] = labels[row, column] = batch.targets
    last = torch.zeros(len(batch), dtype=torch.int64).scatter_reduce(0, row, column, "amax")
    return {"input_ids": ids, "labels": labels, "attention_mask": (torch.arange(width + 1) <= last[:, None]).long()}


def unpadded(batch: Batch) -> list[dict[str, list[int]]]:
    """Returns the documents of a batch as `labelled` does."""
    parts = padded(batch)
    lengths = parts["attention_mask"].sum(1).tolist()
    return [{name: parts[name][i, :n].tolist() for name in ("input_ids", "labels")} for i, n in enumerate(lengths)]
