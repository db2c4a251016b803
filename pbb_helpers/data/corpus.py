"""The stream of pretraining documents: programs that stand in the prompt under names bound at random, and questions about them.

It needs no torch: finetuning draws its replay from it, as the paper mixes in general instruction data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pbb_helpers.data.compositions import FEWEST_INPUTS, compose, passed_on
from pbb_helpers.data.documents import CALL_TEMPLATES, Example, call_document, in_context_document
from pbb_helpers.families.names import made_up_names
from pbb_helpers.programs import Program, UsageError, behaviour, family

TURNS = 3
FIRST = 10
PHRASINGS = 2**31
"""Descriptions are drawn from so many phrasings each: a model that reads words must not hang on their choice."""


@dataclass(frozen=True)
class Mix:
    """What the pretraining documents are made of.

    Attributes:
        lengths: Share of programs per number of statements.
        modes: Share of documents per way of answering.
        one_distractor: Share of documents with a second program in the prompt.
        two_distractors: Share with two more.
        language: Share of documents whose programs stand in the prompt in words (`descriptions.describe`) in place of code: 0.5 is code
            and language 1:1, 0.9 is 1:9.
        families: Share of documents per family of programs; those of a document are of one.
        calls: Share of documents that ask for a program that calls two others, all three in the prompt, in code. With it a model can
            step from call to call before it is finetuned; the other models of the ladder never read a call.
    """

    lengths: dict[int, float] = field(default_factory=lambda: {1: 0.25, 2: 0.5, 3: 0.25})
    modes: dict[str, float] = field(default_factory=lambda: {"direct": 0.6, "cot": 0.28, "recall": 0.12})
    one_distractor: float = 0.2
    two_distractors: float = 0.05
    language: float = 0.0
    families: dict[str, float] = field(default_factory=lambda: {"arithmetic": 1.0})
    calls: float = 0.0

    def __post_init__(self) -> None:
        for name in self.families:
            family(name)  # says which there are
        if not sum(self.families.values()) > 0 or min(self.families.values()) < 0:
            raise UsageError(f"families {self.families}; give each a share of 0 or more, one of them above 0")
        if min(self.one_distractor, self.two_distractors) < 0 or self.one_distractor + self.two_distractors > 1:
            raise UsageError(
                f"one_distractor {self.one_distractor}, two_distractors {self.two_distractors}; give shares of 0 or more, together at most 1"
            )
        if not 0 <= self.language <= 1:
            raise UsageError(f"language {self.language}; give the share of documents in words, from 0 to 1")
        if not 0 <= self.calls <= 1:
            raise UsageError(f"calls {self.calls}; give the share of documents with a program that calls others, from 0 to 1")
        if self.calls and set(self.families) != {"arithmetic"}:
            raise UsageError(f"calls {self.calls} with families {sorted(self.families)}; programs that call others are of arithmetic alone")


class Pick:
    """Draws keys of a table of shares."""

    def __init__(self, shares: dict[Any, float], generator: np.random.Generator) -> None:
        self.keys, self.edges, self.generator = list(shares), np.cumsum(list(shares.values())), generator

    def __call__(self) -> Any:
        """Returns one key."""
        return self.keys[int(np.searchsorted(self.edges, self.generator.random() * self.edges[-1], side="right"))]


def conversations(mix: Mix, seed: int | list[int], *, turns: int = TURNS, group: str = "replay", names: tuple[str, ...] | None = None,
                  inputs: tuple[Any, ...] | None = None, exclude: frozenset[tuple] = frozenset(),
                  exclude_over: tuple[Any, ...] | None = None) -> Iterator[list[Example]]:  # fmt: skip
    """Yields pretraining documents without end, the same for the same seed: programs, then one question, or `turns` direct ones.

    Several questions on one program, answered directly, make better use of a document than one, since a direct answer is so short.

    Args:
        mix: What they are made of.
        seed: Seeds the programs, names, inputs and templates.
        turns: Number of direct questions on one source.
        group: The group written into the examples.
        names: The names to draw from; all made-up names by default.
        inputs: The inputs to draw from, with a mix of one family; all of the family's by default.
        exclude: Behaviours that no program of a document may have.
        exclude_over: The inputs that those behaviours are over; all of the family's by default.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    # Of their own, so that a mix with language is the same programs and questions, some of them in words.
    words = np.random.Generator(np.random.PCG64([*np.atleast_1d(seed).tolist(), *b"language"]))
    pool = names or made_up_names()
    families = {(kind, n): family(kind, min_statements=n, max_statements=n) for kind in mix.families for n in mix.lengths}
    every_input = {kind: families[kind, min(mix.lengths)].inputs() for kind in mix.families}
    calling = np.random.Generator(np.random.PCG64([*np.atleast_1d(seed).tolist(), *b"calls"]))
    # Of their own too: the documents of one family alone are those of a mix that knows no other.
    pick_family = Pick(mix.families, np.random.Generator(np.random.PCG64([*np.atleast_1d(seed).tolist(), *b"family"])))
    pick_length, pick_mode = Pick(mix.lengths, generator), Pick(mix.modes, generator)
    distractors = {2: mix.two_distractors, 1: mix.one_distractor, 0: 1 - mix.one_distractor - mix.two_distractors}
    pick_distractors = Pick(distractors, generator)

    begun = {outputs[:FIRST] for outputs in exclude}

    def excluded(program: Program, over: Sequence[Any]) -> bool:
        # Nearly every program is told apart by its first outputs, and a family may have a thousand inputs.
        return behaviour(program, over[:FIRST]) in begun and behaviour(program, over) in exclude

    def sketch(name: str, kind: str) -> Program:
        while True:
            program = families[kind, pick_length()].sketch(name, generator)
            if not exclude or not excluded(program, exclude_over or every_input[kind]):
                return program

    def asked_at(kind: str) -> Sequence[Any]:
        return every_input[kind] if inputs is None else inputs

    def question(program: Program, kind: str) -> tuple[Any, int]:
        domain = asked_at(kind)
        while True:
            x = domain[int(generator.integers(len(domain)))]
            if not program.calls or program.calls[0].run(x) in domain:
                return x, int(generator.integers(len(CALL_TEMPLATES)))

    def composition(kind: str) -> tuple[Program, ...]:
        """Returns a program that calls two others, as `compositions` makes them, these two, and distractors."""
        while True:
            name, *rest = (pool[i] for i in generator.choice(len(pool), size=3 + pick_distractors(), replace=False))
            inner, outer, *others = (sketch(other, kind) for other in rest)
            whole = compose(name, outer, inner)
            fits = passed_on(whole, asked_at(kind)) >= FEWEST_INPUTS
            if fits and not (exclude and excluded(whole, exclude_over or every_input[kind])):
                return whole, outer, inner, *others

    while True:
        chosen = list(dict.fromkeys(pool[i] for i in generator.integers(len(pool), size=5)))[: 1 + pick_distractors()]
        kind = pick_family()
        calls = calling.random() < mix.calls
        program, *others = composition(kind) if calls else [sketch(name, kind) for name in chosen]
        mode = pick_mode()
        x, template = question(program, kind)
        shown = f"description_{mode}" if words.random() < mix.language and not calls else mode
        phrasing = int(words.integers(PHRASINGS))
        document = [in_context_document(program, group, shown, x, template, others, generator, phrasing=phrasing)]
        for _ in range(turns - 1 if mode == "direct" else 0):
            document.append(call_document(program, group, "direct", *question(program, kind)))
        yield document


def documents(mix: Mix, seed: int | list[int], **options: Any) -> Iterator[Example]:
    """Yields single questions as `conversations` draws them: for replay in finetuning, and to look at."""
    return (document[0] for document in conversations(mix, seed, turns=1, **options))
