"""What the store holds is found without drawing its documents, and only where these are sure to be the ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments import trained as module
from pbb_helpers.experiments.jobs import jobs, run_job
from pbb_helpers.programs import UsageError
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


def test_code_that_draws_or_checks_is_part_of_it(tmp_path):
    package = tmp_path / "package"
    shutil.copytree(module.PACKAGE / "data", package / "data")
    shutil.copytree(module.PACKAGE / "families", package / "families")
    shutil.copy(module.PACKAGE / "programs.py", package)
    prints = [module.code_print(package), module.code_print()]
    assert prints[0] == prints[1]
    for file in ("programs.py", "data/leaks.py", "families/words.txt"):
        path = package / file
        path.write_text(path.read_text() + "\n")
        module.code_print.cache_clear()
        prints.append(module.code_print(package))
    (package / "families/more.py").write_text("")
    module.code_print.cache_clear()
    prints.append(module.code_print(package))
    assert len(set(prints)) == len(prints) - 1


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
