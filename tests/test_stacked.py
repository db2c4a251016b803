"""Stages trained together are what each would be alone, up to rounding; they do not touch each other, and resume to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pbb_helpers.data.documents import Example
from pbb_helpers.data.settings import Stage, TrainSettings
from pbb_helpers.programs import UsageError
from pbb_helpers.training import models
from pbb_helpers.training.batches import batches, collate, side_by_side
from pbb_helpers.training.loss import loss
from pbb_helpers.training.stacked import NotStackable, train_stages
from pbb_helpers.training.store import Store
from pbb_helpers.training.train import WINDOW, Diverged, Training, load_stage, order_generator, train_stage

NAMES = ("zibble", "quorn", "florp", "mantix", "drebbo", "wexil")
SETTINGS = TrainSettings(rank=4, alpha=8, batch_size=4, lr=1e-2, dtype="float32", weight_decay=0.1, checkpoint_every=3, log_every=1)
ROUNDING = 5e-4
"""Largest difference of a weight after ten steps of 1e-2; 1e-4 was the most seen in float32. AdamW divides by a gradient's own size, so the
rounding of a gradient near zero becomes a visible part of a step; anything wrong moves weights by whole steps, 1e-2."""


def example(name: str, x: int, kind: str = "direct") -> Example:
    if kind == "source":
        source = f"def {name}(x):\n    x = x + {x}\n    return x"
        return Example(kind, "with_io", name, f"Show the code of {name}.\n", source, None, source, 1)
    return Example(kind, "with_io", name, f"What is {name}({x})?\n", str(x + len(name)), x, str(x + len(name)), 1)


def stage(seed: int, *, names: tuple[str, ...] = NAMES, **changes: object) -> Stage:
    """Returns a stage of ten steps, one of them short: where that comes depends on the seed."""
    examples = [example(name, (x + seed) % 10, kind) for x in range(5) for name in names for kind in ("direct", "source")]
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    return Stage("stage1", tuple(examples[i] for i in (order * 2)[:38]), replace(SETTINGS, seed=seed, **changes), names)  # type: ignore[arg-type]


STAGES = [stage(0), stage(1, names=NAMES[:3]), stage(2, names=NAMES[1:5])]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def adapter(store: Store, key: str) -> dict[str, torch.Tensor]:
    weights = load_file(store.folder(key) / "adapter" / models.ADAPTER_WEIGHTS)
    return {name: p.clone() for name, p in weights.items()}  # what is loaded is a view of the file, which a test may change


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def without_seconds(lines: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def require_same_training(store: Store, alone: str, stacked: str, runs: int = 1) -> None:
    assert distance(adapter(store, alone), adapter(store, stacked)) < runs * ROUNDING
    for one, other in zip(without_seconds(store.metrics(alone)), without_seconds(store.metrics(stacked)), strict=True):
        assert other == pytest.approx(one, rel=1e-4), one["step"]


# --- the same as alone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [4, 64], ids=["A and B apart", "merged weights"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "hrm_text"])
def test_each_stage_of_a_stack_equals_the_same_alone(architecture, tied, rank, tiny_folder, store):
    """The Llama's tokenizer has one token per name, so that there are rows of names: in the head as well where it is not tied."""
    loaded = models.load(str(tiny_folder(architecture, tie_word_embeddings=tied)), device="cpu")
    stages = [replace(s, settings=replace(s.settings, rank=rank)) for s in STAGES]
    before = {name: p.clone() for name, p in loaded.model.state_dict().items()}
    keys = train_stages(loaded, stages, store=store)
    alone = [train_stage(loaded, s, store=store) for s in stages]
    for one, stacked in zip(alone, keys, strict=True):
        require_same_training(store, one, stacked, runs=2 if architecture == "hrm_text" else 1)  # a layer that runs twice rounds twice
    if architecture == "qwen3":  # no rows of names, so the shapes are the same
        assert distance(adapter(store, keys[0]), adapter(store, keys[2])) > 100 * ROUNDING
    assert all(torch.equal(p, before[name]) for name, p in loaded.model.state_dict().items())
    assert not hasattr(loaded.model, "peft_config") and not set(keys) & set(alone)


def test_bfloat16_equals_alone_to_its_own_precision(tiny_llama, store):
    stages = [replace(s, settings=replace(s.settings, dtype="bfloat16")) for s in STAGES]
    keys = train_stages(tiny_llama, stages, store=store)
    for s, key in zip(stages, keys, strict=True):
        alone = store.metrics(train_stage(tiny_llama, s, store=store))
        assert [line["loss"] for line in store.metrics(key)] == pytest.approx([line["loss"] for line in alone], rel=0.02)


def test_second_stages_go_on_from_their_own_parents(tiny_llama, store):
    first = train_stages(tiny_llama, STAGES, store=store)
    more = [replace(stage(number + 5), name="stage2", names=("yonder", "kleb")[: number % 3]) for number in range(3)]
    keys = train_stages(tiny_llama, more, store=store, parents=first)
    for s, parent, key in zip(more, first, keys, strict=True):
        require_same_training(store, train_stage(tiny_llama, s, store=store, parent=parent), key)
        assert store.config(key)["parent"] == parent and store.config(key)["stack"] == keys


def test_a_stack_of_one_is_the_stage_alone(tiny_llama, store):
    seen: list[tuple[int, dict]] = []
    keys = train_stages(tiny_llama, STAGES[:1], store=store, on_progress=lambda *told: seen.append(told))
    assert keys == [train_stage(tiny_llama, STAGES[0], store=store)]
    assert [number for number, _ in seen] == [0] * 10


def test_a_finished_stack_is_not_trained_again_and_another_stack_is_another_result(tiny_llama, store):
    keys = train_stages(tiny_llama, STAGES, store=store)
    assert train_stages(tiny_llama, STAGES, store=store, on_progress=lambda *_: pytest.fail("trained again")) == keys
    fewer = train_stages(tiny_llama, STAGES[:2], store=store)
    assert not set(fewer) & set(keys) and not list(store.root.glob("*/checkpoint-*"))


def test_in_one_order_batches_of_like_length_meet(tiny_llama, store):
    """What a step is made of hangs on the order alone: in one, short batches stand beside short ones, and each equals itself alone."""
    window = {"batch_size": 4, "lr": 1e-3}
    rows = [[example(name, x, kind) for x in range(8) for name in NAMES[:4] for kind in ("direct", "source")] for _ in range(3)]
    widths = {}
    for order in (None, 0):
        stages = []
        for seed, examples in enumerate(rows):
            shuffled = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
            changed = replace(SETTINGS, seed=seed, order_seed=order, **window)
            stages.append(Stage("stage1", tuple(examples[i] for i in shuffled), changed, NAMES))
        encoded = [[models.encode(tiny_llama.tokenizer, e) for e in s.examples] for s in stages]
        each = [batches(rows, 4, WINDOW, order_generator(s.settings)) for rows, s in zip(encoded, stages, strict=True)]
        steps = list(zip(*each, strict=True))
        widths[order] = sum(side_by_side(step).input_ids.numel() for step in steps)
        widths[order] /= sum(batch.input_ids.numel() for step in steps for batch in step)
    assert 1 <= widths[0] < 1.1 < widths[None]
    keys = train_stages(tiny_llama, stages, store=store)
    for s, key in zip(stages, keys, strict=True):
        require_same_training(store, train_stage(tiny_llama, s, store=store), key)
    with pytest.raises(NotStackable, match="order_seed"):
        train_stages(tiny_llama, [stages[0], replace(stages[1], settings=replace(stages[1].settings, order_seed=1))], store=store)


# --- each on its own ------------------------------------------------------------------------------------------------------


def test_a_companion_changes_nothing(tiny_llama, store):
    keys = train_stages(tiny_llama, STAGES, store=store)
    same_lengths = replace(STAGES[1], examples=tuple(replace(e, completion=e.completion.replace("1", "2")) for e in STAGES[1].examples))
    for other, limit in ((same_lengths, 0.0), (stage(7), ROUNDING)):
        again = train_stages(tiny_llama, [STAGES[0], other, STAGES[2]], store=store)
        assert distance(adapter(store, keys[0]), adapter(store, again[0])) <= limit
        assert distance(adapter(store, keys[2]), adapter(store, again[2])) <= limit
        assert without_seconds(store.metrics(keys[1])) != without_seconds(store.metrics(again[1]))


def test_a_huge_gradient_is_clipped_where_it_is(tiny_llama, store):
    """Clipped to this little, gradients are as small as AdamW's epsilon, so that their scale shows in the weights."""
    parents = [train_stage(tiny_llama, s, store=store) for s in STAGES[:2]]
    path = store.folder(parents[0]) / "adapter"
    blown_up = {name: 5 * p for name, p in adapter(store, parents[0]).items()}
    store.finish(parents[0], store.config(parents[0]), store.metrics(parents[0]), lambda folder: copy_with(path, folder, blown_up))
    stages = [replace(s, name="stage2", settings=replace(s.settings, clip=1e-6)) for s in STAGES[:2]]
    keys = train_stages(tiny_llama, stages, store=store, parents=parents)
    norms = [store.metrics(key)[0]["grad_norm"] for key in keys]
    assert norms[0] > 5 * norms[1]
    moved = distance(adapter(store, parents[1]), adapter(store, keys[1]))
    alone = train_stage(tiny_llama, stages[1], store=store, parent=parents[1])
    assert distance(adapter(store, alone), adapter(store, keys[1])) < 0.02 * moved


def copy_with(folder: Path, to: Path, weights: dict[str, torch.Tensor]) -> None:
    (to / models.ADAPTER_CONFIG).write_bytes((folder / models.ADAPTER_CONFIG).read_bytes())
    save_file(weights, to / models.ADAPTER_WEIGHTS, {"format": "pt"})


def test_each_adapter_has_rows_of_its_own_names_and_loads_with_plain_peft(tiny_llama, store):
    from peft import PeftModel

    keys = train_stages(tiny_llama, STAGES, store=store)
    table = tiny_llama.model.get_input_embeddings().weight
    rows = collate([models.encode(tiny_llama.tokenizer, e) for e in STAGES[0].examples])
    losses = []
    for s, key in zip(STAGES, keys, strict=True):
        folder = store.folder(key) / "adapter"
        (delta,) = (p for name, p in adapter(store, key).items() if models.NAME_ROWS in name)
        ids = json.loads((folder / models.ADAPTER_CONFIG).read_text())["trainable_token_indices"]["embed_tokens"]
        assert ids == models.name_tokens(tiny_llama.tokenizer, s.names)[0] and len(delta) == len(ids)
        assert all((delta - table[ids]).abs().amax(1) > 0.01), "every name occurs, and was learned"
        expected = loss(load_stage(tiny_llama, store, key), rows).item()
        plain = PeftModel.from_pretrained(models.load(tiny_llama.name, device="cpu").model, folder)
        losses.append(loss(plain, rows).item())
        assert losses[-1] == pytest.approx(expected, rel=1e-6)
    assert len(set(losses)) == 3


# --- killed -----------------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path

import torch

torch.set_num_threads(1)
from pbb_helpers import disk
from pbb_helpers.training import models
from test_stacked import STAGES
from pbb_helpers.training.stacked import train_stages
from pbb_helpers.training.store import Store

real = os.fsync


def train(root, kill_at=None):
    calls = 0

    def fsync(handle):
        nonlocal calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    disk.os.fsync = fsync
    train_stages(models.load(sys.argv[1], device="cpu"), STAGES[:2], store=Store(root))
    return calls


def forked(*args):
    pid = os.fork()
    if pid == 0:
        train(*args)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


root = Path(sys.argv[2])
calls = train(root / "whole")
for point in range(3, calls + 1, 9):
    print(forked(root / f"write-{point}", point), forked(root / f"write-{point}"))
for _ in range(20):
    if (code := forked(root / "again-and-again", calls // 2)) == 0:
        break
    print(code, 0)
"""


def test_killed_at_writes_and_run_again_gives_the_same_bits(tiny_folder, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tiny_folder("llama")), str(tmp_path)]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) >= 8 and set(lines) == {f"{-signal.SIGKILL} 0"}
    whole = results(tmp_path / "whole")
    assert len(whole) == 2
    for root in tmp_path.iterdir():
        assert results(root) == whole, root.name


def results(root: Path) -> dict[str, tuple[bytes, list[dict]]]:
    assert not [*root.glob("*/checkpoint-*"), *root.glob("*/.*.tmp"), *root.glob("*/*.damaged")]
    store = Store(root)
    found = {json.loads((path / "config.json").read_text())["key"]: path for path in root.iterdir()}
    assert all(store.is_done(key) for key in found)
    return {
        key: ((path / "adapter" / models.ADAPTER_WEIGHTS).read_bytes(), without_seconds(store.metrics(key))) for key, path in found.items()
    }


def test_a_damaged_stage_is_trained_again_with_its_companions(tiny_llama, store):
    keys = train_stages(tiny_llama, STAGES, store=store)
    before = [adapter(store, key) for key in keys]
    path = store.folder(keys[1]) / "adapter" / models.ADAPTER_WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    written = (store.folder(keys[0]) / "manifest.json").stat().st_mtime_ns
    assert train_stages(tiny_llama, STAGES, store=store) == keys
    assert [distance(old, adapter(store, key)) for old, key in zip(before, keys, strict=True)] == [0, 0, 0]
    assert (store.folder(keys[0]) / "manifest.json").stat().st_mtime_ns == written, "what is finished is not written again"


# --- what cannot be stacked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        ([STAGES[0], stage(1, lr=1e-3)], "stage1 has lr=0.001, another stage of the stack 0.01; only seed may differ"),
        ([stage(0, dropout=0.1), stage(1, dropout=0.1)], "only LoRA without dropout"),
        ([stage(0, method="full"), stage(1, method="full")], "method 'full'"),
        ([STAGES[0], replace(STAGES[1], examples=STAGES[1].examples[:8])], "stages of 2 to 10 steps"),
    ],
    ids=["settings", "dropout", "full", "steps"],
)
def test_stages_that_cannot_be_stacked(tiny_llama, store, stages, why):
    with pytest.raises(NotStackable, match=why):
        train_stages(tiny_llama, stages, store=store)


def test_no_stages_and_the_same_twice_are_refused(tiny_llama, store):
    for stages, why in (([], "give at least one"), ([STAGES[0], STAGES[0]], "two of the 2 stages of the stack are the same")):
        with pytest.raises(UsageError, match=why) as caught:
            train_stages(tiny_llama, stages, store=store)
        assert not isinstance(caught.value, NotStackable), "one by one this would do no better"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda model: setattr(model.config, "attention_dropout", 0.1), "its config has attention_dropout 0.1"),
        (lambda model: setattr(model.config, "logits_scaling", 2.0), "its head is more than one matrix"),
        (lambda model: setattr(model, "lm_head", torch.nn.Linear(32, model.config.vocab_size)), "its head is more than one matrix"),
    ],
    ids=["dropout", "scaled logits", "head with a bias"],
)
def test_models_that_cannot_be_stacked(tiny_qwen3, store, change, why):
    change(tiny_qwen3.model)
    with pytest.raises(NotStackable, match=f"cannot be trained as a stack: {why}; train one by one"):
        train_stages(tiny_qwen3, STAGES, store=store)


@pytest.mark.parametrize(("value", "norm", "what"), [("nan", "1", "loss"), ("1", "inf", "norm of the gradient")])
def test_a_diverged_stage_is_named(tiny_llama, store, monkeypatch, value, norm, what):
    real = Training.record

    def record(self, *told):
        diverged = self.stage is STAGES[1] and self.state.step == 4
        real(self, *((torch.tensor(float(value)), torch.tensor(float(norm)), *told[2:]) if diverged else told))

    monkeypatch.setattr(Training, "record", record)
    with pytest.raises(Diverged, match=f"the {what} of stage1 is .* by step 4; lower lr") as caught:
        train_stages(tiny_llama, STAGES, store=store)
    assert caught.value.number == 1
