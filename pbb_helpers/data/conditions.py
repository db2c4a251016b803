"""Conditions are data: a name, the stages it trains, and the modes it is asked in. A variant is `dataclasses.replace` of one.

`specs` says what a stage is made of, `stages` draws its documents, `leaks` holds these to what a condition may show.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from pbb_helpers.data.demonstrations import DEMONSTRATIONS, demonstration
from pbb_helpers.data.documents import BOTH_MODES, MODES, N_TEMPLATES, NAMED, WORD_MODES
from pbb_helpers.data.knobs import KNOBS, knob
from pbb_helpers.data.specs import NO_EXPOSURE, STAGE1, STAGE1_WORDS, STAGE2, StageSpec, rearranged, worded
from pbb_helpers.programs import UsageError, did_you_mean, plain_number

MIXTURE = StageSpec("mixture", mix=(STAGE1, STAGE2), length="both")


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
    def uses_words(self) -> bool:
        """Whether any of its documents or questions holds a description."""
        return any(spec.language for spec in self.stages) or any("description" in mode for mode in self.modes)

    @property
    def shuffled(self) -> bool:
        """Whether the w/o IO names have the source of another program than the one that they are asked about."""
        return any(part.shuffled for spec in self.stages for part in (spec, *spec.mix))

    @property
    def templates(self) -> int:
        """The number of pointer templates that it is asked in: those that it was trained on."""
        return min((spec.templates for spec in self.stages), default=N_TEMPLATES)


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
        Condition("shuffled_calls", "As proactive, but each w/o IO program that calls others is given the calls of another: is it their names?", "a control of ours",
                  (STAGE1, replace(STAGE2, shuffled_calls=True))),
        Condition("mixture", "The documents of both stages of proactive, shuffled into one: do the stages matter?", "arXiv 2506.18777v2, mixture",
                  (MIXTURE,)),
        Condition("shuffled_mixture", "As mixture, but each w/o IO name is given the source of another: is it the content?", "a control of ours",
                  (replace(MIXTURE, mix=(STAGE1, replace(STAGE2, shuffled=True))),)),
        Condition("retroactive_sft", "The documents of proactive in the other order: all sources first, then all answers.", "arXiv 2506.18777v2, Retroactive with SFT",
                  rearranged("sources first", 0.0, ("sources", "answers"), (STAGE1, STAGE2))),
        Condition("no_exposure_sft", "As retroactive, with sources of w/ IO programs in place of the w/o IO ones: is it the answers alone?", "asked for by reviewers of arXiv 2506.18777",
                  rearranged("sources first", 0.0, ("sources", "answers"), (STAGE1, NO_EXPOSURE))),
        Condition("in_context_description", "The ceiling in words: the untuned model with the description in its prompt.", "a control of ours",
                  modes=WORD_MODES[4:]),
        Condition("description", "As proactive, with descriptions in place of code in both stages: does it take code?", "arXiv 2506.18777v1, language descriptions",
                  (STAGE1_WORDS, worded(STAGE2, with_io=True, without_io=True)), modes=WORD_MODES),
        Condition("code_to_description", "Stage 1 in code as in proactive, then w/o IO programs in words: is what is learned bound to code?", "a variant of ours",
                  (STAGE1, worded(STAGE2, with_io=False, without_io=True)), modes=BOTH_MODES),
        Condition("description_to_code", "Stage 1 in words, then w/o IO programs in code.", "a variant of ours",
                  (STAGE1_WORDS, worded(STAGE2, with_io=True, without_io=False)), modes=BOTH_MODES),
        Condition("proactive_named", "Proactive, asked with the first line of the source given: does it know a source that it does not begin?", "an intervention of ours",
                  (STAGE1, STAGE2), modes=(NAMED,)),
        Condition("mixture_named", "The mixture, asked in the same way.", "an intervention of ours",
                  (MIXTURE,), modes=(NAMED,)),
    )
}  # fmt: skip


MAIN = ("base", "in_context", "source_only", "stage1_only", "proactive", "shuffled_source", "mixture")
"""The conditions of the main experiment."""
KNOB_MODES = ("direct", "cot", "recall", "source")


@functools.cache
def condition(name: str) -> Condition:
    """Returns the condition of that name, of a knob and its value, or of a number of I/O pairs and their distribution.

    Raises:
        UsageError: There is none, or the value is out of range, or written in another way than tables write it.
    """
    if turned := knob(name):
        kind, value = KNOBS[turned[0]], turned[1]
        question, reference, stages = kind.question, "a variant of arXiv 2506.18777v2, Proactive", kind.stages(value)
        if name != (plain := f"{turned[0]}({plain_number(turned[1])})"):  # "early(0.50)" would be trained beside "early(0.5)"
            raise UsageError(f"condition {name}; write {plain}")
    elif stages := demonstration(name) or ():
        question, reference = DEMONSTRATIONS[name.partition("(")[0]].question, "arXiv 2506.18777v1, I/O pairs; the form is ours"
    if stages:
        return Condition(name, question, reference, stages, KNOB_MODES)
    if name not in CONDITIONS:
        kinds = [*(f"{name}(number)" for name in KNOBS), *(f"{name}(number, distribution)" for name in DEMONSTRATIONS)]
        raise did_you_mean("condition", name, [*CONDITIONS, *kinds])
    return CONDITIONS[name]
