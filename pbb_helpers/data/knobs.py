"""Numbers that proactive can be turned by: "early(0.25)" is a condition too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pbb_helpers.data.documents import N_TEMPLATES
from pbb_helpers.data.specs import STAGE1, STAGE2, StageSpec, rearranged
from pbb_helpers.programs import UsageError


def early(share: float) -> tuple[StageSpec, ...]:
    """Returns the stages of proactive with a share of the w/o IO sources moved to stage 1, in exchange for as many of its documents."""
    _within("early", share, 0.0, 1.0)
    return rearranged("early", share, ("stage1", "stage2"), (STAGE1, STAGE2))


def replay_share(share: float) -> tuple[StageSpec, ...]:
    """Returns the stages of proactive with another share of general replay (programs run from a source in the prompt) in stage 2, its other documents, answers of w/ IO programs among them, in their proportion."""
    _within("replay", share, 0.0, 0.9)
    rest = sum(part for _, part in (*STAGE2.with_io, *STAGE2.without_io))
    return STAGE1, replace(STAGE2, replay=share / (1 - share) * rest)


def stage2_length(factor: float) -> tuple[StageSpec, ...]:
    """Returns the stages of proactive with a stage 2 of `factor` times the documents."""
    _within("stage2", factor, 0.05, 20.0)
    return STAGE1, replace(STAGE2, scale=factor)


def stage2_rate(factor: float) -> tuple[StageSpec, ...]:
    """Returns the stages of proactive with `factor` times the peak learning rate in stage 2."""
    _within("rate2", factor, 0.05, 20.0)
    return STAGE1, replace(STAGE2, rate=factor)


def first_templates(count: float) -> tuple[StageSpec, ...]:
    """Returns the stages of proactive with the first `count` pointer templates alone."""
    _within("templates", count, 1, N_TEMPLATES)
    if count != int(count):
        raise UsageError(f"templates({count:g}); give a whole number from 1 to {N_TEMPLATES}")
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
    "rate2": Knob(stage2_rate, "How high is the learning rate of stage 2, as a factor?", 1.0),
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
