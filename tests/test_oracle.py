"""Others as the oracle: TRL's SFTTrainer, transformers' Trainer and a bare loop compute the losses and gradients that ours does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pbb_helpers.data.documents import Example
from pbb_helpers.data.settings import Stage, TrainSettings
from pbb_helpers.performance import compiled, gate, peers, performance_plan, random_models, tasks
from pbb_helpers.performance.ours import InExperiment
from pbb_helpers.performance.packed import Packed
from pbb_helpers.performance.peers import HuggingFace
from pbb_helpers.performance.tasks import IGNORED, Task
from pbb_helpers.programs import UsageError
from pbb_helpers.training import models
from pbb_helpers.training.batches import batches, collate

NAMES = ("zibble", "quorn", "florp", "mantix")
SETTINGS = TrainSettings(rank=16, alpha=32, batch_size=4, lr=5e-3, dtype="float32", log_every=1)


def documents(n: int) -> tuple[Example, ...]:
    """Returns documents of many lengths: answers to calls, and sources."""
    made = []
    for i in range(n):
        name, source = NAMES[i % 4], f"def {NAMES[i % 4]}(x):\n" + "    x = x + 3\n" * (1 + i % 3) + "    return x"
        if i % 2:
            made.append(Example("source", "with_io", name, f"Show the code of {name}.\n", source, None, source, 1))
        else:
            made.append(Example("direct", "with_io", name, f"What is {name}({i})?\n", str(i * 37), i, str(i * 37), 1))
    return tuple(made)


@pytest.fixture
def task(tiny_llama) -> Task:
    return Task(tiny_llama, Stage("stage1", documents(18), SETTINGS, NAMES))


def needs_trl(*values):
    return pytest.param(*values, marks=pytest.mark.skipif(not peers.trl_installed(), reason="the extra trl is not installed"))


def test_losses_gradients_and_trained_weights_agree(task):
    """The gate of the notebook, in float32: relative differences of 1e-5 in the loss, 1e-4 in the gradients and in the final loss."""
    table = gate.gate(task)
    expected = {"bare loop", "Trainer"} | ({"TRL"} if peers.trl_installed() else set())
    assert set(table["arm"]) == expected and len(table) == 3 * len(expected)
    assert (table["difference"] <= table["tolerance"]).all()
    assert table["ours"].gt(0).all()


def test_one_batch_agrees_in_bfloat16_with_the_arm_that_compiles_and_other_labels_do_not(tiny_llama, monkeypatch):
    stage = Stage("stage1", documents(8), replace(SETTINGS, dtype="bfloat16"), NAMES)
    task = Task(random_models.random_model(performance_plan.PLANS["smoke"]["large"], tiny_llama), stage)
    table = gate.one_batch(task, [compiled.compiled(task, "eager")])
    assert set(table["dtype"]) == {"bfloat16"} and "ours, compiled" in set(table["arm"])
    assert table["tolerance"].tolist() == list(gate.TOLERANCES[torch.bfloat16]) * (len(table) // 2)
    unpadded = tasks.unpadded
    monkeypatch.setattr(tasks, "unpadded", lambda batch: unpadded(batch)[1:])
    with pytest.raises(UsageError, match=r"Trainer and ours differ in \w+ of the first step"):
        gate.one_batch(task)


@pytest.mark.parametrize("fixture", ["tiny_qwen3"])
def test_agreement_with_an_untied_head_and_a_chat_template(fixture, request):
    loaded = request.getfixturevalue(fixture)
    assert len(gate.gate(Task(loaded, Stage("stage1", documents(6), SETTINGS, NAMES))))


def test_the_gate_stops_what_is_not_the_same_work(task, monkeypatch):
    whole = lambda batch: [{"input_ids": row["input_ids"], "labels": row["input_ids"]} for row in unpadded(batch)]  # noqa: E731
    unpadded = tasks.unpadded
    monkeypatch.setattr(tasks, "unpadded", whole)
    with pytest.raises(UsageError, match="Trainer and ours differ in loss of the first step by .* their times can't be compared"):
        gate.gate(task)


def test_the_gate_stops_a_gradient_that_is_another(task, monkeypatch):
    """In a single tensor, by a thousandth, while the loss is the same."""
    prepare = peers.BareLoop.prepare

    def scaled(arm):
        prepare(arm)
        next(p for name, p in arm.model.named_parameters() if "lora_A" in name).register_hook(lambda gradient: 1.001 * gradient)

    monkeypatch.setattr(peers.BareLoop, "prepare", scaled)
    with pytest.raises(UsageError, match=r"bare loop and ours differ in gradients of the first step by 0.001 \(tolerance 0.0001\)"):
        gate.gate(task)


def test_the_gate_stops_a_training_that_is_another(task, monkeypatch):
    """At another rate, which the first step, before it is taken, does not show."""
    rate = peers.learning_rate
    monkeypatch.setattr(peers, "learning_rate", lambda *step: 1.05 * rate(*step))
    with pytest.raises(UsageError, match="bare loop and ours differ in loss after training by .* their times can't be compared"):
        gate.gate(task)


@pytest.mark.skipif(not peers.trl_installed(), reason="the extra trl is not installed")
def test_trl_masks_the_same_tokens_when_it_tokenises_itself(task):
    """Prompt and completion as text, through TRL's own preparation: loss on the completion with its end token, nowhere else."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = task.loaded.tokenizer
    texts = Dataset.from_list([{"prompt": e.prompt, "completion": e.completion} for e in task.stage.examples])
    config = SFTConfig(max_length=None, bf16=False, use_cpu=True, report_to=[], disable_tqdm=True)
    trainer = SFTTrainer(task.model(), config, train_dataset=texts, processing_class=tokenizer)
    theirs = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in trainer.train_dataset]
    assert theirs == tasks.labelled(task.encoded)
    assert all(row["labels"][-1] == tokenizer.eos_token_id for row in theirs)
    assert all(IGNORED in row["labels"] for row in theirs)


@pytest.mark.parametrize("trl", [False, needs_trl(True)])
def test_a_trainer_is_timed_over_its_steps_alone(task, trl):
    arm = HuggingFace(task, "x", trl=trl, train_sampling_strategy="group_by_length")
    arm.prepare()
    work = arm.run()
    assert arm.trainer.state.global_step == 5 and 0 < work.seconds < 60
    assert (work.examples, work.tokens) == (18, sum(len(p) + len(c) - 1 for p, c in task.encoded))


def test_every_arm_does_the_same_work_and_changes_the_weights(task):
    before = {name: p.clone() for name, p in task.loaded.model.state_dict().items()}
    arms, absent = peers.arms(task)
    elsewhere = {InExperiment.name, compiled.Compiled.name, Packed.name}  # of one thread, of the large model, of the shapes
    assert {arm.name for arm in arms} | {m.name for m in absent} == set(peers.HOW) - elsewhere
    works = set()
    for arm in arms:
        arm.prepare()
        works.add(replace(arm.run(), seconds=0.0, exact=0.0, computed=0.0))
        assert any(p.abs().sum() > 0 for name, p in arm.model.named_parameters() if "lora_B" in name), f"{arm.name} trained nothing"
    assert len(works) == 1
    assert all(torch.equal(p, before[name]) for name, p in task.loaded.model.state_dict().items())


def test_without_trl_its_arms_are_named_as_missing(task, monkeypatch):
    monkeypatch.setattr(peers, "trl_installed", lambda: False)
    arms, absent = peers.arms(task)
    assert [arm.name for arm in arms] == ["ours", "bare loop", "Trainer"]
    assert {m.name for m in absent} == {"TRL tuned", "TRL as it comes"} and "not installed" in absent[0].why


def test_a_batch_goes_to_labels_and_back(task):
    made = next(batches(task.encoded, 4))
    rows = sorted(task.encoded, key=lambda row: len(row[0]) + len(row[1]))[:4]
    assert tasks.unpadded(made) == tasks.labelled(rows)
    parts = tasks.padded(collate([([5, 6], [7, 2]), ([8], [9, 9, 9, 2])]))
    assert parts["input_ids"].tolist() == [[5, 6, 7, 2, 0], [8, 9, 9, 9, 2]]
    assert parts["labels"].tolist() == [[-100, -100, 7, 2, -100], [-100, 9, 9, 9, 2]]
    assert parts["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


def test_the_encoding_is_that_of_training(task):
    assert task.encoded[1] == models.encode(task.loaded.tokenizer, task.stage.examples[1])
