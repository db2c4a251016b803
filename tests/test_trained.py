"""What the store holds is found without drawing its documents, and only where these are sure to be the ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments import trained as module
from pbb_helpers.experiments.jobs import jobs, run_job
from pbb_helpers.programs import UsageError
from pbb_helpers.provenance import PACKAGE
from pbb_helpers.training import models
from pbb_helpers.training.store import Store


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """Returns the names of the stages whose documents are drawn from now on."""
    names: list[str] = []
    draw = module.build_stage

    def counting(spec, *rest):
        names.append(spec.name)
        return draw(spec, *rest)

    monkeypatch.setattr(module, "build_stage", counting)
    return names


def rows(plan, root: Path) -> list:
    """Returns the answers, and the training log but for the seconds that it took."""
    found = [run_job(job, root) for job in jobs(plan)]
    return [(answers, [{k: v for k, v in line.items() if k != "seconds"} for line in log]) for answers, log in found]


def test_a_rerun_draws_nothing_and_gives_the_same(plan, tmp_path, built):
    some = replace(plan, conditions=("proactive", "mixture"), seeds=(0,))
    first = rows(some, tmp_path)
    assert sorted(built) == ["mixture", "stage1", "stage2"]
    built.clear()
    assert rows(some, tmp_path) == first and built == []


def test_another_question_on_the_same_stages_draws_nothing(plan, tmp_path, built):
    some = replace(plan, conditions=("proactive",), seeds=(0,))
    rows(some, tmp_path)
    built.clear()
    rows(replace(some, inputs_per_program=3), tmp_path)
    assert built == []


def changed(plan):
    budget = plan.budget
    yield "seed", replace(plan, seeds=(1,)), ["stage1", "stage2"]
    yield "programs", replace(plan, n_without_io=plan.n_without_io + 1), ["stage1", "stage2"]
    yield "inputs held out", replace(plan, n_eval_inputs=plan.n_eval_inputs + 1), ["stage1", "stage2"]
    yield "another second stage", replace(plan, conditions=("shuffled_source",)), ["stage2"]
    yield "rate", replace(plan, budget=replace(budget, stage2=replace(budget.stage2, lr=0.5))), ["stage1", "stage2"]
    yield "model", replace(plan, model="pbb-xs"), ["stage1", "stage2"]


def test_whatever_documents_follow_from_is_asked(plan, tmp_path, built):
    some = replace(plan, conditions=("proactive",), seeds=(0,))
    rows(some, tmp_path)
    for what, other, drawn in changed(some):
        built.clear()
        rows(other, tmp_path)
        assert built == drawn, what


def test_whatever_decides_a_key_decides_the_recipe(plan, tmp_path, monkeypatch):
    """Where a note is found, its keys are those of documents drawn anew; stages are not trained here, their keys are what counts."""
    from pbb_helpers.training import stacked
    from pbb_helpers.training.store import digest

    calls: list[int] = []

    def keyed(loaded, stages, *, store, parents=None, on_progress=None):
        calls.append(1)
        alone = [
            store.stage_key(parent or loaded.key, stage, "float32")
            for stage, parent in zip(stages, parents or [None] * len(stages), strict=True)
        ]
        return alone if len(alone) == 1 else [digest(key, alone) for key in alone]

    monkeypatch.setattr(stacked, "train_stages", keyed)
    monkeypatch.setattr(Store, "is_whole", lambda self, key: True)
    loaded, store = models.load(plan.model), Store(tmp_path)
    budget, spec = plan.budget, condition("proactive").stages[1]
    tokens = replace(budget, match="tokens")

    def ask(seeds=(0,), spec=spec, budget=budget, parents=None, count=len, loaded=loaded):
        datasets = [plan.dataset(seed) for seed in seeds]
        return module.trained(loaded, spec, datasets, budget, store=store, parents=parents, count=count)

    asked = [
        {}, {"seeds": (1,)}, {"seeds": (0, 1)}, {"seeds": (1, 0)}, {"spec": condition("shuffled_source").stages[1]}, {"parents": ["a" * 64]},
        {"parents": ["b" * 64]}, {"budget": replace(budget, stage2=replace(budget.stage2, lr=0.5))}, {"budget": replace(budget, stage2_steps=2)},
        {"budget": tokens}, {"loaded": replace(loaded, key="c" * 64)},
    ]  # fmt: skip
    first = [ask(**what) for what in asked]
    assert len(calls) == len(asked) and len({tuple(keys) for keys in first}) >= len(asked) - 1, (
        "each is another stage (tokens cut nothing off)"
    )
    assert [ask(**what) for what in asked] == first and len(calls) == len(asked), "and is known the second time"
    monkeypatch.setattr(module, "FORMAT", 2)
    ask()
    monkeypatch.setattr(module, "IMPORTED", "other code")
    ask()
    assert len(calls) == len(asked) + 2


def test_code_that_draws_checks_counts_or_keys_is_part_of_it(tmp_path):
    package = tmp_path / "package"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("shipped", "__pycache__"))
    prints = [module.code_print(package), module.code_print(), module.IMPORTED]
    assert len(set(prints)) == 1
    (package / "figures" / "theme.py").write_text("")
    assert module.code_print(package) == prints[0], "how a figure looks is no part of it"
    for file in ("programs.py", "data/leaks.py", "families/words.txt", "training/store.py", "training/models.py", "experiments/trained.py"):
        path = package / file
        path.write_text(path.read_text() + "\n")
        prints.append(module.code_print(package))
    (package / "families/more.json").write_text("")
    prints.append(module.code_print(package))
    assert len(set(prints)) == len(prints) - 2


def test_code_is_hashed_before_it_is_imported(tmp_path):
    """Edited between the two, a process would note down for the new code what it draws with the old."""
    package = tmp_path / "pbb_helpers"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("shipped", "__pycache__"))
    code = f"""
from pathlib import Path
import pbb_helpers.data.leaks
path = Path({str(package)!r}, "families", "arithmetic.py")
path.write_text(path.read_text() + "# edited")
from pbb_helpers.experiments import trained
assert Path(trained.__file__).is_relative_to({str(tmp_path)!r})
assert trained.IMPORTED != trained.code_print()"""
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_code_that_was_edited_meanwhile_leaves_no_note(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "code_print", lambda: "what lies on the disk now")
    rows(replace(plan, conditions=("source_only",), seeds=(0,)), tmp_path)
    assert not (tmp_path / ".known").exists()


def test_a_damaged_stage_is_drawn_and_trained_again(plan, tmp_path, built):
    some = replace(plan, conditions=("source_only",), seeds=(0,))
    first = rows(some, tmp_path)
    (adapter,) = tmp_path.glob("*/adapter/*.safetensors")
    adapter.write_bytes(adapter.read_bytes()[:-1])
    built.clear()
    assert rows(some, tmp_path) == first and built == ["stage2"]


def harms():
    yield "gone", Path.unlink
    yield "empty", lambda path: path.write_text("")
    yield "cut", lambda path: path.write_bytes(path.read_bytes()[:-9])
    yield "no object", lambda path: path.write_text("[1]")
    yield "no text", lambda path: path.write_bytes(b"\xff\xfe\x00")
    yield "keys of another", lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"keys": ["0" * 64]}))


@pytest.mark.parametrize(("what", "harm"), harms(), ids=[what for what, _ in harms()])
def test_a_damaged_note_is_none(plan, tmp_path, built, what, harm):
    some = replace(plan, conditions=("source_only",), seeds=(0,))
    first = rows(some, tmp_path)
    (note,) = (tmp_path / ".known").iterdir()
    whole = note.read_text()
    harm(note)
    built.clear()
    assert rows(some, tmp_path) == first and built == ["stage2"]
    assert note.read_text() == whole


def test_a_note_under_another_recipes_name_is_none(tmp_path):
    store = Store(tmp_path)
    store.remember("a" * 64, ["1" * 64])
    (tmp_path / ".known" / f"{'a' * 16}.json").rename(tmp_path / ".known" / f"{'b' * 16}.json")
    assert store.recall("b" * 64) is None and store.recall("a" * 64) is None
    store.remember("c" * 16 + "d" * 48, ["1" * 64])
    assert store.recall("c" * 64) is None, "the first digits alone do not make it the same"


def test_documents_are_checked_again_before_a_stage_is_trained_again(plan, tmp_path, built, monkeypatch):
    some = replace(plan, conditions=("source_only",), seeds=(0,))
    first = rows(some, tmp_path)
    (key,) = json.loads(next((tmp_path / ".known").iterdir()).read_text())["keys"]
    shutil.rmtree(Store(tmp_path).folder(key))
    built.clear()
    assert rows(some, tmp_path) == first and built == ["stage2"]

    shutil.rmtree(Store(tmp_path).folder(key))

    def leak(*_):
        raise UsageError("leak")

    monkeypatch.setattr("pbb_helpers.data.stages.leak_check", leak)
    build_stage.cache_clear()
    with pytest.raises(UsageError, match="leak"):
        rows(some, tmp_path)
    assert not Store(tmp_path).is_done(key)


def test_a_leaking_stage_leaves_no_note(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "build_stage", lambda *_: (_ for _ in ()).throw(UsageError("leak")))
    loaded = models.load(plan.model)
    with pytest.raises(UsageError, match="leak"):
        module.trained(
            loaded, condition("source_only").stages[0], [plan.dataset(0)], plan.budget, store=Store(tmp_path), parents=None, count=len
        )
    assert not (tmp_path / ".known").exists()
