"""Jobs hold everything once, and know how much that is."""

from __future__ import annotations

from dataclasses import replace

from pbb_helpers.experiments.jobs import jobs, run_job, stacking_pays


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


def test_the_bar_ends_at_its_end(plan, tmp_path):
    class Events:
        def put(self, event):
            done[event[0]] = event[1]

    done: dict = {}
    some = replace(plan, conditions=("base", "source_only"), seeds=(0,))
    for job in jobs(some):
        run_job(job, tmp_path, Events())
    assert sum(done.values()) == sum(job.work for job in jobs(some))
