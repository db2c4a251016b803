"""Imports run one way: a module may import from its own layer and from those before it, and data and analysis need no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pbb_helpers

PACKAGE = Path(pbb_helpers.__file__).parent
LAYERS = ("families", "data", "analysis", "training", "experiments", "figures", "running", "sharing", "performance", "explore")
"""The subpackages, lowest first. Modules beside them are for all, but for those of the command line, which stand above all."""
COMMANDS = {"__main__", "cli", "cli_models", "cli_options", "cli_sweep", "doctor"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer(parts: tuple[str, ...]) -> int:
    """Returns how high a module stands, from the parts of its name without pbb_helpers."""
    if len(parts) > 1 or parts[0] in LAYERS:
        return LAYERS.index(parts[0])
    return len(LAYERS) if parts[0] in COMMANDS else -1


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Yields the modules of this package that a module imports when it is imported itself; what a function imports may come from above."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pbb_helpers":
            parts = tuple(node.module.split(".")[1:])  # type: ignore[union-attr]
            for name in node.names:
                whole = (*parts, name.name)
                yield whole if (PACKAGE.joinpath(*whole)).with_suffix(".py").is_file() else parts


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_from_its_own_layer_and_those_below(path: Path) -> None:
    own = layer(path.relative_to(PACKAGE).with_suffix("").parts)
    assert [".".join(parts) for parts in imported(path) if parts and layer(parts) > own] == []


def test_every_folder_of_modules_is_a_layer() -> None:
    assert {path.parent.name for path in MODULES if path.parent != PACKAGE} == set(LAYERS)


@pytest.mark.parametrize("name", ["families", "data", "analysis"])
def test_what_is_below_training_needs_no_torch(name: str) -> None:
    modules = [f"pbb_helpers.{name}.{path.stem}" for path in sorted((PACKAGE / name).glob("*.py")) if path.stem != "__init__"]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == 0
