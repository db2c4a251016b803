"""The documents of a stage, drawn from a dataset as its spec says, and checked for leaks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pbb_helpers.data.budget import Budget, apportion
from pbb_helpers.data.corpus import Mix, documents
from pbb_helpers.data.datasets import Dataset, generator
from pbb_helpers.data.demonstrations import counterpart, pairs
from pbb_helpers.data.documents import Example, call_document, description_document, source_document
from pbb_helpers.data.leaks import leak_check
from pbb_helpers.data.settings import Stage
from pbb_helpers.data.specs import CODED, DECLARATIONS, StageSpec, without_io_sources, worded
from pbb_helpers.families.names import made_up_names
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
    second = spec.length == "stage2" or spec.arrange[-1] == 1
    settings = budget.stage2 if second else budget.stage1
    # The dataset's seed is the unit of replication: initial adapters and order differ with it too.
    settings = replace(settings, lr=spec.rate * settings.lr, seed=int(generator(dataset.seed, f"training {settings.seed}").integers(2**31)))
    examples = compose(spec, dataset, budget)
    if budget.match == "tokens":
        examples = _matched(examples, spec, dataset, budget, count)
    stage = Stage(spec.name, tuple(examples), settings, (*dataset.names, *budget.new_tokens))
    leak_check(stage, spec, dataset)
    return stage


def _matched(
    examples: list[Example], spec: StageSpec, dataset: Dataset, budget: Budget, count: Callable[[str], int] | None
) -> list[Example]:
    """Returns the first documents of a stage, as many as have the tokens of the shortest of its versions in code and words, or just more.

    A stage with I/O pairs has as many tokens as that of proactive and, since outputs are short, more documents.
    """
    if count is None:
        raise UsageError("a budget matched in tokens needs a tokenizer to count them; give count=models.token_counter(tokenizer)")
    versions = {worded(counterpart(spec), with_io=a, without_io=b) for a in (False, True) for b in (False, True)}
    tokens = min(sum(count(e.completion) for e in compose(version, dataset, budget)) for version in versions)
    sums = np.cumsum([count(e.completion) for e in examples])
    while spec.pairs and sums[-1] < tokens:
        spec = replace(spec, scale=2 * spec.scale)
        examples = compose(spec, dataset, budget)
        sums = np.cumsum([count(e.completion) for e in examples])
    return examples[: int(np.searchsorted(sums, tokens)) + 1]


def compose(spec: StageSpec, dataset: Dataset, budget: Budget) -> list[Example]:
    """Returns the documents of a stage in the order of training."""
    if spec.mix:
        name, value, which = spec.arrange
        parts = [compose(part, dataset, budget) for part in spec.mix]
        made = ARRANGEMENTS[name](*parts, value)[which]
    else:
        sources = without_io_sources(spec, dataset)
        shown = pairs(spec, dataset) if spec.pairs else {}
        made = []
        for (group, kind), number in apportion(spec, budget.documents(spec)).items():
            programs = dataset.with_io if group == "with_io" else sources
            # In words the same programs, inputs and templates are drawn as in code.
            draws = generator(dataset.seed, f"{spec.name} {group} {CODED.get(kind, kind)}")
            phrasings = _phrasings(spec.phrasings, generator(dataset.seed, f"{spec.name} {group} {kind} phrasings"))
            stream = (
                replay(dataset, draws, spec.language)
                if group == "replay"
                else _documents(programs, group, kind, dataset.inputs_of, shown, spec.templates, draws, phrasings)
            )
            made += itertools.islice(stream, number)
    return [made[i] for i in generator(dataset.seed, spec.name + " order").permutation(len(made))]


def together(first: list[Example], second: list[Example], value: float) -> tuple[list[Example], ...]:
    """Returns one stage of all documents."""
    return (first + second,)


def sources_first(first: list[Example], second: list[Example], value: float) -> tuple[list[Example], ...]:
    """Returns a stage of all source documents and one of the rest."""
    every = first + second
    return [e for e in every if e.kind in DECLARATIONS], [e for e in every if e.kind not in DECLARATIONS]


def early(first: list[Example], second: list[Example], share: float) -> tuple[list[Example], ...]:
    """Returns both stages after `share` of the second's w/o IO sources changed places with as many documents of the first."""
    sources = [i for i, e in enumerate(second) if e.group == "without_io"]
    moved = set(sources[: round(share * len(sources))])
    if (exchanged := len(moved)) > len(first):
        raise UsageError(
            f"early({share:g}) moves {exchanged:,} documents into a stage 1 of {len(first):,}; give a smaller share, more stage1_steps or fewer stage2_steps"
        )
    # both lists are shuffled: the first documents are as good as any
    kept = [e for i, e in enumerate(second) if i not in moved]
    return first[exchanged:] + [second[i] for i in sorted(moved)], kept + first[:exchanged]


ARRANGEMENTS: dict[str, Callable[..., tuple[list[Example], ...]]] = {"together": together, "sources first": sources_first, "early": early}


def replay(dataset: Dataset, draws: np.random.Generator, language: float = 0.0) -> Iterator[Example]:
    """Yields general documents: none of the dataset's names, held-out inputs or w/o IO behaviours occurs in a question of theirs."""
    taken = set(dataset.names)
    names = tuple(name for name in made_up_names() if name not in taken)
    seed = int(draws.integers(2**62))
    every = tuple(sorted(dataset.train_inputs + dataset.eval_inputs))  # what the behaviours are over
    mix = Mix(language=language, families={dataset.family: 1.0})
    return documents(mix, seed, names=names, inputs=dataset.train_inputs, exclude=dataset.behaviours, exclude_over=every)


def _documents(programs: Sequence[Program], group: str, kind: str, inputs_of: Callable[[Program], Sequence[Any]],
               shown: Mapping[str, Sequence[Any]], templates: int, draws: np.random.Generator, phrasings: Iterator[int]) -> Iterator[Example]:  # fmt: skip
    """Yields documents of one kind without end: all programs once in random order, then all again, so that exposures differ by one.

    A program in `shown` is asked the inputs there in turn, any other one inputs at random.
    """
    for turn in itertools.count():
        for i in draws.permutation(len(programs)):
            if kind == "source":
                yield source_document(programs[i], group, int(draws.integers(templates)))
            elif kind == "description":
                yield description_document(programs[i], group, int(draws.integers(templates)), next(phrasings))
            else:
                inputs = inputs_of(programs[i])
                own = shown.get(programs[i].name)
                x = own[turn % len(own)] if own else inputs[int(draws.integers(len(inputs)))]
                yield call_document(programs[i], group, kind, x, int(draws.integers(templates)), phrasing=next(phrasings))


def _phrasings(count: int, draws: np.random.Generator) -> Iterator[int]:
    while True:
        yield int(draws.integers(count))
