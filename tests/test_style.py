"""What `make lint` and the hooks hold: style, spelling, types, and no large file in the history."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LARGEST = 1_000_000  # bytes of a file; .pre-commit-config.yaml says the same in its own unit
CHECKS = {
    "ruff check": ["ruff", "check", "--no-cache", "."],
    "ruff format": ["ruff", "format", "--check", "--no-cache", "."],
    "codespell": ["codespell_lib"],
}


def said(*arguments: str) -> tuple[int, str]:
    """Returns exit status and output of a module run in the repository."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("check", CHECKS)
def test_is_clean(check):
    status, text = said(*CHECKS[check])
    assert status == 0, text


def test_codespell_sees_what_is_misspelt(tmp_path):
    (tmp_path / "page.md").write_text("A sentance.\n")  # codespell:ignore sentance
    status, text = said("codespell_lib", str(tmp_path))
    assert status != 0 and "sentence" in text


@pytest.mark.slow
def test_types_are_clean(tmp_path):
    status, text = said("mypy", "--cache-dir", str(tmp_path))
    assert status == 0, text
    assert int(re.search(r"in (\d+) source files", text)[1]) >= len(list((ROOT / "pbb_helpers").rglob("*.py")))


@pytest.mark.slow
def test_a_wrong_type_is_seen(tmp_path):
    (tmp_path / "wrong.py").write_text(
        "from pbb_helpers.programs import Program\n\nlength: str = Program('f', 'g', 'def f(x):', 1).length\n"
    )
    status, text = said(
        "mypy", "--cache-dir", str(tmp_path / "cache"), "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path / "wrong.py")
    )
    assert status == 1 and "wrong.py:3: error: Incompatible types" in text


def test_what_make_lint_runs_is_what_the_hooks_run():
    recipe = re.search(r"^lint:.*\n\t(.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    hooks = {
        hook["id"]: hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
        for hook in repo["hooks"]
    }
    assert {"ruff-check", "ruff-format", "codespell", "nbstripout", "check-added-large-files"} <= set(hooks)
    assert all(tool in recipe for tool in ("ruff check", "ruff format --check", "codespell", "mypy"))
    assert "--keep-id" in hooks["nbstripout"]["args"] and f"--maxkb={LARGEST // 1000}" in hooks["check-added-large-files"]["args"]


def test_no_file_but_the_shipped_models_is_large():
    found = [path for folder in ("figures", "notebooks", "pbb_helpers", "tests") for path in (ROOT / folder).rglob("*") if path.is_file()]
    large = {str(path.relative_to(ROOT)) for path in found if path.stat().st_size > LARGEST and "__pycache__" not in path.parts}
    assert len(found) > 200 and all(path.startswith("pbb_helpers/shipped/") for path in large), large
