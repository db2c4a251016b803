"""The documents that the benchmark trains on, drawn as in an experiment, and what drawing them costs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from pbb_helpers.data.budget import Budget
from pbb_helpers.data.datasets import draw_dataset
from pbb_helpers.data.plan import QUICK
from pbb_helpers.data.settings import Stage
from pbb_helpers.data.specs import STAGE1
from pbb_helpers.data.stages import build_stage
from pbb_helpers.performance.benchmark import Arm, Work
from pbb_helpers.performance.performance_plan import Plan
from pbb_helpers.performance.random_models import SHAPES


def documents(
    plan: Plan, steps: int, *, n_programs: int = QUICK.n_with_io, statements: int | None = None, seed: int = 0, **changes: Any
) -> Stage:
    """Returns a first stage of so many steps, drawn as in an experiment.

    Args:
        n_programs: Programs w/ IO; a fifth as many w/o IO.
        statements: The length of every program; None draws one to two.
        seed: Of the programs and of the training.
        changes: Of the stage's settings.
    """
    settings = replace(QUICK.budget.stage1, batch_size=plan.batch_size, **changes)
    length = (("min_statements", statements), ("max_statements", statements)) if statements else ()
    experiment = replace(QUICK, n_with_io=n_programs, n_without_io=max(2, n_programs // 5), family_settings=length)
    return build_stage(STAGE1, experiment.dataset(seed), Budget(settings, settings, stage1_steps=steps))


class Drawing(Arm):
    """An arm that draws programs and the documents of a stage, and checks them for leaks."""

    def __init__(self, plan: Plan, n_programs: int) -> None:
        self.plan, self.n_programs, self.name = plan, n_programs, f"drawing and checking, {n_programs}"

    def prepare(self) -> None:
        draw_dataset.cache_clear()
        build_stage.cache_clear()

    def run(self) -> Work:
        began = time.perf_counter()
        stage = documents(self.plan, exposures(self.plan, self.n_programs), n_programs=self.n_programs)
        return Work(time.perf_counter() - began, len(stage.examples), 0)


def exposures(plan: Plan, n_programs: int) -> int:
    """Returns the steps in which each program is seen as often, whatever their number."""
    return max(1, 4 * n_programs // plan.batch_size)


def shape_documents(plan: Plan, name: str, steps: int, batch_size: int | None = None) -> Stage:
    # The names of programs are several tokens in the published models' own tokenizers, and have no rows to train.
    return documents(replace(plan, batch_size=batch_size or SHAPES[name].batch_size), steps, dtype="bfloat16", train_names=False)
