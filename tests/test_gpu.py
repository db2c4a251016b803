"""The one command for a GPU, on a CPU with tiny shapes: what it writes and when, and what it does without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from pbb_helpers.performance import gate, gpu, measurements
from pbb_helpers.programs import UsageError

ROOT = Path(__file__).parent.parent
SMALL = ["--rounds", "1", "--steps", "1", "--threads", "1", "--stacked", "2"]
NOT_THERE = ("pydantic", "trl", "datasets", "nbformat", "papermill", "IPython")


def lines(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_it_measures_what_it_can_without_trl_and_pydantic(shipped_like, tmp_path):
    """As on a machine that holds torch, transformers, peft and pandas alone: in a process where the others cannot be imported."""
    arguments = ["--out", str(tmp_path / "out"), "--model", str(shipped_like), "--shapes", "tiny-llama", "tiny-qwen3", *SMALL]
    code = f"import sys; sys.modules.update(dict.fromkeys({NOT_THERE})); from pbb_helpers.performance import gpu; sys.exit(gpu.main({arguments} + "
    code += "['--only', 'gate', 'shapes', 'seeds', 'profiles']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pd.DataFrame(lines(tmp_path / "out", "rows"))
    assert list(dict.fromkeys(rows["suite"])) == ["shape tiny-llama", "shape tiny-qwen3", "seeds, batch 64", "seeds, batch 4"]
    assert rows.groupby("suite")["arm"].agg(set).to_dict()["shape tiny-qwen3"] == {"ours", "ours, packed", "matmul peak"}
    assert set(rows["device"]) == {"cpu"} and (rows["seconds"] > 0).all()
    assert {line["suite"] for line in lines(tmp_path / "out", "profiles")} == {
        "shape tiny-llama",
        "shape tiny-qwen3",
        "seeds, batch 64",
        "seeds, batch 64, one by one",
    }
    gates = pd.DataFrame(lines(tmp_path / "out", "gate"))
    assert set(gates["arm"]) == {"bare loop", "Trainer", "ours, packed"} and set(gates["model"].dropna()) == {
        "10M",
        "tiny-llama",
        "tiny-qwen3",
    }
    assert set(gates["dtype"][gates["model"] == "tiny-llama"]) == {"bfloat16"} and (gates["difference"] <= gates["tolerance"]).all()
    assert "versions" in json.loads((tmp_path / "out" / "machine.json").read_text())
    assert "not measured: TRL tuned: not installed" in done.stdout
    assert "Qwen3-8B shape, useful FLOPs of ours over the matmul peak: not measured" in done.stdout


def row(suite: str) -> dict:
    return {"suite": suite, "arm": "ours", "phase": "timed", "round": 1, "seconds": 1.0, "examples": 1, "tokens": 1, "flops": 1.0,
            "exact": float("nan"), "peak_mb": 1.0, "threads": 1}  # fmt: skip


@pytest.fixture
def gates(monkeypatch) -> list[str]:
    """Returns the list of the gates that were held; they are spared their work."""
    held: list[str] = []

    def one_batch(task, further=()):
        held.append(task.loaded.name)
        return pd.DataFrame([{"model": task.loaded.name}])

    monkeypatch.setattr(gate, "gate", lambda task: held.append("gate") or pd.DataFrame([{"model": "shipped"}]))
    monkeypatch.setattr(gate, "one_batch", one_batch)
    monkeypatch.setattr(measurements, "shape", lambda plan, name, loaded, on_run: on_run(row(f"shape {name}")))
    return held


def test_only_leaves_no_gate_out(tmp_path, shipped_like, monkeypatch, gates):
    monkeypatch.setattr(measurements, "training", lambda plan, loaded, on_run: on_run(row("training")))
    command = ["--model", str(shipped_like), "--shapes", "tiny-llama", *SMALL, "--only"]
    assert gpu.main(["--out", str(tmp_path / "a"), *command, "training"]) == 0
    assert gates == ["gate", "10M"]
    assert gpu.main(["--out", str(tmp_path / "b"), *command, "shapes"]) == 0
    assert gates[2:] == ["gate", "10M", "tiny-llama"]


def test_a_gate_that_fails_stops_what_comes_after_it_and_keeps_what_came_before(tmp_path, shipped_like, monkeypatch, capsys, gates):
    passing = gate.one_batch

    def one_batch(task, further=()):
        if task.loaded.name == "tiny-qwen3":
            raise UsageError("TRL and ours differ in loss of the first step by 1")
        return passing(task)

    monkeypatch.setattr(gate, "one_batch", one_batch)
    monkeypatch.setattr(measurements, "seeds", lambda *_: pytest.fail("measured after a gate that failed"))
    folder = tmp_path / "out"
    assert gpu.main(["--out", str(folder), "--model", str(shipped_like), "--shapes", "tiny-llama", "tiny-qwen3", *SMALL]) == 1
    assert [line["suite"] for line in lines(folder, "rows")] == ["shape tiny-llama"] and (folder / "results.csv").is_file()
    said = capsys.readouterr().out
    assert "not measured: gate, tiny-qwen3: UsageError: TRL and ours differ in loss of the first step by 1\n" in said
    assert "stopped: the gate, tiny-qwen3 does not hold, so nothing more is measured\n" in said


def test_a_killed_run_keeps_what_it_has_and_is_not_written_over(tmp_path, shipped_like, monkeypatch, capsys, gates):
    folder = tmp_path / "out"

    def seeds(plan, loaded, on_run):
        on_run(row("seeds, batch 64"))
        assert lines(folder, "rows")[0]["exact"] is None, "a row is on the disk as soon as it is measured"
        raise KeyboardInterrupt

    monkeypatch.setattr(measurements, "seeds", seeds)
    command = ["--out", str(folder), "--model", str(shipped_like), "--only", "seeds", *SMALL]
    with pytest.raises(KeyboardInterrupt):
        gpu.main(command)
    assert len(lines(folder, "rows")) == 1
    with pytest.raises(SystemExit):
        gpu.main(command)
    assert "holds what an earlier run measured; give another folder" in capsys.readouterr().err


def test_what_fails_is_one_line_and_the_rest_is_measured(tmp_path, shipped_like, monkeypatch, capsys, gates):
    folder = tmp_path / "out"

    def seeds(plan, loaded, on_run):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\nmore")

    monkeypatch.setattr(measurements, "seeds", seeds)
    monkeypatch.setattr(measurements, "training", lambda plan, loaded, on_run: on_run(row("training")))
    assert gpu.main(["--out", str(folder), "--model", str(shipped_like), "--only", "seeds", "training", *SMALL]) == 1
    said = capsys.readouterr().out
    assert "not measured: seeds: OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB\n" in said
    assert "Training, ours over TRL tuned: not measured" in said and (folder / "results.csv").is_file()


@pytest.mark.parametrize(("words", "message"), [(["--shapes", "tiny-lama"], "did you mean 'tiny-llama'"), (["--rounds", "0"], "rounds=0")])
def test_what_is_not_valid_is_one_line(words, message, tmp_path, shipped_like, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path / "out"), "--model", str(shipped_like), *words])
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
