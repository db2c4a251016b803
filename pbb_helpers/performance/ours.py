"""The training of `train.py` as an arm: by itself, as an experiment runs it, and of several seeds, stacked or one by one."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from pbb_helpers.data.settings import Stage
from pbb_helpers.performance.benchmark import Arm, Work, peak_memory, total
from pbb_helpers.performance.tasks import Task, TrainingArm
from pbb_helpers.processes import follow_parent, lean_memory
from pbb_helpers.training import models
from pbb_helpers.training.batches import side_by_side
from pbb_helpers.training.stacked import train_stages
from pbb_helpers.training.store import Store
from pbb_helpers.training.train import load_stage, train_stage


class Ours(TrainingArm):
    """`train.train_stage`, the very path of an experiment; its seconds are those of its log: the loop, without tokenising and saving."""

    def __init__(self, task: Task, name: str = "ours") -> None:
        self.task, self.name = task, name

    def run(self) -> Work:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            key = train_stage(self.task.loaded, self.task.stage, store=store)
            self.model = load_stage(self.task.loaded, store, key)
            return replace(self.task.work(store.metrics(key)[-1]["seconds"]), computed=self.task.computed)


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
