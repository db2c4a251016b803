"""CONTRIBUTING.md adds a family, a condition and a notebook: what it says is done to a copy of the repository, and works there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from examples_for_tests import Block, blocks, follow

from pbb_helpers import families
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.conditions import MAIN, condition
from pbb_helpers.data.datasets import draw_dataset
from pbb_helpers.data.documents import chain_of_thought
from pbb_helpers.data.leaks import LeakError, leak_check
from pbb_helpers.data.stages import build_stage
from pbb_helpers.programs import UsageError, behaviour, family

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
EXAMPLES = [block for block in blocks(PAGE) if block.language == "python"]
COPIED = ("pbb_helpers", "tests", "pyproject.toml", "README.md", "constraints.txt")


def example(start: str) -> Block:
    """Returns the block that begins so."""
    (found,) = (block for block in EXAMPLES if block.text.startswith(start))
    return found


@pytest.fixture
def bitwise(monkeypatch):
    """Returns the family of the page, registered while the test runs."""
    space: dict = {"__name__": "pbb_helpers.families.bitwise"}
    monkeypatch.setitem(sys.modules, space["__name__"], type(sys)(space["__name__"]))  # dataclass looks for its module
    exec(compile(example("# pbb_helpers/families/bitwise.py").text, "bitwise.py", "exec"), space)
    monkeypatch.setitem(families.FAMILIES, "bitwise", space["Bitwise"])
    return family("bitwise")


def test_the_family_draws_programs_that_differ_and_run_as_python_does(bitwise):
    names = [f"f{i}" for i in range(40)]
    drawn = bitwise.draw(names, np.random.default_rng(0))
    assert [p.name for p in drawn] == names and drawn == bitwise.draw(names, np.random.default_rng(0))
    assert len({behaviour(p, bitwise.inputs()) for p in drawn}) == 40
    for program in drawn:
        space: dict = {}
        exec(program.source, space)
        assert all(program.run(x) == space[program.name](x) for x in bitwise.inputs())
        *steps, last = chain_of_thought(program, 37).splitlines()
        assert len(steps) == program.length and last == f"return {program.run(37)}"
        assert all(eval(line.split(" = ")[1]) == int(line.split(" = ")[2]) for line in steps)


def test_its_stages_are_read_for_leaks(bitwise):
    data = draw_dataset(bitwise, n_with_io=12, n_without_io=6, n_eval_inputs=8, seed=0)
    budget = Budget(stage1_steps=2, stage2_steps=2)
    for name in MAIN:
        for spec in condition(name).stages:
            stage = build_stage(spec, data, budget)
            assert leak_check(stage, spec, data) == len(stage.examples) > 0
    spec = condition("stage1_only").stages[0]
    leaky = data.__class__(**(vars(data) | {"with_io": data.without_io}))
    with pytest.raises(LeakError):
        leak_check(build_stage(spec, leaky, budget), spec, data)


def test_where_it_has_no_words_it_says_so(bitwise):
    data = draw_dataset(bitwise, n_with_io=12, n_without_io=6, n_eval_inputs=8, seed=0)
    with pytest.raises(UsageError, match="no words for .*: its family is one in code alone"):
        build_stage(condition("description").stages[0], data, Budget(stage1_steps=2, stage2_steps=2))


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """Returns a copy of the repository, changed as the page says."""
    root = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        shutil.copytree(ROOT / name, root / name) if (ROOT / name).is_dir() else shutil.copy(ROOT / name, root / name)
    (root / "notebooks").mkdir()
    for block in EXAMPLES:
        follow(block, root)
    return root


def in_copy(copy: Path, *arguments: str) -> str:
    """Returns what python prints with these arguments in the copy."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PBB"))} | {"PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_was_added_keeps_to_the_rules_of_the_repository(copy):
    files = ("tests/test_conditions.py", "tests/test_plots.py", "tests/test_notebooks.py")
    said = in_copy(
        copy, "-m", "pytest", "-p", "no:cacheprovider", "-k", "(no_rehearsal or words or marker or 10_bitwise) and not smoke", *files
    )
    assert int(re.search(r"(\d+) passed", said)[1]) >= 20
    in_copy(copy, "-m", "ruff", "check", "--fix", "pbb_helpers", "notebooks")  # as the hook does: imports and commas go into their places
    assert "would" not in in_copy(
        copy, "-m", "ruff", "format", "--diff", "pbb_helpers/families/bitwise.py", "pbb_helpers/data/conditions.py"
    )


@pytest.mark.slow
def test_the_notebook_runs_and_is_recorded(copy):
    (command,) = (b.text for b in blocks(PAGE) if b.language == "bash" and "10_bitwise" in b.text)
    said = in_copy(copy, "-m", "pbb_helpers", *command.split()[1:])
    assert "report: reports/10_bitwise.html" in said and "[smoke]" in said.splitlines()[-1]
    marks = re.findall(r"`(<!-- .*? -->)`", PAGE.read_text(encoding="utf-8"))
    (copy / "README.md").write_text("\n".join(marks) + "\n")
    in_copy(copy, "-m", "pbb_helpers", "record", "notebooks/10_bitwise.ipynb")
    table = (copy / "README.md").read_text()
    assert "| no answers in stage 2 |" in table and (copy / "figures/10_bitwise/accuracy.png").is_file()
