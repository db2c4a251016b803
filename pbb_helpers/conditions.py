"""Conditions are data: which documents of which programs are trained on in which stage.

The protocol is that of arXiv 2506.18777: L_decl is the loss on a `source` document, L_exec that on a question with its answer; the
**w/ IO** programs get both, the **w/o IO** programs their source alone. A variant is `dataclasses.replace` of a condition.
`stages` draws their documents, `leaks` holds these to what a condition may show.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from pbb_helpers.datasets import Dataset, generator
from pbb_helpers.documents import EVERY_MODE, MODES, N_TEMPLATES, WORD_MODES, Example
from pbb_helpers.programs import Program, UsageError, did_you_mean


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
        language: Share of the general documents that have a description in the prompt in place of the source.
        phrasings: In how many ways each program is described. One, as it has one source, keeps the two comparable.
        shuffled: Whether the w/o IO names are bound to each other's sources.
        length: Which number of documents it takes: "stage1", "stage2", "both" (their sum), "sources" or "answers" (of both, see `arrange`).
        mix: Other specs whose documents it holds in place of its own.
        arrange: Which of the documents of `mix`: a name in `stages.ARRANGEMENTS`, its number, and which of the stages that it makes this
            is. The curricula hold the very same documents in another order.
        templates: How many pointer templates its documents take, the first ones.
        scale: Factor on the number of documents.
    """

    name: str
    with_io: tuple[tuple[str, float], ...] = ()
    without_io: tuple[tuple[str, float], ...] = ()
    replay: float = 0.0
    language: float = 0.0
    phrasings: int = 1
    shuffled: bool = False
    length: str = "stage1"
    mix: tuple[StageSpec, ...] = ()
    arrange: tuple[str, float, int] = ("together", 0.0, 0)
    templates: int = N_TEMPLATES
    scale: float = 1.0

    def kinds_without_io(self) -> set[str]:
        """Returns the kinds of document of w/o IO programs that the stage may hold."""
        return {kind for spec in (self, *self.mix) for kind, _ in spec.without_io}


STAGE1 = StageSpec("stage1", with_io=(("source", 0.35), ("direct", 0.15), ("cot", 0.15), ("recall", 0.25)), replay=0.10)
STAGE2 = StageSpec(
    "stage2", with_io=(("direct", 0.12), ("cot", 0.12), ("recall", 0.16)), without_io=(("source", 0.5),), replay=0.10, length="stage2"
)


NO_EXPOSURE = replace(STAGE2, without_io=(), with_io=(*STAGE2.with_io, ("source", 0.5)))
DECLARATIONS = ("source", "description")
"""Kinds of document that say what a program is: L_decl."""
WORDED = {"source": "description", "recall": "recall_description"}
CODED = {word: code for code, word in WORDED.items()}


def worded(spec: StageSpec, *, with_io: bool, without_io: bool) -> StageSpec:
    """Returns the stage with the documents of each group in words or in code, all else equal: the same programs, inputs and prompts' templates.

    The general documents are in the representation of the group that is new in the stage: the w/o IO programs where it shows them.
    """

    def kinds(shares: tuple[tuple[str, float], ...], words: bool) -> tuple[tuple[str, float], ...]:
        return tuple(((WORDED if words else CODED).get(kind, kind), share) for kind, share in shares)

    return replace(
        spec,
        with_io=kinds(spec.with_io, with_io),
        without_io=kinds(spec.without_io, without_io),
        language=float(without_io if spec.without_io else with_io),
        mix=tuple(worded(part, with_io=with_io, without_io=without_io) for part in spec.mix),
    )


STAGE1_WORDS = worded(STAGE1, with_io=True, without_io=True)


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

    @property
    def templates(self) -> int:
        """The number of pointer templates that it is asked in: those that it was trained on."""
        return min((spec.templates for spec in self.stages), default=N_TEMPLATES)


def rearranged(arrangement: str, value: float, lengths: tuple[str, str], parts: tuple[StageSpec, StageSpec]) -> tuple[StageSpec, ...]:
    """Returns two stages that hold the documents of `parts` in another order."""
    return tuple(StageSpec(f"stage{i + 1}", mix=parts, arrange=(arrangement, value, i), length=length) for i, length in enumerate(lengths))


CONDITIONS = {
    condition.name: condition
    for condition in (
        Condition("base", "Can the untuned model do it?", "asked for by reviewers of arXiv 2506.18777", modes=("direct", "cot", "recall", "source")),
        Condition("in_context", "The ceiling: the untuned model with the source in its prompt.", "asked for by reviewers of arXiv 2506.18777",
                  modes=("in_context_direct", "in_context_cot", "in_context_recall")),
        Condition("source_only", "Is source enough, with no demonstration of any program?", "asked for by reviewers of arXiv 2506.18777",
                  (StageSpec("stage2", without_io=(("source", 0.5),), replay=0.5, length="stage2"),)),
        Condition("answers_only", "Answers of w/ IO programs and no source at all: is it the chain of thought alone?", "asked for by reviewers of arXiv 2506.18777",
                  (StageSpec("answers", with_io=(("direct", 0.5), ("cot", 0.5)), replay=0.1, length="both"),)),
        Condition("stage1_only", "What can be had without the source of the w/o IO programs?", "asked for by reviewers of arXiv 2506.18777",
                  (STAGE1,)),
        Condition("proactive", "Source and I/O of w/ IO programs, then the source alone of w/o IO programs beside replayed answers of w/ IO ones.", "arXiv 2506.18777v2, Proactive",
                  (STAGE1, STAGE2)),
        Condition("shuffled_source", "As proactive, but each w/o IO name is given the source of another: is it the content?", "a control of ours",
                  (STAGE1, replace(STAGE2, shuffled=True))),
        Condition("mixture", "The documents of both stages of proactive, shuffled into one: do the stages matter?", "arXiv 2506.18777v2, mixture",
                  (StageSpec("mixture", mix=(STAGE1, STAGE2), length="both"),)),
        Condition("retroactive_sft", "The documents of proactive in the other order: all sources first, then all answers.", "arXiv 2506.18777v2, Retroactive with SFT",
                  rearranged("sources first", 0.0, ("sources", "answers"), (STAGE1, STAGE2))),
        Condition("no_exposure_sft", "As retroactive, with sources of w/ IO programs in place of the w/o IO ones: is it the answers alone?", "asked for by reviewers of arXiv 2506.18777",
                  rearranged("sources first", 0.0, ("sources", "answers"), (STAGE1, NO_EXPOSURE))),
        Condition("in_context_description", "The ceiling in words: the untuned model with the description in its prompt.", "a control of ours",
                  modes=WORD_MODES[4:]),
        Condition("description", "As proactive, with descriptions in place of code in both stages: does it take code?", "arXiv 2506.18777v1, language descriptions",
                  (STAGE1_WORDS, worded(STAGE2, with_io=True, without_io=True)), modes=WORD_MODES),
        Condition("code_to_description", "Stage 1 in code as in proactive, then w/o IO programs in words: is what is learned bound to code?", "a variant of ours",
                  (STAGE1, worded(STAGE2, with_io=False, without_io=True)), modes=EVERY_MODE),
        Condition("description_to_code", "Stage 1 in words, then w/o IO programs in code.", "a variant of ours",
                  (STAGE1_WORDS, worded(STAGE2, with_io=True, without_io=False)), modes=EVERY_MODE),
    )
}  # fmt: skip


MAIN = ("base", "in_context", "source_only", "stage1_only", "proactive", "shuffled_source", "mixture")
"""The conditions of the main experiment."""
KNOB_MODES = ("direct", "cot", "recall", "source")


def early(share: float) -> tuple[StageSpec, ...]:
    """Returns the stages of proactive with a share of the w/o IO sources moved to stage 1, in exchange for as many of its documents."""
    _within("early", share, 0.0, 1.0)
    return rearranged("early", share, ("stage1", "stage2"), (STAGE1, STAGE2))


def replay_share(share: float) -> tuple[StageSpec, ...]:
    """Returns the stages of proactive with another share of replay in stage 2, its other documents in their proportion."""
    _within("replay", share, 0.0, 0.9)
    rest = sum(part for _, part in (*STAGE2.with_io, *STAGE2.without_io))
    return STAGE1, replace(STAGE2, replay=share / (1 - share) * rest)


def stage2_length(factor: float) -> tuple[StageSpec, ...]:
    """Returns the stages of proactive with a stage 2 of `factor` times the documents."""
    _within("stage2", factor, 0.05, 20.0)
    return STAGE1, replace(STAGE2, scale=factor)


def first_templates(count: float) -> tuple[StageSpec, ...]:
    """Returns the stages of proactive with the first `count` pointer templates alone."""
    if count != int(count):
        raise UsageError(f"templates({count:g}); give a whole number from 1 to {N_TEMPLATES}")
    _within("templates", count, 1, N_TEMPLATES)
    return tuple(replace(spec, templates=int(count)) for spec in (STAGE1, STAGE2))


@dataclass(frozen=True)
class Knob:
    """A number that proactive can be turned by.

    Attributes:
        stages: Makes the stages of a value.
        question: What turning it answers.
        plain: The value that proactive itself has.
    """

    stages: Callable[[float], tuple[StageSpec, ...]]
    question: str
    plain: float


KNOBS = {
    "early": Knob(early, "How much of the w/o IO sources is already in stage 1?", 0.0),
    "replay": Knob(replay_share, "What share of stage 2 is general replay?", STAGE2.replay),
    "stage2": Knob(stage2_length, "How long is stage 2, as a factor?", 1.0),
    "templates": Knob(first_templates, "How many pointer templates are there?", N_TEMPLATES),
}
"""Conditions with a number: "early(0.25)" is proactive with that knob turned."""


def _within(knob: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{knob}({value:g}) is out of range; give {low:g} to {high:g}")


def knob(name: str) -> tuple[str, float] | None:
    """Returns the knob and its value of a condition with a number, None for any other name.

    >>> knob("early(0.25)"), knob("proactive")
    (('early', 0.25), None)
    """
    match = re.fullmatch(r"(\w+)\(([0-9]+(?:\.[0-9]+)?)\)", name)
    return (match[1], float(match[2])) if match and match[1] in KNOBS else None


def knob_settings(names: Iterable[str]) -> list[tuple[str, float, str]]:
    """Returns (knob, value, condition) of each condition with a number, and of proactive on each knob that was turned."""
    names = list(names)
    turned = [(*found, name) for name in names if (found := knob(name))]
    plain = [(name, KNOBS[name].plain, "proactive") for name in dict.fromkeys(found[0] for found in turned) if "proactive" in names]
    return sorted(turned + plain, key=lambda setting: (list(KNOBS).index(setting[0]), setting[1]))


@functools.cache
def condition(name: str) -> Condition:
    """Returns the condition of that name, or of a knob and its value.

    Raises:
        UsageError: There is none, or the value is out of range.
    """
    if turned := knob(name):
        kind, value = KNOBS[turned[0]], turned[1]
        return Condition(name, kind.question, "a variant of arXiv 2506.18777v2, Proactive", kind.stages(value), KNOB_MODES)
    if name not in CONDITIONS:
        raise did_you_mean("condition", name, [*CONDITIONS, *(f"{name}(number)" for name in KNOBS)])
    return CONDITIONS[name]


@dataclass(frozen=True)
class Budget:
    """How long the stages are and how each is trained; both stages of every condition get the same.

    What is the same is the number of documents; or, with `match="tokens"`, the number of supervised tokens in code and in words: a
    stage ends where the shortest of its versions in code and words would (`stages.build_stage`).
    """

    stage1: TrainSettings = field(default_factory=TrainSettings)
    stage2: TrainSettings = field(default_factory=lambda: TrainSettings(lr=1e-3))
    stage1_steps: int = 1000
    stage2_steps: int = 300
    match: str = "documents"

    def __post_init__(self) -> None:
        if self.match not in ("documents", "tokens"):
            raise did_you_mean("match", self.match, ("documents", "tokens"))
        for name in ("stage1", "stage2"):
            steps, size = getattr(self, f"{name}_steps"), getattr(self, name).batch_size
            if steps < 1 or size < 1:
                raise UsageError(f"{name} of {steps} steps of {size} documents; give at least 1 of each")

    def documents(self, spec: StageSpec) -> int:
        """Returns the number of documents of a stage."""
        both = self.stage1_documents + self.stage2_documents
        if spec.length in ("sources", "answers"):
            parts = [apportion(part, self.documents(part)) for part in spec.mix]
            sources = sum(n for part in parts for (_, kind), n in part.items() if kind in DECLARATIONS)
            return sources if spec.length == "sources" else both - sources
        return round(spec.scale * {"stage1": self.stage1_documents, "stage2": self.stage2_documents, "both": both}[spec.length])

    @property
    def stage1_documents(self) -> int:
        """Number of documents of a first stage."""
        return self.stage1_steps * self.stage1.batch_size

    @property
    def stage2_documents(self) -> int:
        """Number of documents of a second stage."""
        return self.stage2_steps * self.stage2.batch_size


def without_io_sources(spec: StageSpec, dataset: Dataset) -> tuple[Program, ...]:
    """Returns the w/o IO programs as the stage shows them: their own, or each under the next one's name in a random ring."""
    if not spec.shuffled:
        return dataset.without_io
    ring = generator(dataset.seed, "shuffled").permutation(len(dataset.without_io)).tolist()
    return tuple(dataset.without_io[i].renamed(dataset.without_io[j].name) for i, j in zip(ring, ring[1:] + ring[:1], strict=True))


def apportion(spec: StageSpec, count: int) -> dict[tuple[str, str], int]:
    """Returns the number of documents of each group and kind, in proportion to the shares and `count` in sum, by largest remainder."""
    shares = {("with_io", kind): share for kind, share in spec.with_io} | {("without_io", kind): share for kind, share in spec.without_io}
    shares |= {("replay", ""): spec.replay} if spec.replay else {}
    total = sum(shares.values())
    exact = {key: count * share / total for key, share in shares.items()}
    numbers = {key: int(value) for key, value in exact.items()}
    for key in sorted(exact, key=lambda k: numbers[k] - exact[k])[: count - sum(numbers.values())]:
        numbers[key] += 1
    return numbers
