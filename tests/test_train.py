"""Batches, the loss and its shortcuts against the plain way, and a stage of training."""

from __future__ import annotations

import errno
import json
import logging
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pbb_helpers import disk
from pbb_helpers.data.documents import Example
from pbb_helpers.data.settings import Stage, TrainSettings
from pbb_helpers.programs import UsageError
from pbb_helpers.training import models, train
from pbb_helpers.training.batches import batches, collate
from pbb_helpers.training.loss import head_loss, loss
from pbb_helpers.training.merged import merged_forward, merging_pays
from pbb_helpers.training.stacked import train_stages
from pbb_helpers.training.store import Store
from pbb_helpers.training.train import exposures, learning_rate, load_stage, resolve_dtype, train_stage

SETTINGS = TrainSettings(rank=4, alpha=8, batch_size=4, lr=1e-2, dtype="float32", checkpoint_every=3, log_every=2)
NAMES = ("zibble", "quorn", "florp", "mantix")


def example(name: str, x: int, kind: str = "direct", group: str = "with_io") -> Example:
    if kind == "source":
        source = f"def {name}(x):\n    x = x + {x}\n    return x"
        return Example(kind, group, name, f"Show the code of {name}.\n", source, None, source, 1)
    return Example(kind, group, name, f"What is {name}({x})?\n", str(x + len(name)), x, str(x + len(name)), 1)


EXAMPLES = tuple(example(name, x, kind) for x in range(5) for name in NAMES for kind in ("direct", "source"))
STAGE = Stage("stage1", EXAMPLES, SETTINGS, NAMES)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def encoded(n: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    g = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> list[int]:
        return torch.randint(3, 50, (int(torch.randint(low, high, (1,), generator=g)),), generator=g).tolist()

    return [(ids(1, 12), ids(1, 9)) for _ in range(n)]


# --- batches ------------------------------------------------------------------------------------------------------------


def test_collate_by_hand():
    batch = collate([([5, 6], [7, 2]), ([8], [9, 9, 9, 2])])
    assert batch.input_ids.tolist() == [[5, 6, 7, 0], [8, 9, 9, 9]]
    assert batch.positions.tolist() == [1, 2, 4, 5, 6, 7]
    assert batch.targets.tolist() == [7, 2, 9, 9, 9, 2]
    assert batch.tokens == 7


def test_collate_without_a_prompt_supervises_from_the_second_token():
    batch = collate([([], [7, 8, 2])])
    assert (batch.positions.tolist(), batch.targets.tolist()) == ([0, 1], [8, 2])


def test_collate_rounds_the_width_up():
    assert collate([([5, 6], [7, 2])], multiple=8).input_ids.shape == (1, 8)


def test_every_example_is_in_exactly_one_batch():
    rows = encoded(45)
    seen = [tuple(t) for b in batches(rows, 4, 3, torch.Generator().manual_seed(0)) for t in b.targets.split(1)]
    assert len(seen) == sum(len(completion) for _, completion in rows)
    made = list(batches(rows, 4, 3, torch.Generator().manual_seed(0)))
    assert sorted(map(len, made)) == [1] + [4] * 11
    assert sum(b.tokens for b in made) == sum(len(p) + len(c) - 1 for p, c in rows)


def test_batches_follow_the_seed_and_stay_in_their_window():
    rows = encoded(48)

    def widths(seed: int) -> list[list[list[int]]]:
        return [b.input_ids.tolist() for b in batches(rows, 4, 3, torch.Generator().manual_seed(seed))]

    assert widths(0) == widths(0) != widths(1)
    assert sorted(map(str, widths(0)[:3])) == sorted(map(str, widths(1)[:3]))


def test_batches_of_an_endless_stream():
    def stream():
        while True:
            yield [3, 4], [5, 2]

    made = batches(stream(), 4, 2)
    assert len(next(made)) == len(next(made)) == 4


# --- loss ---------------------------------------------------------------------------------------------------------------


def plain_loss(model, rows) -> float:
    """One example at a time through the model's own forward and labels: the definition."""
    total, n = 0.0, 0
    for prompt, completion in rows:
        logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0]
        total += F.cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(completion), reduction="sum").item()
        n += len(completion)
    return total / n


@pytest.mark.parametrize("fixture", ["tiny_llama", "tiny_qwen3"])
@pytest.mark.parametrize("adapter", [False, True])
def test_loss_is_the_mean_over_supervised_tokens(fixture, adapter, request):
    loaded = request.getfixturevalue(fixture)
    model = models.add_adapter(loaded.model, SETTINGS, NAMES, loaded.tokenizer) if adapter else loaded.model
    shake(model)
    rows = encoded(9)
    assert loss(model, collate(rows)).item() == pytest.approx(plain_loss(model, rows), rel=1e-5)


def shake(model) -> None:
    """Moves trained weights off their start, where LoRA's B is zero."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name or models.NAME_ROWS in name:
                p += 0.1 * torch.randn(p.shape, generator=g)


def test_padding_and_company_change_nothing(tiny_llama):
    short, long = ([3, 4], [5, 2]), ([3] * 20, [4] * 10)
    alone = loss(tiny_llama.model, collate([short])).item() * 2
    both = loss(tiny_llama.model, collate([short, long])).item() * 12
    assert both - loss(tiny_llama.model, collate([long])).item() * 10 == pytest.approx(alone, rel=1e-4)
    assert loss(tiny_llama.model, collate([short], multiple=32)).item() * 2 == pytest.approx(alone, rel=1e-5)


def test_scaled_logits_take_the_models_own_forward(tiny_llama):
    tiny_llama.model.config.logits_scaling = 1.0
    rows = encoded(5)
    assert loss(tiny_llama.model, collate(rows)).item() == pytest.approx(plain_loss(tiny_llama.model, rows), rel=1e-5)


def gradients(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss(model, batch).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_head_loss_equals_cross_entropy():
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(600, 16, generator=g, requires_grad=True)
    weight = torch.randn(97, 16, generator=g, requires_grad=True)
    targets = torch.randint(97, (600,), generator=g)
    expected = F.cross_entropy(hidden @ weight.t(), targets)
    expected_grads = torch.autograd.grad(3 * expected, (hidden, weight))
    value = head_loss(hidden, weight, targets)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    for got, want in zip(torch.autograd.grad(3 * value, (hidden, weight)), expected_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-7)


def test_head_loss_of_a_frozen_head():
    hidden, weight = torch.randn(5, 8, requires_grad=True), torch.randn(11, 8)
    head_loss(hidden, weight, torch.arange(5)).backward()
    assert hidden.grad is not None and weight.grad is None
    with torch.no_grad():
        assert not head_loss(hidden, weight, torch.arange(5)).requires_grad


def test_head_loss_survives_huge_logits():
    hidden = torch.tensor([[1e4, 0.0]], requires_grad=True)
    value = head_loss(hidden, torch.tensor([[1.0, 0], [-1, 0]]), torch.tensor([1]))
    assert value.item() == pytest.approx(2e4)


@pytest.mark.parametrize("fixture", ["tiny_llama", "tiny_qwen3"])
def test_merged_forward_equals_pefts(fixture, request):
    loaded = request.getfixturevalue(fixture)
    model = models.add_adapter(loaded.model, replace(SETTINGS, rank=64), NAMES, loaded.tokenizer)
    shake(model)
    batch = collate(encoded(9))
    before, expected = loss(model, batch), gradients(model, batch)
    with merged_forward(model, tokens=1000) as changed:
        assert changed == 14  # seven linear layers in each of two blocks
        assert loss(model, batch).item() == pytest.approx(before.item(), rel=1e-5)
        for name, grad in gradients(model, batch).items():
            torch.testing.assert_close(grad, expected[name], rtol=1e-3, atol=1e-5 * float(expected[name].abs().max()), msg=name)
    assert torch.equal(loss(model, batch), before)  # peft's forward is back


def test_merged_forward_leaves_dropout_to_peft(tiny_llama):
    model = models.add_adapter(tiny_llama.model, replace(SETTINGS, rank=64, dropout=0.1), NAMES, tiny_llama.tokenizer)
    with merged_forward(model, tokens=1000) as changed:
        assert changed == 0


def test_merging_does_not_pay_for_a_large_layer_of_small_rank():
    class Layer:
        in_features = out_features = 4096

    assert not merging_pays(Layer, rank=16, tokens=2000)
    Layer.in_features = Layer.out_features = 128
    assert merging_pays(Layer, rank=64, tokens=2000)
    assert not merging_pays(Layer, rank=64, tokens=10)


# --- settings -----------------------------------------------------------------------------------------------------------


def test_learning_rate():
    settings = TrainSettings(lr=1.0, warmup=0.2)
    rates = [learning_rate(settings, step, 10) for step in range(1, 11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] == pytest.approx(1 / 8)
    assert learning_rate(replace(settings, decay="constant"), 10, 10) == 1.0
    assert learning_rate(replace(settings, decay="cosine"), 3, 10) == 1.0
    assert learning_rate(TrainSettings(lr=1.0, warmup=0.05), 1, 1) == 1.0
    with pytest.raises(UsageError, match="unknown decay 'cosin'; did you mean 'cosine'"):
        learning_rate(replace(settings, decay="cosin"), 5, 10)


def test_dtype():
    assert resolve_dtype("float32", torch.device("cpu")) is torch.float32
    assert resolve_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    with pytest.raises(UsageError, match="unknown dtype 'bf16'"):
        resolve_dtype("bf16", torch.device("cpu"))


def test_a_gpu_that_emulates_bfloat16_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert resolve_dtype("auto", torch.device("cuda")) is torch.float32


def test_exposures():
    stage = replace(STAGE, examples=(*EXAMPLES, example("zibble", 0)))
    assert exposures(stage) == [
        {"group": "with_io", "kind": "direct", "programs": 4, "documents": 21, "min": 5, "mean": 5.25, "max": 6},
        {"group": "with_io", "kind": "source", "programs": 4, "documents": 20, "min": 5, "mean": 5.0, "max": 5},
    ]


# --- a stage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("fixture", ["tiny_llama", "tiny_qwen3"])
def test_training_lowers_the_loss_and_leaves_the_base_alone(fixture, method, request, store):
    loaded = request.getfixturevalue(fixture)
    before = {name: p.clone() for name, p in loaded.model.state_dict().items()}
    lines: list[dict] = []
    stage = replace(STAGE, examples=EXAMPLES * 3, settings=replace(SETTINGS, method=method, lr=1e-2 if method == "lora" else 1e-3))
    key = train_stage(loaded, stage, store=store, on_progress=lines.append)
    assert [line["step"] for line in lines] == list(range(2, 31, 2))
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert lines[-1]["examples"] == 120 and lines[-1]["steps"] == 30
    assert store.metrics(key) == lines
    assert all(torch.equal(p, before[name]) for name, p in loaded.model.state_dict().items())
    assert not hasattr(loaded.model, "peft_config")
    rows = [models.encode(loaded.tokenizer, e) for e in EXAMPLES]
    for model in (load_stage(loaded, store, key), load_stage(loaded, store, key, merge=True)):
        assert loss(model, collate(rows)).item() < lines[0]["loss"]
    assert all(torch.equal(p, before[name]) for name, p in loaded.model.state_dict().items())


def test_finished_stage_is_not_trained_again(tiny_llama, store):
    key = train_stage(tiny_llama, STAGE, store=store)
    assert train_stage(tiny_llama, STAGE, store=store, on_progress=lambda line: pytest.fail("trained again")) == key
    config = store.config(key)
    assert config["settings"]["rank"] == 4 and config["steps"] == 10 and config["finished"] and config["exposures"]
    assert load_stage(tiny_llama, store, tiny_llama.key) is tiny_llama.model


def test_the_seconds_count_what_a_gpu_has_still_to_do(tiny_llama, store, monkeypatch):
    clock, item = [0.0], torch.Tensor.item
    monkeypatch.setattr(train.time, "perf_counter", lambda: clock[0])

    def waiting(tensor):  # the work goes on until somebody asks for its result
        clock[0] += 100.0
        return item(tensor)

    monkeypatch.setattr(torch.Tensor, "item", waiting)
    stages = [replace(STAGE, settings=replace(SETTINGS, log_every=100, checkpoint_every=100, seed=seed)) for seed in (0, 1)]
    alone, stacked = train_stage(tiny_llama, stages[0], store=store), train_stages(tiny_llama, stages, store=store)[0]
    assert [line["seconds"] for key in (alone, stacked) for line in store.metrics(key)] == [100.0, 100.0]


def adapter_bytes(store: Store, key: str) -> bytes:
    return (store.folder(key) / "adapter" / models.ADAPTER_WEIGHTS).read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_same_seed_same_bytes(tiny_folder, tmp_path, dtype):
    stage = replace(STAGE, settings=replace(SETTINGS, dtype=dtype))
    made = []
    for run in range(2):
        torch.manual_seed(run)  # what happened before must not matter
        store = Store(tmp_path / str(run))
        made.append(adapter_bytes(store, train_stage(models.load(str(tiny_folder("llama")), device="cpu"), stage, store=store)))
    assert made[0] == made[1]


def test_second_stage_goes_on_from_the_first(tiny_llama, store):
    first = train_stage(tiny_llama, replace(STAGE, names=NAMES[:2]), store=store)
    second = train_stage(tiny_llama, Stage("stage2", EXAMPLES[:8], replace(SETTINGS, lr=1e-9), NAMES[2:]), store=store, parent=first)
    rows = collate([models.encode(tiny_llama.tokenizer, e) for e in EXAMPLES[:8]])
    losses = [loss(load_stage(tiny_llama, store, key), rows).item() for key in (first, second)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert store.config(second)["parent"] == first
    assert store.config(second)["trained_parameters"] == store.config(first)["trained_parameters"] + 2 * 32


def test_second_stage_must_fit_the_first(tiny_llama, store):
    first = train_stage(tiny_llama, STAGE, store=store)
    with pytest.raises(UsageError, match="stage2 has rank=8 but goes on from a stage with 4"):
        train_stage(tiny_llama, Stage("stage2", EXAMPLES, replace(SETTINGS, rank=8), ()), store=store, parent=first)
    with pytest.raises(UsageError, match="holds no finished stage"):
        train_stage(tiny_llama, Stage("stage2", EXAMPLES, SETTINGS, ()), store=store, parent="f" * 64)


def test_too_long_example_is_named(tiny_llama, store):
    with pytest.raises(UsageError, match="stage1: the source document of .* has .* tokens, more than max_length 20"):
        train_stage(tiny_llama, replace(STAGE, settings=replace(SETTINGS, max_length=20)), store=store)
    with pytest.raises(UsageError, match="has no examples"):
        train_stage(tiny_llama, replace(STAGE, examples=()), store=store)


def test_diverged_training_is_one_line(tiny_llama, store):
    with torch.no_grad():
        tiny_llama.model.model.norm.weight[0] = math.nan
    with pytest.raises(UsageError, match="loss of stage1 is nan by step 2; lower lr"):
        train_stage(tiny_llama, STAGE, store=store)


def test_a_gradient_that_is_no_number_is_one_line(tiny_llama, store, monkeypatch):
    monkeypatch.setattr(train.nn.utils, "clip_grad_norm_", lambda *_, **__: torch.tensor(math.inf))
    with pytest.raises(UsageError, match="norm of the gradient of stage1 is inf by step 2; lower lr"):
        train_stage(tiny_llama, STAGE, store=store)


@pytest.mark.parametrize("wrong", [
    {"rank": 0}, {"batch_size": 0}, {"batch_size": -4}, {"max_length": 0}, {"checkpoint_every": 0}, {"log_every": 0}, {"log_every": -1}, {"lr": 0.0},
    {"lr": math.nan}, {"lr": math.inf}, {"alpha": 0}, {"dropout": 1.0}, {"dropout": -0.1}, {"warmup": 1.5}, {"warmup": -0.1}, {"weight_decay": -1.0},
    {"clip": math.nan},
])  # fmt: skip
def test_settings_that_make_no_sense_are_one_line(wrong):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"^{name} {wrong[name]}; give "):
        TrainSettings(**wrong)


# --- resume -------------------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_at(step: int):
    def progress(line: dict) -> None:
        if line["step"] >= step:
            raise Stop

    return progress


def without_seconds(lines: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.fixture(params=["lora", "dropout", "full", "bfloat16"])
def whole(request, tiny_llama, tmp_path) -> tuple[Stage, Store, str]:
    """Returns a stage, trained without interruption."""
    changes = {"dropout": {"dropout": 0.2}, "full": {"method": "full"}, "bfloat16": {"dtype": "bfloat16"}}.get(request.param, {})
    stage = replace(STAGE, settings=replace(SETTINGS, **changes))
    store = Store(tmp_path / "whole")
    return stage, store, train_stage(tiny_llama, stage, store=store)


def same(store: Store, other: Store, key: str) -> bool:
    weights = [next((s.folder(key) / "adapter").glob("*.safetensors")).read_bytes() for s in (store, other)]
    return weights[0] == weights[1] and without_seconds(store.metrics(key)) == without_seconds(other.metrics(key))


@pytest.mark.parametrize("stops", [(2,), (4, 8), (10,)])
def test_resumed_equals_uninterrupted(tiny_llama, store, whole, stops):
    stage, other, key = whole
    for step in stops:
        with pytest.raises(Stop):
            train_stage(tiny_llama, stage, store=store, on_progress=stop_at(step))
        torch.rand(3)
    seen: list[dict] = []
    assert train_stage(tiny_llama, stage, store=store, on_progress=seen.append) == key
    assert len(seen) <= 5 and same(store, other, key)


class Sometimes(torch.nn.Module):
    """A norm with a layer behind it that only batches of a width that `n` divides use."""

    def __init__(self, norm: torch.nn.Module, n: int) -> None:
        super().__init__()
        self.norm, self.spare, self.n = norm, torch.nn.Linear(32, 32), n

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return y if x.shape[1] % self.n else y + self.spare(y)


@pytest.mark.parametrize("n", [10**6, 31], ids=["never", "later"])
def test_a_layer_without_a_gradient_is_resumed_without_one(tiny_llama, tmp_path, n):
    """AdamW counts the steps of each tensor from its first gradient on: that count is part of the state."""
    torch.manual_seed(0)
    tiny_llama.model.model.norm = Sometimes(tiny_llama.model.model.norm, n)
    stage = replace(STAGE, settings=replace(SETTINGS, checkpoint_every=1, log_every=1))
    whole, stopped = Store(tmp_path / "whole"), Store(tmp_path / "stopped")
    key = train_stage(tiny_llama, stage, store=whole)
    for step in range(2, 10):
        with pytest.raises(Stop):
            train_stage(tiny_llama, stage, store=stopped, on_progress=stop_at(step))
    assert train_stage(tiny_llama, stage, store=stopped) == key and same(whole, stopped, key)


@pytest.mark.parametrize("whole", ["lora"], indirect=True)
@pytest.mark.parametrize("harmed", [(6,), (3, 6)])
def test_damaged_checkpoint_is_set_aside(tiny_llama, store, whole, harmed, caplog):
    stage, other, key = whole
    with pytest.raises(Stop):
        train_stage(tiny_llama, stage, store=store, on_progress=stop_at(8))
    for step in harmed:
        path = store.folder(key) / f"checkpoint-{step}" / "state.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
    seen: list[dict] = []
    train_stage(tiny_llama, stage, store=store, on_progress=seen.append)
    assert seen[0]["step"] == (4 if harmed == (6,) else 2)
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warned) == len(harmed) and all("is damaged" in line and "\n" not in line for line in warned)
    assert same(store, other, key)
    assert len(list(store.folder(key).glob("*.damaged"))) == len(harmed)


@pytest.mark.parametrize("whole", ["lora"], indirect=True)
def test_damaged_adapter_is_trained_again(tiny_llama, store, whole, caplog):
    stage, other, key = whole
    train_stage(tiny_llama, stage, store=store)
    path = store.folder(key) / "adapter" / models.ADAPTER_WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 64
    path.write_bytes(bytes(data))
    with pytest.raises(UsageError, match="holds no finished stage"):
        load_stage(tiny_llama, store, key)
    assert not caplog.records and path.exists(), "it is set aside under its lock, by who trains it"
    train_stage(tiny_llama, stage, store=store)
    assert len(caplog.records) == 1 and same(store, other, key)


@pytest.mark.parametrize("whole", ["lora"], indirect=True)
def test_full_disk_is_one_line_and_training_goes_on_later(tiny_llama, store, whole, monkeypatch):
    stage, other, key = whole
    first = train_stage(tiny_llama, replace(stage, examples=EXAMPLES[:4]), store=store)

    def fill(line: dict) -> None:
        if line["step"] == 4:
            monkeypatch.setattr(disk.os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))

    with pytest.raises(UsageError, match="no space left") as caught:
        train_stage(tiny_llama, stage, store=store, on_progress=fill)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert store.is_done(first) and store.checkpoints(key) == [3]
    train_stage(tiny_llama, stage, store=store)
    assert same(store, other, key)


def test_no_pickle_anywhere(tiny_llama, store):
    with pytest.raises(Stop):
        train_stage(tiny_llama, STAGE, store=store, on_progress=stop_at(8))
    files = [path for path in store.root.rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".safetensors"}
    assert all(json.loads(path.read_text()) for path in files if path.suffix == ".json")


def test_what_pretraining_uses_is_public():
    assert (train.batches, train.loss) == (batches, loss)
