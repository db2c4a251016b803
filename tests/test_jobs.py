"""Jobs hold everything once, and know how much that is."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments.jobs import jobs, run_job, stacking_pays
from pbb_helpers.programs import UsageError
from pbb_helpers.training import stacked
from pbb_helpers.training.store import Store
from pbb_helpers.training.train import Training


def test_jobs_hold_every_condition_and_seed_once_the_longest_first(plan):
    todo = jobs(plan)
    assert sorted((name, job.seeds) for job in todo for name in job.conditions) == sorted(
        (n, (s,)) for n in plan.conditions for s in plan.seeds
    )
    assert {job.conditions for job in todo} == {
        ("base", "in_context"), ("source_only",), ("stage1_only", "proactive", "shuffled_source"), ("mixture",)
    }  # fmt: skip
    work = [job.documents for job in todo]
    assert work == sorted(work, reverse=True) and work[0] == 4 * (5 + 3 + 3) and work[-1] == 0


def test_a_stack_holds_as_many_seeds_as_it_may(plan, monkeypatch):
    monkeypatch.setattr("pbb_helpers.experiments.jobs.STACK_SIZE", 2)
    some = replace(plan, seeds=(0, 1, 2, 3, 4), conditions=("proactive",))
    assert [job.seeds for job in jobs(some, stack=True)] == [(0, 1), (2, 3), (4,)]
    assert sum(job.documents for job in jobs(some, stack=True)) == sum(job.documents for job in jobs(some))


def test_seeds_are_stacked_on_a_gpu_where_the_model_is_small_and_can_be(plan, monkeypatch):
    assert not stacking_pays(plan)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert stacking_pays(plan)
    dropout = replace(plan.budget, stage2=replace(plan.budget.stage2, dropout=0.1))
    assert not stacking_pays(replace(plan, budget=dropout))
    monkeypatch.setattr("pbb_helpers.experiments.jobs.SMALL", 1000)
    assert not stacking_pays(plan)


def test_seeds_that_cannot_be_stacked_are_trained_one_by_one(plan, tmp_path):
    """Stages matched in tokens may differ in steps from seed to seed; in a model with dropout of its own rows would not be what they are alone."""
    drops = tmp_path / "drops"
    shutil.copytree(plan.model, drops)
    config = json.loads((drops / "config.json").read_text()) | {"attention_dropout": 0.1}
    (drops / "config.json").write_text(json.dumps(config))
    budget, few = plan.budget, {"batch_size": 1}
    tokens = replace(
        budget, match="tokens", stage1=replace(budget.stage1, **few), stage2=replace(budget.stage2, **few), stage1_steps=20, stage2_steps=9
    )
    for name, cannot in {
        "tokens": replace(plan, conditions=("description",), seeds=(0, 2), budget=tokens),
        "model": replace(plan, conditions=("proactive",), seeds=(0, 2), model=str(drops)),
    }.items():
        told: list[tuple] = []
        stack, alone = Store(tmp_path / name), Store(tmp_path / f"{name} alone")
        rows = [row for job in jobs(cannot, stack=True) for row in run_job(job, stack.root, SimpleNamespace(put=told.append))[0]]
        one_by_one = [row for job in jobs(cannot) for row in run_job(job, alone.root)[0]]
        assert sorted(map(json.dumps, rows)) == sorted(map(json.dumps, one_by_one)) and {row["seed"] for row in rows} == {0, 2}, name
        assert {which[0] for which, *_, line, _ in told if line} == {0, 2}, "each is told under its own seed"


def test_seeds_in_a_stack_have_one_order_and_a_seed_alone_its_own(plan, tmp_path):
    some = replace(plan, conditions=("source_only",), seeds=(0, 1))
    given = replace(some, budget=replace(some.budget, stage2=replace(some.budget.stage2, order_seed=5)))
    for number, (what, stack, orders) in enumerate(((some, True, {0}), (some, False, {None}), (given, True, {5}))):
        store = Store(tmp_path / str(number))
        for job in jobs(what, stack=stack):
            run_job(job, store.root)
        configs = [json.loads(path.read_text()) for path in store.root.glob("*/config.json")]
        assert len(configs) == 2 and {config["settings"]["order_seed"] for config in configs} == orders


def test_a_diverged_seed_is_named(plan, tmp_path, monkeypatch):
    some = replace(plan, conditions=("source_only",), seeds=(5, 7))
    lost, real = build_stage(condition("source_only").stages[0], some.dataset(7), some.budget, len).settings.seed, Training.record

    def record(self, value, *told):
        real(self, torch.tensor(math.nan) if (self.settings.seed, self.state.step) == (lost, 2) else value, *told)

    monkeypatch.setattr(Training, "record", record)
    for stack in (True, False):
        with pytest.raises(UsageError, match="^seed 7: the loss of stage2 is nan by step 2; lower lr"):
            for job in jobs(some, stack=stack):
                run_job(job, tmp_path)
    monkeypatch.setattr(stacked, "_require_alike", lambda stages: (_ for _ in ()).throw(stacked.NotStackable("one by one")))
    with pytest.raises(UsageError, match="^seed 7: "):
        run_job(jobs(some, stack=True)[0], tmp_path)


def test_the_bar_ends_at_its_end(plan, tmp_path):
    class Events:
        def put(self, event):
            done[event[0]] = event[1]

    done: dict = {}
    some = replace(plan, conditions=("base", "source_only"), seeds=(0,))
    for job in jobs(some):
        run_job(job, tmp_path, Events())
    assert sum(done.values()) == sum(job.work for job in jobs(some))
