"""Stages that the store holds already: their documents are neither drawn nor read again to find that out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pbb_helpers.data.code_print import IMPORTED, code_print
from pbb_helpers.data.stages import build_stage
from pbb_helpers.programs import UsageError
from pbb_helpers.training.store import FORMAT, Store, digest

if TYPE_CHECKING:
    from pbb_helpers.data.budget import Budget
    from pbb_helpers.data.datasets import Dataset
    from pbb_helpers.data.settings import Stage
    from pbb_helpers.data.specs import StageSpec
    from pbb_helpers.training.models import LoadedModel
    from pbb_helpers.training.stacked import Progress

log = logging.getLogger(__name__)


def trained(
    loaded: LoadedModel, spec: StageSpec, datasets: Sequence[Dataset], budget: Budget, *, store: Store, parents: Sequence[str] | None,
    count: Callable[[str], int], on_progress: Progress | None = None,
) -> list[str]:  # fmt: skip
    """Returns the keys under which the store holds a stage trained on each of several datasets, as `stacked.train_stages` does where it can.

    A stage's key is a hash of its documents. What they follow from is hashed too, the code that draws and checks them with it; where the
    store knows the keys of that and holds the stages, this is all that is done. Else they are drawn and checked for leaks, then trained.

    Args:
        loaded: The base model.
        spec, budget, count: As `build_stage` takes them.
        datasets: The programs and inputs of each seed.
        store, parents, on_progress: As `train_stages` takes them.

    Raises:
        LeakError: A document is in a stage that must not hold it; nothing was trained.
        UsageError: What `train_stages` raises, but for `NotStackable`: then they are trained one by one.
    """
    from pbb_helpers.training import parallel
    from pbb_helpers.training.train import Diverged, resolve_dtype

    alone = parallel.processes()[1] == 1  # processes that train one stage together have to do the same at every step
    dtype = str(resolve_dtype(budget.stage1.dtype, loaded.model.device)), str(resolve_dtype(budget.stage2.dtype, loaded.model.device))
    recipe = digest(FORMAT, loaded.key, dtype, parents, IMPORTED, asdict(spec), asdict(budget), *map(_facts, datasets))
    if alone and (keys := store.recall(recipe)) and all(map(store.is_whole, keys)):
        return keys
    stages = [build_stage(spec, dataset, budget, count) for dataset in datasets]
    try:
        keys = _train(loaded, stages, store, parents, on_progress)
    except Diverged as error:
        raise UsageError(f"seed {datasets[error.number].seed}: {error}") from error
    if alone and code_print() == IMPORTED:
        store.remember(recipe, keys)
    return keys


def _train(loaded: LoadedModel, stages: Sequence[Stage], store: Store, parents: Sequence[str] | None, tell: Progress | None) -> list[str]:
    """Returns the keys of the stages, trained as a stack, all in one order, or, where that cannot be, one by one, each in its own."""
    from pbb_helpers.training.stacked import NotStackable, in_one_order, train_stages
    from pbb_helpers.training.train import Diverged, train_stage

    try:
        return train_stages(loaded, in_one_order(stages), store=store, parents=parents, on_progress=tell)
    except NotStackable as error:
        log.info("%s", error)
    keys = []  # outside of the except: the error would keep all the models of the stack in memory
    before: Sequence[str | None] = parents or [None] * len(stages)
    for number, (stage, parent) in enumerate(zip(stages, before, strict=True)):
        try:
            keys.append(train_stage(loaded, stage, store=store, parent=parent, on_progress=tell and functools.partial(tell, number)))
        except Diverged as error:
            error.number = number
            raise
    return keys


def _facts(dataset: Dataset) -> tuple[Any, ...]:
    """Returns all of a dataset that its documents follow from; the behaviours are those of its programs."""
    return (
        dataset.family, dataset.seed, *map(asdict, dataset.with_io), "without io", *map(asdict, dataset.without_io),
        list(dataset.train_inputs), list(dataset.eval_inputs),
    )  # fmt: skip
