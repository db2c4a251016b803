"""Stages that the store holds already: their documents are neither drawn nor read again to find that out."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pbb_helpers.data.stages import build_stage
from pbb_helpers.training.store import Store, digest

if TYPE_CHECKING:
    from pbb_helpers.data.budget import Budget
    from pbb_helpers.data.datasets import Dataset
    from pbb_helpers.data.specs import StageSpec
    from pbb_helpers.training.models import LoadedModel

PACKAGE = Path(__file__).parent.parent


def trained(
    loaded: LoadedModel, spec: StageSpec, datasets: Sequence[Dataset], budget: Budget, *, store: Store, parents: Sequence[str] | None,
    count: Callable[[str], int], on_progress: Callable[[int, dict], None] | None = None,
) -> list[str]:  # fmt: skip
    """Returns the keys under which the store holds a stage trained on each of several datasets, as `stacked.train_stages` does.

    A stage's key is a hash of its documents. What they follow from is hashed too, the code that draws and checks them with it; where the
    store knows the keys of that and holds the stages, this is all that is done. Else they are drawn and checked for leaks, then trained.

    Args:
        loaded: The base model.
        spec, budget, count: As `build_stage` takes them.
        datasets: The programs and inputs of each seed.
        store, parents, on_progress: As `train_stages` takes them.

    Raises:
        LeakError: A document is in a stage that must not hold it; nothing was trained.
        UsageError: What `train_stages` raises.
    """
    from pbb_helpers.training import parallel
    from pbb_helpers.training.stacked import train_stages
    from pbb_helpers.training.train import resolve_dtype

    alone = parallel.processes()[1] == 1  # processes that train one stage together have to do the same at every step
    dtype = str(resolve_dtype(budget.stage1.dtype, loaded.model.device)), str(resolve_dtype(budget.stage2.dtype, loaded.model.device))
    recipe = digest(loaded.key, dtype, parents, code_print(), asdict(spec), asdict(budget), *map(_facts, datasets))
    if alone and (keys := store.recall(recipe)) and all(map(store.is_done, keys)):
        return keys
    stages = [build_stage(spec, dataset, budget, count) for dataset in datasets]
    keys = train_stages(loaded, stages, store=store, parents=parents, on_progress=on_progress)
    if alone:
        store.remember(recipe, keys)
    return keys


def _facts(dataset: Dataset) -> tuple[Any, ...]:
    """Returns all of a dataset that its documents follow from; the behaviours are those of its programs."""
    return (
        dataset.family, dataset.seed, *map(asdict, dataset.with_io), "without io", *map(asdict, dataset.without_io),
        list(dataset.train_inputs), list(dataset.eval_inputs),
    )  # fmt: skip


@functools.cache
def code_print(package: Path = PACKAGE) -> str:
    """Returns a hash of the code and word lists that documents are drawn and checked with, and of the versions of Python and numpy."""
    found = hashlib.sha256(f"{sys.version_info[:3]} {np.__version__}\n".encode())
    files = [
        package / "programs.py",
        *(p for part in ("data", "families") for p in (package / part).rglob("*") if p.suffix in (".py", ".txt")),
    ]
    for path in sorted(files):
        found.update(f"{path.relative_to(package).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()
