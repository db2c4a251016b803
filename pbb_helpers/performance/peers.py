"""The training of `train.py` beside that of others: TRL's SFTTrainer, transformers' Trainer and a bare loop, on the same documents.

All start from the same weights, which those that train LoRA share in memory, take the same labels, batch size, steps and optimizer; `HOW`
says what differs. `gate.py` shows that they compute the same thing.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn

from pbb_helpers.data.settings import Stage
from pbb_helpers.performance.benchmark import Arm, Missing, Work, peak_memory, shape_of, total, training_flops
from pbb_helpers.processes import follow_parent, lean_memory
from pbb_helpers.training import models
from pbb_helpers.training.batches import Batch, Encoded, batches, side_by_side
from pbb_helpers.training.loss import autocast, causal_lm, head_weight, loss
from pbb_helpers.training.merged import inputs_as_they_are, merged_forward
from pbb_helpers.training.models import LoadedModel
from pbb_helpers.training.stacked import train_stages
from pbb_helpers.training.store import Store
from pbb_helpers.training.train import WINDOW, Training, fresh, learning_rate, load_stage, order_generator, resolve_dtype, train_stage

warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated")  # TRL 1.16 sets it by its old name
warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")  # as it is asked to, for the time of compiling
IGNORED = -100
"""The label of a token without loss, in transformers and TRL."""
MULTIPLE = 8
"""Widths of the batches of the compiled arm are multiples of it, as in pretraining."""
_ATTENTION = "the model's attention (eager on a CPU, where it is the faster one, SDPA elsewhere)"
HOW = {
    "ours": f"batches of similar length, no attention mask, {_ATTENTION}, LoRA as a merged weight where that takes fewer operations, head at supervised positions",
    "bare loop": f"the batches of ours; peft's forward, {_ATTENTION}, the model's own loss over all logits",
    "TRL tuned": f"SFTTrainer grouped by length, no checkpointing, {_ATTENTION}",
    "TRL as it comes": "SFTTrainer: random batches, gradient checkpointing, SDPA attention",
    "Trainer": "transformers.Trainer: random batches, SDPA attention, the model's own loss over all logits",
    "ours, as in an experiment": "ours in a process of its own as `jobs.run_job` makes it: one thread, kernels of 16 shapes kept, a lean heap",
    "ours, compiled": f"ours with torch.compile on the layers, one graph for all widths, which are multiples of {MULTIPLE}; no experiment does so: its results must not hang on a compiler",
}


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

    def batches(self, multiple: int = 1) -> Iterator[Batch]:
        """Yields the batches of ours, in the order of training, of widths that are multiples of `multiple`."""
        settings = self.stage.settings
        return batches(self.encoded, settings.batch_size, WINDOW, order_generator(settings), multiple=multiple)

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


# --- arms ---------------------------------------------------------------------------------------------------------------


class _Training(Arm):
    """An arm that trains; `model` holds what came out until it is released."""

    model: Any = None

    def release(self) -> None:
        self.model = None


class Ours(_Training):
    """`train.train_stage`, the very path of an experiment; its seconds are those of its log: the loop, without tokenising and saving."""

    def __init__(self, task: Task, name: str = "ours") -> None:
        self.task, self.name = task, name

    def run(self) -> Work:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            key = train_stage(self.task.loaded, self.task.stage, store=store)
            self.model = load_stage(self.task.loaded, store, key)
            return replace(self.task.work(store.metrics(key)[-1]["seconds"]), computed=self.task.computed)


class Compiled(_Training):
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


class InExperiment(Arm):
    """`Ours` under the conditions of an experiment, in a process of its own, which `close` ends; on a CPU.

    Its caches of kernels are small from the start, so they must be set before torch is imported there (`processes.lean_memory`).
    """

    name = "ours, as in an experiment"

    def __init__(self, model: str, stage: Stage) -> None:
        self.model, self.stage = model, stage
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=lean_memory)
        self.pool.submit(follow_parent).result()

    def run(self) -> Work:
        return self.pool.submit(_train_here, self.model, self.stage).result()

    def close(self) -> None:
        """Ends its process."""
        self.pool.shutdown()


def _train_here(model: str, stage: Stage) -> Work:
    """Returns the work of `Ours` on one thread, with its peak of memory in this process."""
    torch.set_num_threads(1)
    arm = Ours(Task(models.load(model), stage))
    with peak_memory() as peak:
        work = arm.run()
    return replace(work, peak_mb=peak[0])


class Stacked(Arm):
    """`stacked.train_stages`: the same stage of several seeds in one forward pass."""

    def __init__(self, tasks: Sequence[Task], name: str) -> None:
        self.tasks, self.name = tasks, name

    def run(self) -> Work:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            keys = train_stages(self.tasks[0].loaded, [task.stage for task in self.tasks], store=store)
            seconds = store.metrics(keys[0])[-1]["seconds"]
        return replace(total([task.work(0.0) for task in self.tasks], seconds), computed=self._computed)

    @cached_property
    def _computed(self) -> int:
        return sum(side_by_side(step).input_ids.numel() for step in zip(*(task.batches() for task in self.tasks), strict=True))


class OneByOne(Arm):
    """The same stages trained one after the other, each as `Ours`."""

    def __init__(self, tasks: Sequence[Task], name: str) -> None:
        self.arms, self.name = [Ours(task) for task in tasks], name

    def run(self) -> Work:
        works = []
        for arm in self.arms:
            works.append(arm.run())
            arm.release()
        return total(works, seconds=sum(work.seconds for work in works))


class BareLoop(_Training):
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


class HuggingFace(_Training):
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


# --- the same batch in two forms ----------------------------------------------------------------------------------------


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
