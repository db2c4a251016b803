"""One training: how it is done, and the documents that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pbb_helpers.data.documents import Example
from pbb_helpers.programs import UsageError, did_you_mean


@dataclass(frozen=True)
class TrainSettings:
    """How one stage is trained.

    Attributes:
        method: "lora" (adapters on all linear layers) or "full".
        rank: Rank of the adapters.
        alpha: Their scale is alpha / rank.
        dropout: Dropout on the adapters' input.
        train_names: Whether the embeddings of the programs' names are trained too (peft's `trainable_token_indices`).
        batch_size: Documents per step.
        lr: Peak learning rate of AdamW.
        warmup: Share of the steps over which the rate rises from 0.
        decay: "linear" or "cosine" to 0, or "constant".
        weight_decay: Of AdamW.
        clip: Largest norm of the gradient; 0 for no limit.
        dtype: "auto", "float32" or "bfloat16": of the arithmetic; the weights that are trained are float32.
        seed: Of the adapters' initial values, the order within windows, and dropout.
        order_seed: Of the order within windows, in place of `seed`. Where it is the same for several stages, the batches of each of their steps
            are about as long as each other's, so that a stack of them pads little (`stacked.train_stages`).
        max_length: Longest document in tokens; a longer one is an error, never cut.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
    """

    method: str = "lora"
    rank: int = 64
    alpha: int = 128
    dropout: float = 0.0
    train_names: bool = True
    batch_size: int = 64
    lr: float = 2e-3
    warmup: float = 0.05
    decay: str = "linear"
    weight_decay: float = 0.0
    clip: float = 1.0
    dtype: str = "auto"
    seed: int = 0
    max_length: int = 1024
    checkpoint_every: int = 200
    log_every: int = 20
    order_seed: int | None = None

    def __post_init__(self) -> None:
        for name, valid in (
            ("method", ("lora", "full")),
            ("decay", ("linear", "cosine", "constant")),
            ("dtype", ("auto", "float32", "bfloat16")),
        ):
            if getattr(self, name) not in valid:
                raise did_you_mean(name, getattr(self, name), valid)
        for name in ("rank", "batch_size", "max_length", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}; give at least 1")
        for name, holds, give in (
            ("lr", 0 < self.lr < math.inf, "lr > 0"),
            ("alpha", self.alpha > 0, "alpha > 0"),
            ("dropout", 0 <= self.dropout < 1, "dropout from 0 to below 1"),
            ("warmup", 0 <= self.warmup <= 1, "warmup from 0 to 1, a share of the steps"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "weight_decay of 0 or more"),
            ("clip", self.clip == self.clip, "a number, 0 for no limit"),
        ):
            if not holds:
                raise UsageError(f"{name} {getattr(self, name)}; give {give}")


@dataclass(frozen=True)
class Stage:
    """One stage of finetuning: exactly the documents that are trained on, in order, repeats included.

    Attributes:
        name: "stage1", "stage2", …
        examples: The documents; steps = ceil(len / batch size).
        settings: How they are trained.
        names: The names of programs that are new to the model, and other tokens that are.
    """

    name: str
    examples: tuple[Example, ...]
    settings: TrainSettings
    names: tuple[str, ...]
