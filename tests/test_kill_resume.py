"""A training killed with SIGKILL, at any write or at any time, and started again gives the bits of one that was not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults
import pytest

TRAIN = """
import json, sys, time
from pathlib import Path

import faults
import torch

torch.set_num_threads(1)
from pbb_helpers.training import models
from pbb_helpers.data.settings import Stage, TrainSettings
from pbb_helpers.data.documents import Example
from pbb_helpers.training.store import Store
from pbb_helpers.training.train import train_stage

NAMES = ("zibble", "quorn")
EXAMPLES = tuple(Example("direct", "with_io", n, f"{n}({x})", str(x + len(n)), x, str(x + len(n)), 1) for x in range(16) for n in NAMES)
STAGE = Stage("stage1", EXAMPLES, TrainSettings(rank=4, batch_size=4, dropout=0.1, dtype="float32", checkpoint_every=2, log_every=1), NAMES)


def train(root, kill_at=None, pause=0.0):
    writes = faults.kill_at_write(kill_at)

    def progress(line):
        print(json.dumps(line), flush=True)
        time.sleep(pause)

    train_stage(models.load(sys.argv[1], device="cpu"), STAGE, store=Store(root), on_progress=progress)
    return len(writes)


def forked(*args):
    return faults.forked(lambda: train(*args))[0]
"""

AT_EVERY_WRITE = """
for point in map(int, sys.argv[3:]):
    root = Path(sys.argv[2]) / f"write-{point}"
    first, second = forked(root, point), forked(root)
    print("exit", point, first, second)
root = Path(sys.argv[2]) / "again-and-again"
for point in range(8, 60, 5):
    if (code := forked(root, point)) == 0:
        break
    print("killed", code)
"""


def run(folder: Path, code: str, *args: str) -> str:
    return faults.python(TRAIN + code, folder, *args)


def results(root: Path) -> tuple[bytes, list[dict]]:
    """Returns adapter and metrics, the seconds aside, of the one finished stage below `root`."""
    (stage,) = (path for path in root.iterdir() if (path / "manifest.json").is_file())
    assert not list(stage.glob("checkpoint-*")) and not list(stage.glob(".*.tmp")) and not list(stage.glob("*.damaged"))
    lines = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return (stage / "adapter" / "adapter_model.safetensors").read_bytes(), lines


@pytest.fixture(scope="module")
def whole(tiny_folder, tmp_path_factory) -> tuple[bytes, list[dict], int]:
    """Returns adapter, metrics and number of writes of an uninterrupted run."""
    root = tmp_path_factory.mktemp("whole")
    out = run(tiny_folder("llama"), "print(train(sys.argv[2]))", str(root))
    adapter, lines = results(root)
    assert [line["step"] for line in lines] == list(range(1, 9))
    return adapter, lines, int(out.splitlines()[-1])


def test_killed_at_writes(tiny_folder, tmp_path, whole):
    adapter, lines, calls = whole
    points = [*range(4, calls, 6), calls]
    out = run(tiny_folder("llama"), AT_EVERY_WRITE, str(tmp_path), *map(str, points))
    exits = [line for line in out.splitlines() if line.startswith("exit")]
    assert exits == [f"exit {point} {-signal.SIGKILL} 0" for point in points]
    assert out.count(f"killed {-signal.SIGKILL}") == out.count("killed") >= 2
    for root in tmp_path.iterdir():
        assert results(root) == (adapter, lines), root.name


@pytest.mark.parametrize("step", [3, 7])
def test_killed_from_outside(tiny_folder, tmp_path, whole, step):
    folder = tiny_folder("llama")
    command = [sys.executable, "-c", TRAIN + "train(sys.argv[2], pause=0.2)", str(folder), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=faults.environment()) as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["step"] < step:
            pass
        time.sleep(0.21)  # somewhere in the next step
        process.kill()
    assert process.returncode == -signal.SIGKILL
    run(folder, "train(sys.argv[2])", str(tmp_path))
    assert results(tmp_path) == whole[:2]
