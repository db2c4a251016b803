"""I/O pairs of w/o IO programs, in place of their source or beside it: "io_only(8, natural)" is a condition too.

These conditions alone show I/O of w/o IO programs, and on training inputs alone: what is asked afterwards stays held out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pbb_helpers.data.budget import Budget
from pbb_helpers.data.datasets import Dataset, generator
from pbb_helpers.data.distributions import distribution, plain_name, value
from pbb_helpers.data.documents import N_TEMPLATES, call_document
from pbb_helpers.data.specs import DECLARATIONS, STAGE1, STAGE2, StageSpec
from pbb_helpers.programs import UsageError

MOST_PAIRS = 10_000
SHOWN = "shown"
"""The group of answers about the very I/O pairs of w/o IO programs that were trained on: whether these were learned at all."""


@dataclass(frozen=True)
class Demonstration:
    """A condition with a number of pairs and a distribution.

    Attributes:
        without_io: Share per kind of document of the w/o IO programs in stage 2: one half in sum, as in proactive.
        question: What it answers.
        alone: Whether these pairs and general replay are all that is trained on, for as long as both stages.
    """

    without_io: tuple[tuple[str, float], ...]
    question: str
    alone: bool = False


# An I/O pair is an input and its output, answered directly: a chain of thought would spell the source out.
DEMONSTRATIONS = {
    "io_only": Demonstration((("direct", 0.5),), "As proactive, with I/O pairs of the w/o IO programs in place of their source: examples against source."),
    "source_and_io": Demonstration((("source", 0.25), ("direct", 0.25)), "As proactive, with source and I/O pairs of the w/o IO programs: the best of both?"),
    "io_alone": Demonstration((("direct", 0.9),), "I/O pairs of the w/o IO programs for the whole budget of both stages: what if stage 1 is not paid for?", alone=True),
}  # fmt: skip


def demonstration(name: str) -> tuple[StageSpec, ...] | None:
    """Returns the stages of "io_only(k, distribution)", "source_and_io(…)" or "io_alone(…)", None for the name of anything else.

    Raises:
        UsageError: The number of pairs or the distribution is none, or written in another way than tables write it.
    """
    kind, bracket, inside = name.partition("(")
    if kind not in DEMONSTRATIONS:
        return None
    match = re.fullmatch(r"([0-9]{1,9}), *(.+)\)", inside)
    if not bracket or match is None or not 1 <= int(match[1]) <= MOST_PAIRS:
        raise UsageError(
            f"condition {name!r} takes a number of I/O pairs, 1 to {MOST_PAIRS:,}, and a distribution: write {kind}(8, uniform) or {kind}(8, natural(0.5))"
        )
    if name != (plain := f"{kind}({int(match[1])}, {plain_name(match[2])})"):  # it would be trained beside the other, on the same pairs
        raise UsageError(f"condition {name}; write {plain}")
    shown: dict[str, Any] = {"without_io": DEMONSTRATIONS[kind].without_io, "pairs": int(match[1]), "distribution": match[2]}
    if DEMONSTRATIONS[kind].alone:
        return (StageSpec(kind, replay=0.1, length="both", **shown),)
    return STAGE1, replace(STAGE2, **shown)


def counterpart(spec: StageSpec) -> StageSpec:
    """Returns the stage that a stage has its number of supervised tokens from: with I/O pairs, that of proactive (or both of its) in place of its own."""
    if not spec.pairs:
        return spec
    proactive = replace(STAGE2, templates=spec.templates)
    if spec.length == "both":
        return StageSpec("mixture", mix=(replace(STAGE1, templates=spec.templates), proactive), length="both")
    return replace(proactive, scale=spec.scale)


def exposures(spec: StageSpec, documents: int, programs: int) -> int:
    """Returns how often a stage of so many documents shows I/O pairs of each of so many w/o IO programs, at least."""
    every = [*spec.with_io, *spec.without_io, ("replay", spec.replay)]
    direct = sum(share for kind, share in spec.without_io if kind not in DECLARATIONS)
    return int(documents * direct / sum(share for _, share in every) / programs + 1e-9)


def require_room(name: str, stages: Iterable[StageSpec], budget: Budget, programs: int) -> None:
    """Raises UsageError where a stage is too short to show each of its I/O pairs once: then it would have fewer than its name says."""
    for spec in stages:
        if spec.pairs and spec.pairs > (shown := exposures(spec, budget.documents(spec), programs)):
            raise UsageError(
                f"{name} has {spec.pairs} I/O pairs of each of {programs} programs and room to show {shown}; give fewer pairs, fewer programs "
                "w/o IO, or more stage2_steps"
            )


def require_distributions(stages: Iterable[StageSpec], inputs: Iterable[Any]) -> None:
    """Raises UsageError where a stage draws inputs from a distribution that is not over these: before anything is trained."""
    values = {value(x) for x in inputs}
    for spec in stages:
        if spec.pairs:
            distribution(spec.distribution, values)


@functools.lru_cache(maxsize=8)
def pairs(spec: StageSpec, dataset: Dataset) -> dict[str, tuple[Any, ...]]:
    """Returns, by w/o IO program, the inputs of its I/O pairs, each drawn by itself: one that is likely may come twice, as in data.

    They are the same with and without the source, and k of them are the first of more. The distribution is one over all inputs: that some
    are held out changes no proportion among the others.
    """
    every = distribution(spec.distribution, map(value, dataset.train_inputs + dataset.eval_inputs))
    found = {}
    for program in dataset.without_io:
        inputs = dataset.inputs_of(program)  # of one that calls others: those that pass no held-out input on
        draws = generator(dataset.seed, f"pairs {program.name}").choice(len(inputs), size=spec.pairs, p=every.over(inputs))
        found[program.name] = tuple(inputs[i] for i in draws)
    return found


def different_pairs(spec: StageSpec, dataset: Dataset) -> float:
    """Returns how many I/O pairs of a w/o IO program differ, on average; 0 for a stage that shows none."""
    if not spec.pairs:
        return 0.0
    return sum(len(set(inputs)) for inputs in pairs(spec, dataset).values()) / len(dataset.without_io)


def pair_documents(spec: StageSpec, dataset: Dataset) -> set[tuple[str, str]]:
    """Returns the prompt and completion of every document on an I/O pair of a w/o IO program that the stage may hold."""
    if not spec.pairs:
        return set()
    made = (
        call_document(program, "without_io", kind, x, template)
        for kind, _ in spec.without_io
        if kind not in DECLARATIONS
        for program in dataset.without_io
        for x in set(pairs(spec, dataset)[program.name])
        for template in range(N_TEMPLATES)
    )
    return {(example.prompt, example.completion) for example in made}
