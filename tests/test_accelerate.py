"""One training in two processes, introduced to each other by accelerate on the CPU with gloo, against the same in one.

`accelerate launch --multi_gpu` starts its processes through torchrun, and so does this test: with --cpu it wants MPI.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import pbb_helpers

ROOT = Path(pbb_helpers.__file__).parent.parent

TRAIN = """
import os, sys

import torch
from accelerate import PartialState

if os.environ.get("WORLD_SIZE"):
    PartialState(cpu=True)
torch.set_num_threads(1)

from pbb_helpers import models, parallel, train
from pbb_helpers.conditions import Stage, TrainSettings
from pbb_helpers.documents import Example
from pbb_helpers.store import Store

NAMES = ("zibble", "quorn", "florp")
# 25 examples of very unequal length in batches of 4: parts with unequal numbers of tokens, and a last batch of one example.
EXAMPLES = tuple(Example("direct", "with_io", NAMES[x % 3], f"{NAMES[x % 3]}({x})", "7" * (1 + x * x % 11), x, "7", 1) for x in range(25))
STAGE = Stage("stage1", EXAMPLES, TrainSettings(rank=4, batch_size=4, dtype="float32", lr=1e-2, checkpoint_every=3, log_every=1), NAMES)
store = Store(sys.argv[2])
if len(sys.argv) > 3:  # what a training that was killed after 4 steps leaves
    real, train.loss = train.loss, None
    def loss(*args, steps=[]):
        steps.append(0)
        if len(steps) > int(sys.argv[3]):
            os._exit(3)
        return real(*args)
    train.loss = loss
key = train.train_stage(models.load(sys.argv[1], device="cpu"), STAGE, store=store, on_progress=lambda line: print("step", line["step"]))
print("number", *parallel.processes(), key == store.stage_key(models.load(sys.argv[1], device="cpu").key, STAGE, "float32"))
"""


def train(folder: Path, root: Path, processes: int, stop_after: int | None = None) -> str:
    """Returns what the training printed."""
    script = root.parent / "train.py"
    script.write_text(TRAIN)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), str(script), str(folder), str(root)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command += [str(stop_after)] if stop_after else []
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert stop_after or done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def results(root: Path) -> tuple[list[dict], dict]:
    """Returns log and weights of the only stage below `root`."""
    (stage,) = (path for path in root.iterdir() if (path / "manifest.json").is_file())
    lines = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    return lines, load_file(stage / "adapter" / "adapter_model.safetensors")


def same(one: tuple[list[dict], dict], two: tuple[list[dict], dict]) -> None:
    for a, b in zip(one[0], two[0], strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5) and b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4), a["step"]
        assert [a[name] for name in ("step", "lr", "tokens", "examples")] == [b[name] for name in ("step", "lr", "tokens", "examples")]
    assert one[1].keys() == two[1].keys()
    for name, weight in one[1].items():
        assert (weight - two[1][name]).abs().max() < 1e-4 * max(weight.abs().max().item(), 1e-2), name


def test_two_processes_give_the_losses_and_weights_of_one(tiny_folder, tmp_path):
    folder = tiny_folder("llama")
    alone, together = train(folder, tmp_path / "one", 1), train(folder, tmp_path / "two", 2)
    assert sorted(line for line in together.splitlines() if line.startswith("number")) == ["number 0 2 True", "number 1 2 True"]
    steps = [line for line in alone.splitlines() if line.startswith("step")]
    assert len(steps) == 7 and [line for line in together.splitlines() if line.startswith("step")] == steps, "only the first process tells"
    same(results(tmp_path / "one"), results(tmp_path / "two"))

    # Killed in one process and resumed in two.
    train(folder, tmp_path / "resumed", 1, stop_after=5)
    again = train(folder, tmp_path / "resumed", 2)
    assert [line for line in again.splitlines() if line.startswith("step")] == [f"step {n}" for n in (4, 5, 6, 7)]
    same(results(tmp_path / "one"), results(tmp_path / "resumed"))
