"""The documents of a stage, drawn from a dataset as its spec says, and checked for leaks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pbb_helpers.conditions import CODED, Budget, Stage, StageSpec, without_io_sources, worded
from pbb_helpers.corpus import Mix, documents
from pbb_helpers.datasets import Dataset, generator
from pbb_helpers.documents import (
    CALL_TEMPLATES,
    DESCRIPTION_TEMPLATES,
    SOURCE_TEMPLATES,
    Example,
    call_document,
    description_document,
    source_document,
)
from pbb_helpers.families.names import made_up_names
from pbb_helpers.leaks import leak_check
from pbb_helpers.programs import Program, UsageError


@functools.lru_cache(maxsize=4)
def build_stage(spec: StageSpec, dataset: Dataset, budget: Budget, count: Callable[[str], int] | None = None) -> Stage:
    """Returns a stage on a dataset, checked for leaks.

    Its documents depend on its own spec alone, so that conditions that share a stage share its key in the store.

    Args:
        spec: What it is made of.
        dataset: The programs and inputs.
        budget: How long it is.
        count: Gives the number of supervised tokens of a completion (`models.token_counter`); needed to match stages in tokens.

    Raises:
        LeakError: A document is in a stage that must not hold it.
        UsageError: Tokens are to be matched and `count` is not given.
    """
    settings = budget.stage2 if spec.length == "stage2" else budget.stage1
    # The dataset's seed is the unit of replication: initial adapters and order differ with it too.
    settings = replace(settings, seed=int(generator(dataset.seed, f"training {settings.seed}").integers(2**31)))
    examples = compose(spec, dataset, budget)
    if budget.match == "tokens":
        examples = _matched(examples, spec, dataset, budget, count)
    stage = Stage(spec.name, tuple(examples), settings, dataset.names)
    leak_check(stage, spec, dataset)
    return stage


def _matched(
    examples: list[Example], spec: StageSpec, dataset: Dataset, budget: Budget, count: Callable[[str], int] | None
) -> list[Example]:
    """Returns the first documents of a stage, as many as have the tokens of the shortest of its versions in code and words, or just more."""
    if count is None:
        raise UsageError("a budget matched in tokens needs a tokenizer to count them; give count=models.token_counter(tokenizer)")
    versions = {worded(spec, with_io=a, without_io=b) for a in (False, True) for b in (False, True)}
    tokens = min(sum(count(e.completion) for e in compose(version, dataset, budget)) for version in versions)
    sums = np.cumsum([count(e.completion) for e in examples])
    return examples[: int(np.searchsorted(sums, tokens)) + 1]


def compose(spec: StageSpec, dataset: Dataset, budget: Budget) -> list[Example]:
    """Returns the documents of a stage in the order of training."""
    if spec.mix:
        parts = [example for part in spec.mix for example in compose(part, dataset, budget)]
        return [parts[i] for i in generator(dataset.seed, spec.name + " order").permutation(len(parts))]
    count = budget.documents(spec.length)
    shares = {("with_io", kind): share for kind, share in spec.with_io} | {("without_io", kind): share for kind, share in spec.without_io}
    shares |= {("replay", ""): spec.replay} if spec.replay else {}
    numbers = _apportion(shares, count)
    sources = without_io_sources(spec, dataset)
    made: list[Example] = []
    for (group, kind), number in numbers.items():
        programs = dataset.with_io if group == "with_io" else sources
        # In words the same programs, inputs and templates are drawn as in code.
        draws = generator(dataset.seed, f"{spec.name} {group} {CODED.get(kind, kind)}")
        phrasings = _phrasings(spec.phrasings, generator(dataset.seed, f"{spec.name} {group} {kind} phrasings"))
        stream = (
            replay(dataset, draws, spec.language)
            if group == "replay"
            else _documents(programs, group, kind, dataset.train_inputs, draws, phrasings)
        )
        made += itertools.islice(stream, number)
    return [made[i] for i in generator(dataset.seed, spec.name + " order").permutation(len(made))]


def replay(dataset: Dataset, draws: np.random.Generator, language: float = 0.0) -> Iterator[Example]:
    """Yields general documents: none of the dataset's names, held-out inputs or w/o IO behaviours occurs in a question of theirs."""
    taken = set(dataset.names)
    names = tuple(name for name in made_up_names() if name not in taken)
    seed = int(draws.integers(2**62))
    every = tuple(sorted(dataset.train_inputs + dataset.eval_inputs))  # what the behaviours are over
    mix = Mix(language=language)
    return documents(mix, seed, names=names, inputs=dataset.train_inputs, exclude=dataset.behaviours, exclude_over=every)


def _documents(programs: Sequence[Program], group: str, kind: str, inputs: Sequence[Any], draws: np.random.Generator,
               phrasings: Iterator[int]) -> Iterator[Example]:  # fmt: skip
    """Yields documents of one kind without end: all programs once in random order, then all again, so that exposures differ by one."""
    while True:
        for i in draws.permutation(len(programs)):
            if kind == "source":
                yield source_document(programs[i], group, int(draws.integers(len(SOURCE_TEMPLATES))))
            elif kind == "description":
                yield description_document(programs[i], group, int(draws.integers(len(DESCRIPTION_TEMPLATES))), next(phrasings))
            else:
                x = inputs[draws.integers(len(inputs))]
                yield call_document(programs[i], group, kind, x, int(draws.integers(len(CALL_TEMPLATES))), phrasing=next(phrasings))


def _phrasings(count: int, draws: np.random.Generator) -> Iterator[int]:
    while True:
        yield int(draws.integers(count))


def _apportion(shares: dict[Any, float], count: int) -> dict[Any, int]:
    """Returns whole numbers in proportion to the shares that sum to `count`, by largest remainder."""
    total = sum(shares.values())
    exact = {key: count * share / total for key, share in shares.items()}
    numbers = {key: int(value) for key, value in exact.items()}
    for key in sorted(exact, key=lambda k: numbers[k] - exact[k])[: count - sum(numbers.values())]:
        numbers[key] += 1
    return numbers
