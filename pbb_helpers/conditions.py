"""Conditions are data: which documents of which programs are trained on in which stage. And `leak_check`, which holds them to it.

The protocol is that of arXiv 2506.18777: L_decl is the loss on a `source` document, L_exec that on a question with its answer; the
**w/ IO** programs get both, the **w/o IO** programs their source alone. A variant is `dataclasses.replace` of a condition.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pbb_helpers.corpus import Mix, documents
from pbb_helpers.documents import CALL_TEMPLATES, MODES, SOURCE_TEMPLATES, Example, call_document, source_document
from pbb_helpers.families.names import draw_names, made_up_names
from pbb_helpers.programs import Family, Program, UsageError, behaviour, did_you_mean


@dataclass(frozen=True)
class TrainSettings:
    """How one stage is trained.

    Attributes:
        method: "lora" (adapters on all linear layers) or "full".
        rank: Rank of the adapters.
        alpha: Their scale is alpha / rank.
        dropout: Dropout on the adapters' input.
        train_names: Whether the embeddings of the programs' names are trained too (peft's `trainable_token_indices`).
        batch_size: Documents per step.
        lr: Peak learning rate of AdamW.
        warmup: Share of the steps over which the rate rises from 0.
        decay: "linear" or "cosine" to 0, or "constant".
        weight_decay: Of AdamW.
        clip: Largest norm of the gradient.
        dtype: "auto", "float32" or "bfloat16": of the arithmetic; the weights that are trained are float32.
        seed: Of the adapters' initial values, the order within windows, and dropout.
        max_length: Longest document in tokens; a longer one is an error, never cut.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
    """

    method: str = "lora"
    rank: int = 64
    alpha: int = 128
    dropout: float = 0.0
    train_names: bool = True
    batch_size: int = 64
    lr: float = 2e-3
    warmup: float = 0.05
    decay: str = "linear"
    weight_decay: float = 0.0
    clip: float = 1.0
    dtype: str = "auto"
    seed: int = 0
    max_length: int = 1024
    checkpoint_every: int = 200
    log_every: int = 20

    def __post_init__(self) -> None:
        for name, valid in (
            ("method", ("lora", "full")),
            ("decay", ("linear", "cosine", "constant")),
            ("dtype", ("auto", "float32", "bfloat16")),
        ):
            if getattr(self, name) not in valid:
                raise did_you_mean(name, getattr(self, name), valid)
        if not (self.lr > 0 and self.rank >= 1 and 0 <= self.dropout < 1 and 0 <= self.warmup <= 1):
            raise UsageError(f"lr {self.lr}, rank {self.rank}, dropout {self.dropout}, warmup {self.warmup}; give lr > 0, rank >= 1, "
                             "dropout from 0 to below 1, warmup from 0 to 1")  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One stage of finetuning: exactly the documents that are trained on, in order, repeats included.

    Attributes:
        name: "stage1", "stage2", …
        examples: The documents; steps = ceil(len / batch size).
        settings: How they are trained.
        names: The names of programs that are new to the model.
    """

    name: str
    examples: tuple[Example, ...]
    settings: TrainSettings
    names: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """The programs and inputs of one seed. `train_inputs` and `eval_inputs` have none in common, nor have the programs.

    Attributes:
        family: The name of their family.
        with_io: Programs given with source and I/O.
        without_io: Programs given with source only.
        train_inputs: The inputs of every training question.
        eval_inputs: Inputs that occur in no training question of any program.
        behaviours: Of the w/o IO programs over all inputs: no replayed program may have one of these.
        seed: What it was drawn from.
    """

    family: str
    with_io: tuple[Program, ...]
    without_io: tuple[Program, ...]
    train_inputs: tuple[Any, ...]
    eval_inputs: tuple[Any, ...]
    behaviours: frozenset[tuple]
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all programs, w/ IO first."""
        return tuple(program.name for program in self.with_io + self.without_io)


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Returns the generator of one purpose, so that a further draw for one moves nothing of another."""
    return np.random.Generator(np.random.PCG64([seed, *purpose.encode()]))


@functools.lru_cache(maxsize=8)
def draw_dataset(programs: Family, *, n_with_io: int, n_without_io: int, n_eval_inputs: int, seed: int) -> Dataset:
    """Returns programs that all differ in behaviour, and their inputs split in two.

    Raises:
        UsageError: A number is too small, or too large for the family.
    """
    every = programs.inputs()
    if n_with_io < 1 or n_without_io < 2:
        raise UsageError(f"{n_with_io} programs w/ IO and {n_without_io} w/o IO; give at least 1 and 2")
    if not 1 <= n_eval_inputs < len(every):
        raise UsageError(f"{n_eval_inputs} held-out inputs of {len(every)}; give 1 to {len(every) - 1}")
    names = draw_names(n_with_io + n_without_io, generator(seed, "names"))
    drawn = programs.draw(names, generator(seed, "programs"))
    # Behaviours of short programs run out while drawing, so that the last drawn are longer: unshuffled, the w/o IO group would be harder.
    drawn = [drawn[i] for i in generator(seed, "groups").permutation(len(drawn))]
    held_out = set(generator(seed, "inputs").permutation(len(every))[:n_eval_inputs].tolist())
    with_io, without_io = tuple(drawn[:n_with_io]), tuple(drawn[n_with_io:])
    return Dataset(
        programs.name, with_io, without_io,
        tuple(x for i, x in enumerate(every) if i not in held_out), tuple(x for i, x in enumerate(every) if i in held_out),
        frozenset(behaviour(p, every) for p in without_io), seed,
    )  # fmt: skip


# ---------------------------------------------------------------- conditions

ANSWERS = ("direct", "cot", "recall")


@dataclass(frozen=True)
class StageSpec:
    """What one stage is made of, in shares of its documents; the shares are put to a sum of one.

    Attributes:
        name: Of the stage.
        with_io: Share per kind of document of the w/ IO programs.
        without_io: The same of the w/o IO programs.
        replay: Share of general documents: other programs, run from a source in the prompt, as in pretraining. The paper mixes
            general instruction data into stage 2 (v2); these are ours.
        shuffled: Whether the w/o IO names are bound to each other's sources.
        length: Which number of documents it takes: "stage1", "stage2" or "both" (their sum).
        mix: Names of other specs whose documents it holds, all shuffled together, in place of its own.
    """

    name: str
    with_io: tuple[tuple[str, float], ...] = ()
    without_io: tuple[tuple[str, float], ...] = ()
    replay: float = 0.0
    shuffled: bool = False
    length: str = "stage1"
    mix: tuple[StageSpec, ...] = ()

    def kinds_without_io(self) -> set[str]:
        """Returns the kinds of document of w/o IO programs that the stage may hold."""
        return {kind for spec in (self, *self.mix) for kind, _ in spec.without_io}


STAGE1 = StageSpec("stage1", with_io=(("source", 0.35), ("direct", 0.15), ("cot", 0.15), ("recall", 0.25)), replay=0.10)
STAGE2 = StageSpec(
    "stage2", with_io=(("direct", 0.12), ("cot", 0.12), ("recall", 0.16)), without_io=(("source", 0.5),), replay=0.10, length="stage2"
)


@dataclass(frozen=True)
class Condition:
    """A named way of training.

    Attributes:
        name: In the registry and in every table.
        question: What it answers, in a line.
        reference: Where it comes from.
        stages: In order; none for the untuned model.
        modes: The modes of answering it is asked in.
    """

    name: str
    question: str
    reference: str
    stages: tuple[StageSpec, ...] = ()
    modes: tuple[str, ...] = MODES


CONDITIONS = {
    condition.name: condition
    for condition in (
        Condition("base", "Can the untuned model do it?", "asked for by reviewers of arXiv 2506.18777", modes=("direct", "cot", "recall", "source")),
        Condition("in_context", "The ceiling: the untuned model with the source in its prompt.", "asked for by reviewers of arXiv 2506.18777",
                  modes=("in_context_direct", "in_context_cot", "in_context_recall")),
        Condition("source_only", "Is source enough, with no demonstration of any program?", "asked for by reviewers of arXiv 2506.18777",
                  (StageSpec("stage2", without_io=(("source", 0.5),), replay=0.5, length="stage2"),)),
        Condition("stage1_only", "What can be had without the source of the w/o IO programs?", "asked for by reviewers of arXiv 2506.18777",
                  (STAGE1,)),
        Condition("proactive", "Source and I/O of w/ IO programs, then the source alone of w/o IO programs beside replayed answers of w/ IO ones.", "arXiv 2506.18777v2, Proactive",
                  (STAGE1, STAGE2)),
        Condition("shuffled_source", "As proactive, but each w/o IO name is given the source of another: is it the content?", "a control of ours",
                  (STAGE1, StageSpec(**{**STAGE2.__dict__, "shuffled": True}))),
        Condition("mixture", "The documents of both stages of proactive, shuffled into one: do the stages matter?", "arXiv 2506.18777v2, mixture",
                  (StageSpec("mixture", mix=(STAGE1, STAGE2), length="both"),)),
    )
}  # fmt: skip


def condition(name: str) -> Condition:
    """Returns the condition of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in CONDITIONS:
        raise did_you_mean("condition", name, CONDITIONS)
    return CONDITIONS[name]


@dataclass(frozen=True)
class Budget:
    """How long the stages are and how each is trained; both stages of every condition get the same."""

    stage1: TrainSettings = field(default_factory=TrainSettings)
    stage2: TrainSettings = field(default_factory=lambda: TrainSettings(lr=1e-3))
    stage1_steps: int = 1000
    stage2_steps: int = 300

    def __post_init__(self) -> None:
        for name in ("stage1", "stage2"):
            steps, size = getattr(self, f"{name}_steps"), getattr(self, name).batch_size
            if steps < 1 or size < 1:
                raise UsageError(f"{name} of {steps} steps of {size} documents; give at least 1 of each")

    def documents(self, length: str) -> int:
        """Returns the number of documents of a stage of that length."""
        return {"stage1": self.stage1_documents, "stage2": self.stage2_documents, "both": self.stage1_documents + self.stage2_documents}[
            length
        ]

    @property
    def stage1_documents(self) -> int:
        """Number of documents of a first stage."""
        return self.stage1_steps * self.stage1.batch_size

    @property
    def stage2_documents(self) -> int:
        """Number of documents of a second stage."""
        return self.stage2_steps * self.stage2.batch_size


@functools.lru_cache(maxsize=4)
def build_stage(spec: StageSpec, dataset: Dataset, budget: Budget) -> Stage:
    """Returns a stage on a dataset, checked for leaks.

    Its documents depend on its own spec alone, so that conditions that share a stage share its key in the store.

    Raises:
        LeakError: A document is in a stage that must not hold it.
    """
    settings = budget.stage2 if spec.length == "stage2" else budget.stage1
    # The dataset's seed is the unit of replication: initial adapters and order differ with it too.
    settings = replace(settings, seed=int(generator(dataset.seed, f"training {settings.seed}").integers(2**31)))
    stage = Stage(spec.name, tuple(compose(spec, dataset, budget)), settings, dataset.names)
    leak_check(stage, spec, dataset)
    return stage


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
        draws = generator(dataset.seed, f"{spec.name} {group} {kind}")
        stream = replay(dataset, draws) if group == "replay" else _documents(programs, group, kind, dataset.train_inputs, draws)
        made += itertools.islice(stream, number)
    return [made[i] for i in generator(dataset.seed, spec.name + " order").permutation(len(made))]


def without_io_sources(spec: StageSpec, dataset: Dataset) -> tuple[Program, ...]:
    """Returns the w/o IO programs as the stage shows them: their own, or each under the next one's name in a random ring."""
    if not spec.shuffled:
        return dataset.without_io
    ring = generator(dataset.seed, "shuffled").permutation(len(dataset.without_io)).tolist()
    return tuple(dataset.without_io[i].renamed(dataset.without_io[j].name) for i, j in zip(ring, ring[1:] + ring[:1], strict=True))


def replay(dataset: Dataset, draws: np.random.Generator) -> Iterator[Example]:
    """Yields general documents: none of the dataset's names, held-out inputs or w/o IO behaviours occurs in a question of theirs."""
    taken = set(dataset.names)
    names = tuple(name for name in made_up_names() if name not in taken)
    seed = int(draws.integers(2**62))
    every = tuple(sorted(dataset.train_inputs + dataset.eval_inputs))  # what the behaviours are over
    return documents(Mix(), seed, names=names, inputs=dataset.train_inputs, exclude=dataset.behaviours, exclude_over=every)


def _documents(programs: Sequence[Program], group: str, kind: str, inputs: Sequence[Any], draws: np.random.Generator) -> Iterator[Example]:
    """Yields documents of one kind without end: all programs once in random order, then all again, so that exposures differ by one."""
    while True:
        for i in draws.permutation(len(programs)):
            if kind == "source":
                yield source_document(programs[i], group, int(draws.integers(len(SOURCE_TEMPLATES))))
            else:
                x = inputs[draws.integers(len(inputs))]
                yield call_document(programs[i], group, kind, x, int(draws.integers(len(CALL_TEMPLATES))))


def _apportion(shares: dict[Any, float], count: int) -> dict[Any, int]:
    """Returns whole numbers in proportion to the shares that sum to `count`, by largest remainder."""
    total = sum(shares.values())
    exact = {key: count * share / total for key, share in shares.items()}
    numbers = {key: int(value) for key, value in exact.items()}
    for key in sorted(exact, key=lambda k: numbers[k] - exact[k])[: count - sum(numbers.values())]:
        numbers[key] += 1
    return numbers


# ---------------------------------------------------------------- leaks


class LeakError(UsageError):
    """A document is in a stage that must not hold it."""


CALL = re.compile(r"\b(?!range\b)(\w+)\s*\(\s*(?:\w+\s*=\s*)?([-+]?\d+)\s*,?\s*\)")
"""A call on a number, but for the loop header `range(3)`; also one written as f(x=3), f(+3), f(03) or f(3,)."""


def leak_check(stage: Stage, spec: StageSpec, dataset: Dataset) -> int:
    """Returns the number of documents read, every one as the text that is trained on.

    Three rules, the first a white list, so that it needs no imagination about how a leak might look:
    1. A document that names a w/o IO program is one of the 20 source documents of a program that the stage may show, letter for letter;
       in a stage that may show I/O of w/o IO programs (none here) it may also be a question on a training input.
    2. No document calls any program on a held-out input.
    3. No document shows the body of a w/o IO program under a name that the stage does not bind it to.

    Raises:
        LeakError: A rule is broken; the message names the stage, the rule and the document.
    """
    kinds = spec.kinds_without_io()
    hidden = {program.name for program in dataset.without_io}
    bodies = {_body(program.source) for program in dataset.without_io}
    shown = {p.name: p.source for part in (spec, *spec.mix) if part.without_io for p in without_io_sources(part, dataset)}
    allowed = {
        (template.format(name=name) + "\n", source) for name, source in shown.items() for template in SOURCE_TEMPLATES if "source" in kinds
    }
    held_out = {str(x) for x in dataset.eval_inputs}
    for prompt, completion in dict.fromkeys((e.prompt, e.completion) for e in stage.examples):
        text = f"{prompt}{completion}"
        calls = CALL.findall(text)
        if any(str(int(x)) in held_out for _, x in calls):
            raise _leak(stage, "calls a program on a held-out input", text)
        if (prompt, completion) in allowed:
            continue
        if hidden.intersection(_words(text)) and not (kinds - {"source"} and calls):
            raise _leak(stage, "names a w/o IO program outside a source document that the stage may hold", text)
        if any(body in bodies for body in _bodies(text)):
            raise _leak(stage, "shows the body of a w/o IO program under another name", text)
    return len(stage.examples)


def _leak(stage: Stage, what: str, text: str) -> LeakError:
    return LeakError(f"leak in {stage.name}: a document {what}: {text!r}; nothing was trained")


def _words(text: str) -> set[str]:
    """Returns the words of the text, and its runs of letters in small letters: "_Zibble2" names zibble too."""
    return {*re.findall(r"\w+", text), *re.findall(r"[^\W\d_]+", text.lower())}


def _body(source: str) -> str:
    return source.split("\n", 1)[1]


def _bodies(text: str) -> list[str]:
    """Returns the body of each function whose definition stands in the text."""
    return [match[1].rstrip("\n") for match in re.finditer(r"def \w+\(.*\):\n((?:[ ]+.*(?:\n|$))+)", text)]
