"""What the training of `train.py` is measured beside: TRL's SFTTrainer, transformers' Trainer and a bare loop, on the same documents.

All start from the same weights, which those that train LoRA share in memory, take the same labels, batch size, steps and optimizer; `HOW`
says what differs. `gate.py` shows that they compute the same thing.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
import warnings
from typing import Any

import torch
from peft.utils.other import TrainableTokensWrapper
from torch import nn

from pbb_helpers.performance.benchmark import Missing, Work
from pbb_helpers.performance.compiled import MULTIPLE
from pbb_helpers.performance.ours import Ours
from pbb_helpers.performance.packed import ROW
from pbb_helpers.performance.tasks import IGNORED, Task, TrainingArm, labelled, padded
from pbb_helpers.training import models
from pbb_helpers.training.loss import autocast, head_weight
from pbb_helpers.training.train import learning_rate

warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated")  # TRL 1.16 sets it by its old name
_ATTENTION = "the model's attention (eager on a CPU, where it is the faster one, SDPA elsewhere)"
HOW = {
    "ours": f"batches of similar length, no attention mask, {_ATTENTION}, LoRA as a merged weight where that takes fewer operations, head at supervised positions",
    "bare loop": f"the batches of ours; peft's forward, {_ATTENTION}, the model's own loss over all logits",
    "TRL tuned": f"SFTTrainer grouped by length, no checkpointing, {_ATTENTION}",
    "TRL as it comes": "SFTTrainer: random batches, gradient checkpointing, SDPA attention",
    "Trainer": "transformers.Trainer: random batches, SDPA attention, the model's own loss over all logits",
    "ours, as in an experiment": "ours in a process of its own as `jobs.run_job` makes it: one thread, kernels of 16 shapes kept, a lean heap",
    "ours, packed": f"ours with several documents to a row of {ROW} tokens, each from position 0; only of the shapes for a GPU",
    "ours, compiled": f"ours with torch.compile on the layers, one graph for all widths, which are multiples of {MULTIPLE}; no experiment does so: its results must not hang on a compiler",
}


class BareLoop(TrainingArm):
    """A loop as one writes it by hand around a peft model."""

    def __init__(self, task: Task, name: str = "bare loop") -> None:
        self.task, self.name = task, name

    def prepare(self) -> None:
        self.model = self.task.model().train()

    def run(self) -> Work:
        settings, device = self.task.stage.settings, self.task.loaded.model.device
        weights = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        steps = -(-len(self.task.encoded) // settings.batch_size)
        began = time.perf_counter()
        for step, batch in enumerate(self.task.batches(), 1):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step, steps)
            with autocast(device, self.task.dtype):
                value = self.model(**{name: tensor.to(device) for name, tensor in padded(batch).items()}, use_cache=False).loss
            value.backward()
            nn.utils.clip_grad_norm_(weights, settings.clip)
            optimizer.step()
            optimizer.zero_grad()
            value.item()
        return self.task.work(time.perf_counter() - began)


class HuggingFace(TrainingArm):
    """A trainer of transformers or TRL; its seconds go from `on_train_begin` to `on_train_end`.

    Args:
        task: What to train.
        name: Of the arm.
        trl: TRL's SFTTrainer, else transformers' Trainer.
        attention: The attention implementation, None for that of the loaded model.
        rows: The documents in the order given; by default those of the task.
        options: Of its TrainingArguments or SFTConfig, beside what all arms share.
    """

    trainer: Any = None

    def __init__(
        self, task: Task, name: str, *, trl: bool, attention: str | None = None, rows: list[dict] | None = None, **options: Any
    ) -> None:
        self.task, self.name, self.trl, self.attention, self.rows, self.options = task, name, trl, attention, rows, options

    def prepare(self) -> None:
        from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments

        self.model, self._clock, self._folder = self.task.model(self.attention), _clock(), tempfile.TemporaryDirectory()
        rows = self.rows if self.rows is not None else labelled(self.task.encoded)
        arguments = self._shared() | self.options
        tokenizer = self.task.loaded.tokenizer
        if self.trl:
            from datasets import Dataset, disable_progress_bars
            from trl import SFTConfig, SFTTrainer

            disable_progress_bars()
            head = self.model.get_output_embeddings()
            if isinstance(head, TrainableTokensWrapper) and head_weight(head) is not None:
                head.bias = None  # TRL 1.16 asks for it, and peft's wrapper of a head with trained rows, 0.21, does not pass it on
            config = SFTConfig(max_length=None, **arguments)
            self.trainer = SFTTrainer(
                self.model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[self._clock]
            )
        else:
            collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)
            self.trainer = Trainer(self.model, TrainingArguments(**arguments), collator, rows, processing_class=tokenizer, callbacks=[self._clock])  # fmt: skip
        self.trainer.remove_callback(PrinterCallback)

    def run(self) -> Work:
        with models.quiet():
            self.trainer.train()
        self._folder.cleanup()
        return self.task.work(self._clock.seconds)

    def release(self) -> None:
        self.model = self.trainer = None

    def _shared(self) -> dict[str, Any]:
        s = self.task.stage.settings
        steps = -(-len(self.task.encoded) // s.batch_size)
        return {
            "output_dir": self._folder.name, "per_device_train_batch_size": s.batch_size, "num_train_epochs": 1, "learning_rate": s.lr,
            "lr_scheduler_type": s.decay, "warmup_steps": round(s.warmup * steps), "weight_decay": s.weight_decay,
            "max_grad_norm": s.clip, "bf16": self.task.dtype == torch.bfloat16, "seed": s.seed, "use_cpu": self.task.loaded.model.device.type == "cpu",
            "save_strategy": "no", "report_to": [], "disable_tqdm": True,
        } | ({"dataloader_pin_memory": False} if self.task.loaded.model.device.type == "cpu" else {})  # fmt: skip


def arms(task: Task) -> tuple[list[Any], list[Missing]]:
    """Returns the arms that can run here, and those that cannot."""
    pinned = task.loaded.model.device.type == "cuda"  # memory that a GPU can copy from by itself; a CPU has no use for it
    grouped: dict[str, Any] = {"train_sampling_strategy": "group_by_length", "dataloader_pin_memory": pinned}
    found: list[Any] = [Ours(task), BareLoop(task), HuggingFace(task, "Trainer", trl=False, attention="sdpa")]
    if not trl_installed():
        why = "not installed: pip install -e '.[trl]'"
        return found, [Missing("TRL tuned", why), Missing("TRL as it comes", why)]
    tuned = HuggingFace(task, "TRL tuned", trl=True, gradient_checkpointing=False, logging_steps=task.stage.settings.log_every, **grouped)
    return [found[0], tuned, *found[1:], HuggingFace(task, "TRL as it comes", trl=True, attention="sdpa")], []


def trl_installed() -> bool:
    """Returns whether TRL and the datasets library that it needs are there."""
    return all(importlib.util.find_spec(name) for name in ("trl", "datasets"))


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Times a training from its first to its last step."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.seconds = time.perf_counter() - self.began

    return Clock()
