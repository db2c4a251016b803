"""What a stage is made of, as data: shares of kinds of document, from which `stages` draws.

The protocol is that of arXiv 2506.18777: L_decl is the loss on a `source` document, L_exec that on a question with its answer; the
**w/ IO** programs get both, the **w/o IO** programs their source alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pbb_helpers.data.datasets import Dataset, generator
from pbb_helpers.data.documents import N_TEMPLATES
from pbb_helpers.programs import Program


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
        shuffled_calls: The same of the w/o IO programs that call others alone: each is given the calls of another.
        length: Which number of documents it takes: "stage1", "stage2", "both" (their sum), "sources" or "answers" (of both, see `arrange`).
        mix: Other specs whose documents it holds in place of its own.
        arrange: Which of the documents of `mix`: a name in `stages.ARRANGEMENTS`, its number, and which of the stages that it makes this
            is. The curricula hold the very same documents in another order.
        templates: How many pointer templates its documents take, the first ones.
        scale: Factor on the number of documents.
        rate: Factor on the peak learning rate.
        pairs: How many I/O pairs of each w/o IO program its questions on these go round; with none it may hold no such question.
        distribution: What the inputs of these pairs are drawn from, a name in `distributions`.
    """

    name: str
    with_io: tuple[tuple[str, float], ...] = ()
    without_io: tuple[tuple[str, float], ...] = ()
    replay: float = 0.0
    language: float = 0.0
    phrasings: int = 1
    shuffled: bool = False
    shuffled_calls: bool = False
    length: str = "stage1"
    mix: tuple[StageSpec, ...] = ()
    arrange: tuple[str, float, int] = ("together", 0.0, 0)
    templates: int = N_TEMPLATES
    scale: float = 1.0
    rate: float = 1.0
    pairs: int = 0
    distribution: str = "uniform"

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


def rearranged(arrangement: str, value: float, lengths: tuple[str, str], parts: tuple[StageSpec, StageSpec]) -> tuple[StageSpec, ...]:
    """Returns two stages that hold the documents of `parts` in another order."""
    return tuple(StageSpec(f"stage{i + 1}", mix=parts, arrange=(arrangement, value, i), length=length) for i, length in enumerate(lengths))


def without_io_sources(spec: StageSpec, dataset: Dataset) -> tuple[Program, ...]:
    """Returns the w/o IO programs as the stage shows them: their own, or each under the next one's name in a random ring."""
    if not (spec.shuffled or spec.shuffled_calls):
        return dataset.without_io
    bound = [program for program in dataset.without_io if spec.shuffled or program.calls]
    ring = generator(dataset.seed, "shuffled").permutation(len(bound)).tolist()
    moved = [bound[i].renamed(bound[j].name) for i, j in zip(ring, ring[1:] + ring[:1], strict=True)]
    if spec.shuffled:
        return tuple(moved)
    by_name = {program.name: program for program in moved}
    return tuple(by_name.get(program.name, program) for program in dataset.without_io)
