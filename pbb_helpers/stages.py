"""The documents of a stage, drawn from a dataset as its spec says, and checked for leaks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pbb_helpers.conditions import Budget, Stage, StageSpec, apportion, without_io_sources
from pbb_helpers.corpus import Mix, documents
from pbb_helpers.datasets import Dataset, generator
from pbb_helpers.documents import Example, call_document, source_document
from pbb_helpers.families.names import made_up_names
from pbb_helpers.leaks import leak_check
from pbb_helpers.programs import Program


@functools.lru_cache(maxsize=4)
def build_stage(spec: StageSpec, dataset: Dataset, budget: Budget) -> Stage:
    """Returns a stage on a dataset, checked for leaks.

    Its documents depend on its own spec alone, so that conditions that share a stage share its key in the store.

    Raises:
        LeakError: A document is in a stage that must not hold it.
    """
    second = spec.length == "stage2" or spec.arrange[-1] == 1
    settings = budget.stage2 if second else budget.stage1
    # The dataset's seed is the unit of replication: initial adapters and order differ with it too.
    settings = replace(settings, seed=int(generator(dataset.seed, f"training {settings.seed}").integers(2**31)))
    stage = Stage(spec.name, tuple(compose(spec, dataset, budget)), settings, dataset.names)
    leak_check(stage, spec, dataset)
    return stage


def compose(spec: StageSpec, dataset: Dataset, budget: Budget) -> list[Example]:
    """Returns the documents of a stage in the order of training."""
    if spec.mix:
        name, value, which = spec.arrange
        parts = [compose(part, dataset, budget) for part in spec.mix]
        made = ARRANGEMENTS[name](*parts, value)[which]
    else:
        sources = without_io_sources(spec, dataset)
        made = []
        for (group, kind), number in apportion(spec, budget.documents(spec)).items():
            programs = dataset.with_io if group == "with_io" else sources
            draws = generator(dataset.seed, f"{spec.name} {group} {kind}")
            stream = (
                replay(dataset, draws)
                if group == "replay"
                else _documents(programs, group, kind, dataset.train_inputs, spec.templates, draws)
            )
            made += itertools.islice(stream, number)
    return [made[i] for i in generator(dataset.seed, spec.name + " order").permutation(len(made))]


def together(first: list[Example], second: list[Example], value: float) -> tuple[list[Example], ...]:
    """Returns one stage of all documents."""
    return (first + second,)


def sources_first(first: list[Example], second: list[Example], value: float) -> tuple[list[Example], ...]:
    """Returns a stage of all source documents and one of the rest."""
    every = first + second
    return [e for e in every if e.kind == "source"], [e for e in every if e.kind != "source"]


def early(first: list[Example], second: list[Example], share: float) -> tuple[list[Example], ...]:
    """Returns both stages after `share` of the second's w/o IO sources changed places with as many documents of the first."""
    sources = [i for i, e in enumerate(second) if e.group == "without_io"]
    moved = set(sources[: round(share * len(sources))])
    exchanged = len(moved)  # both lists are shuffled: the first documents are as good as any
    kept = [e for i, e in enumerate(second) if i not in moved]
    return first[exchanged:] + [second[i] for i in sorted(moved)], kept + first[:exchanged]


ARRANGEMENTS = {"together": together, "sources first": sources_first, "early": early}


def replay(dataset: Dataset, draws: np.random.Generator) -> Iterator[Example]:
    """Yields general documents: none of the dataset's names, held-out inputs or w/o IO behaviours occurs in a question of theirs."""
    taken = set(dataset.names)
    names = tuple(name for name in made_up_names() if name not in taken)
    seed = int(draws.integers(2**62))
    every = tuple(sorted(dataset.train_inputs + dataset.eval_inputs))  # what the behaviours are over
    return documents(Mix(), seed, names=names, inputs=dataset.train_inputs, exclude=dataset.behaviours, exclude_over=every)


def _documents(
    programs: Sequence[Program], group: str, kind: str, inputs: Sequence[Any], templates: int, draws: np.random.Generator
) -> Iterator[Example]:
    """Yields documents of one kind without end: all programs once in random order, then all again, so that exposures differ by one."""
    while True:
        for i in draws.permutation(len(programs)):
            if kind == "source":
                yield source_document(programs[i], group, int(draws.integers(templates)))
            else:
                x = inputs[draws.integers(len(inputs))]
                yield call_document(programs[i], group, kind, x, int(draws.integers(templates)))
