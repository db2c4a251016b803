"""One training in two processes, introduced to each other by accelerate on the CPU with gloo, against the same in one.

`accelerate launch --multi_gpu` starts its processes through torchrun, and so does this test: with --cpu it wants MPI. They run this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

import pbb_helpers
from pbb_helpers.data.documents import Example
from pbb_helpers.data.settings import Stage, TrainSettings
from pbb_helpers.training import models, parallel, train
from pbb_helpers.training.store import Store

ROOT = Path(pbb_helpers.__file__).parent.parent
NAMES = ("zibble", "quorn", "florp")
# 25 examples of very unequal length in batches of 4: parts with unequal numbers of tokens, and a last batch of one example.
EXAMPLES = tuple(Example("direct", "with_io", NAMES[x % 3], f"{NAMES[x % 3]}({x})", "7" * (1 + x * x % 11), x, "7", 1) for x in range(25))
SETTINGS = TrainSettings(rank=4, batch_size=4, dtype="float32", lr=1e-2, checkpoint_every=3, log_every=1)
STAGE = Stage("stage1", EXAMPLES, SETTINGS, NAMES)
SECOND = Stage("stage2", EXAMPLES[:8], SETTINGS, NAMES)


def train_here(model: Path, root: Path) -> list[int]:
    """Returns the steps that were told of."""
    told: list[int] = []
    parent = None
    for stage in (STAGE, SECOND):  # each process has to find the first one finished
        loaded = models.load(str(model), device="cpu")
        parent = train.train_stage(loaded, stage, store=Store(root), parent=parent, on_progress=lambda line: told.append(line["step"]))
    return told


def train_in_two(model: Path, *roots: Path) -> dict[str, list[list[int]]]:
    """Returns, by process, the steps that it told of in each of the folders."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, __file__, *map(str, (model, *roots))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {path.name: json.loads(path.read_text()) for path in roots[0].parent.glob("process-*")}


def results(root: Path) -> tuple[list[dict], dict]:
    """Returns log and weights of both stages below `root`."""
    whole = (path for path in root.iterdir() if (path / "manifest.json").is_file())
    folders = {json.loads((path / "config.json").read_text())["name"]: path for path in whole}
    lines, weights = [], {}
    for stage in (STAGE.name, SECOND.name):
        lines += [json.loads(line) for line in (folders[stage] / "metrics.jsonl").read_text().splitlines()]
        found = load_file(folders[stage] / "adapter" / "adapter_model.safetensors")
        weights |= {f"{stage} {name}": weight for name, weight in found.items()}
    return lines, weights


def assert_same(one: tuple[list[dict], dict], two: tuple[list[dict], dict]) -> None:
    for a, b in zip(one[0], two[0], strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5) and b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4), a["step"]
        assert [a[name] for name in ("step", "lr", "tokens", "examples")] == [b[name] for name in ("step", "lr", "tokens", "examples")]
    assert one[1].keys() == two[1].keys()
    for name, weight in one[1].items():
        # Adam divides a gradient by its own size: what is rounded otherwise in stage 1 comes back larger in the first steps of stage 2.
        tolerance = 1e-4 if name.startswith(STAGE.name) else 1e-3
        assert (weight - two[1][name]).abs().max() < tolerance * max(weight.abs().max().item(), 1e-2), name


def test_two_processes_give_the_losses_and_weights_of_one(tiny_folder, tmp_path, monkeypatch):
    model = tiny_folder("llama")
    assert train_here(model, tmp_path / "one") == [1, 2, 3, 4, 5, 6, 7, 1, 2]

    real, steps = train.loss, []

    def dies(*args):
        steps.append(0)
        if len(steps) > 5:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(train, "loss", dies)
    with pytest.raises(KeyboardInterrupt):
        train_here(model, tmp_path / "resumed")

    told = train_in_two(model, tmp_path / "two", tmp_path / "resumed")
    assert told == {"process-0-of-2": [[1, 2, 3, 4, 5, 6, 7, 1, 2], [4, 5, 6, 7, 1, 2]], "process-1-of-2": [[], []]}
    assert_same(results(tmp_path / "one"), results(tmp_path / "two"))
    assert_same(results(tmp_path / "one"), results(tmp_path / "resumed"))


def test_dropout_in_several_processes_has_a_key_of_its_own(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train.Training, "run", lambda self, tell: None)
    monkeypatch.setattr(parallel, "agree", lambda answer: answer)
    loaded, keys = models.load(str(tiny_folder("llama")), device="cpu"), {}
    for world in (1, 2):
        monkeypatch.setattr(parallel, "processes", lambda world=world: (0, world))
        for dropout in (0.0, 0.1):
            stage = replace(STAGE, settings=replace(SETTINGS, dropout=dropout))
            keys[world, dropout] = train.train_stage(loaded, stage, store=Store(tmp_path))
    assert keys[1, 0.0] == keys[2, 0.0] and len(set(keys.values())) == 3


if __name__ == "__main__":
    from accelerate import PartialState

    state = PartialState()
    model_folder, *store_folders = map(Path, sys.argv[1:])
    steps_told = [train_here(model_folder, folder) for folder in store_folders]
    rank, world = parallel.processes()
    (store_folders[0].parent / f"process-{rank}-of-{world}").write_text(json.dumps(steps_told))
    # gloo's threads outlive the interpreter otherwise, and now and then one aborts a process that has done its work.
    state.destroy_process_group()  # https://github.com/pytorch/pytorch/issues/190489
