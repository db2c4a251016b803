"""The same table for the same seed: in another process, with another hash seed, with more threads on offer; answers apart from the batch.

Other modules hold the rest: any number of processes, each condition alone (test_experiment.py), batches of random models (test_evaluate.py),
documents and keys (test_conditions.py, test_store.py), pretraining (test_pretrain.py).
"""

from __future__ import annotations

import json
import os

import pytest
from faults import python

from pbb_helpers.data.datasets import draw_dataset, generator
from pbb_helpers.data.documents import call_document, source_document
from pbb_helpers.programs import family
from pbb_helpers.training import evaluate, models

TABLE = """
import json, sys
from pathlib import Path
from campaign import experiment
from pbb_helpers.experiments.jobs import jobs, run_job

plan = experiment(sys.argv[1])
print(hash("zibble"))
for rows, metrics in (run_job(job, Path(sys.argv[2])) for job in jobs(plan)):
    for line in (*rows, *({name: value for name, value in line.items() if name != "seconds"} for line in metrics)):
        print(json.dumps(line))
(stage, *_) = sorted(Path(sys.argv[2]).glob("*/adapter/*.safetensors"))
print(stage.read_bytes().hex())
"""
THREADS = """
import json, sys
from pathlib import Path
import torch
from pbb_helpers.data import conditions, stages
from pbb_helpers.training import models, store, train
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.settings import TrainSettings

settings = TrainSettings(batch_size=32, dtype="float32", log_every=1)
plan = Experiment(n_with_io=20, n_without_io=4, budget=Budget(settings, settings, stage1_steps=5, stage2_steps=1))
stage = stages.build_stage(conditions.condition("proactive").stages[0], plan.dataset(0), plan.budget)
for threads in (1, 2):
    torch.set_num_threads(threads)
    kept = store.Store(Path(sys.argv[1]) / str(threads))
    key = train.train_stage(models.load("pbb-small", device="cpu"), stage, store=kept)
    print(json.dumps([line["loss"] for line in kept.metrics(key)]))
"""


def test_table_does_not_depend_on_process_hash_seed_or_cores(shipped_like, tmp_path):
    """A training takes one thread however many it is offered: losses, weights and answers are equal in every bit."""
    offers = [{"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}, {"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "2"}]
    one, other = (python(TABLE, shipped_like, tmp_path / str(i), **offer).splitlines() for i, offer in enumerate(offers))
    assert one[0] != other[0], "strings hash differently"
    assert len(one) > 10 and one[1:] == other[1:]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2 if hasattr(os, "sched_getaffinity") else False, reason="needs two cores")
def test_two_threads_give_close_losses(tmp_path):
    """Where a stage is trained on two threads by hand, sums are taken in another order: close, and not promised to be equal."""
    one, two = map(json.loads, python(THREADS, tmp_path, OMP_WAIT_POLICY="passive").splitlines())
    assert one and one == pytest.approx(two, rel=1e-4)


@pytest.fixture(scope="module")
def asked():
    """Returns the shipped model and questions of every mode, about programs of one to three statements, in mixed order."""
    data = draw_dataset(family("arithmetic", max_statements=3), n_with_io=4, n_without_io=9, n_eval_inputs=4, seed=3)
    some = [source_document(program, "without_io", i) for i, program in enumerate(data.without_io)]
    modes = ("direct", "cot", "in_context_direct", "in_context_cot")
    some += [call_document(p, "without_io", mode, data.eval_inputs[i % 4], i) for i, p in enumerate(data.without_io) for mode in modes]
    order = generator(0, "questions").permutation(len(some))
    return models.load("pbb-small", device="cpu"), [some[i] for i in order]


def test_answers_of_the_shipped_model_do_not_depend_on_batch_size_or_order(asked):
    loaded, questions = asked
    assert len({len(models.encode(loaded.tokenizer, question)[0]) for question in questions}) > 10, "prompts of many lengths"
    one, *others = (evaluate.evaluate(loaded, loaded.model, questions, batch_size=size) for size in (1, 3, 128))
    assert all(rows == one for rows in others) and any(row["correct"] for row in one)
    assert evaluate.evaluate(loaded, loaded.model, questions[::-1], batch_size=3) == one[::-1]
