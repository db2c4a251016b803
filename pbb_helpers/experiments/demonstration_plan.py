"""The sizes of notebooks 06 and 07, on source against I/O pairs, and their own parameters beside those of every experiment notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pbb_helpers.data.budget import Budget
from pbb_helpers.data.conditions import condition
from pbb_helpers.data.distributions import Distribution, distribution, plain_name, value
from pbb_helpers.data.plan import Experiment, small
from pbb_helpers.experiments import profiles
from pbb_helpers.notebook import parameters
from pbb_helpers.programs import UsageError, did_you_mean, family

SKEWED = {"ciphers": "natural", "arithmetic": "zipf"}
"""The skewed distribution over the inputs of each family."""
QUICK = {
    "ciphers": Experiment(
        model="pbb-ciphers",
        family="ciphers",
        family_settings=(("shifted", True),),  # of a cipher that does not hang on the shift nothing is learned about shifts
        seeds=(0, 1, 2),
        n_with_io=300,
        n_without_io=40,
        n_with_io_asked=20,
        n_eval_inputs=8,
        inputs_per_program=10,
        budget=Budget(stage1_steps=400, stage2_steps=160),
    ),
    "arithmetic": Experiment(
        seeds=(0, 1, 2),
        n_with_io=300,
        n_without_io=40,
        n_with_io_asked=20,
        n_eval_inputs=15,
        inputs_per_program=10,
        budget=Budget(stage1_steps=400, stage2_steps=160),
    ),
}
FULL = {
    name: replace(
        quick,
        family_settings=(*quick.family_settings, ("max_statements", 3)),
        seeds=(0, 1, 2, 3, 4),
        n_with_io=1000,
        n_without_io=100,
        n_with_io_asked=50,
        budget=Budget(stage1_steps=2400, stage2_steps=1600),
    )
    for name, quick in QUICK.items()
}
SMOKE = {
    name: replace(small(replace(quick, model="pbb-small", seeds=(0,))), inputs_per_program=4 if name == "arithmetic" else 5)
    for name, quick in QUICK.items()
}
PROFILES = {"smoke": SMOKE, "quick": QUICK, "full": FULL}
PAIRS = {
    ("smoke", "ciphers"): 2,
    ("smoke", "arithmetic"): 2,
    ("quick", "ciphers"): 64,
    ("quick", "arithmetic"): 8,
    ("full", "ciphers"): 256,
    ("full", "arithmetic"): 8,
}
"""I/O pairs of each w/o IO program in notebook 06. Of ciphers half of what stage 2 has room for, which source and pairs side by side fill; of numbers, with
35 inputs to train on, so few that a skewed and an even draw are not nearly the same pairs."""
ASKED = {("smoke", "ciphers"): 5, ("quick", "ciphers"): 25, ("full", "ciphers"): 25}
"""Questions on each program in notebook 06 where they are not those of the profile: each cipher at every shift, but in smoke."""
CURVE = {
    ("smoke", "ciphers"): (1, 2, 4),
    ("smoke", "arithmetic"): (1, 2, 4),
    ("quick", "ciphers"): (1, 8, 32, 128),
    ("quick", "arithmetic"): (1, 4, 8, 32),  # there are 35 inputs to train on
    ("full", "ciphers"): (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    ("full", "arithmetic"): (1, 2, 4, 8, 16, 32, 64),
}
"""Numbers of I/O pairs along the axis of notebook 07."""


class Arms(NamedTuple):
    """The conditions with I/O pairs of notebook 06: of the skewed distribution, of the even one, and of the skewed one beside the source."""

    skewed: str
    even: str
    both: str


def robustness_plan(values: Mapping[str, Any]) -> tuple[Experiment, Arms]:
    """Returns the experiment that the parameters of notebook 06 ask for, and the names of its arms; `values` is its `globals()`.

    Raises:
        UsageError: A parameter is not valid.
    """
    profile, kind = _profile(values)
    own = parameters({"pairs": int | None, "distribution": str | None}, values)
    pairs = PAIRS[profile, kind] if own.pairs is None else own.pairs
    skewed = plain_name(SKEWED[kind] if own.distribution is None else own.distribution)
    if skewed == "uniform":
        raise UsageError(
            f"distribution {own.distribution} is the even one, against which a skewed one is held; give natural, natural(0.5), zipf or zipf(2)"
        )
    arms = Arms(f"io_only({pairs}, {skewed})", f"io_only({pairs}, uniform)", f"source_and_io({pairs}, {skewed})")
    base = PROFILES[profile][kind]
    base = replace(base, inputs_per_program=ASKED.get((profile, kind), base.inputs_per_program))
    return _experiment(values, base, ("in_context", "proactive", *arms)), arms


def efficiency_plan(values: Mapping[str, Any]) -> tuple[Experiment, tuple[int, ...]]:
    """Returns the experiment that the parameters of notebook 07 ask for, and its numbers of I/O pairs in order; `values` is its `globals()`.

    Raises:
        UsageError: A parameter is not valid.
    """
    profile, kind = _profile(values)
    own = parameters({"pairs": list[int] | None}, values)
    counts = tuple(sorted(CURVE[profile, kind] if own.pairs is None else own.pairs))
    if len(set(counts)) < max(2, len(counts)):
        raise UsageError(f"pairs {list(counts)}; give at least two numbers of I/O pairs, each once")
    arms = (*(f"io_only({k}, uniform)" for k in counts), f"io_alone({counts[-1]}, uniform)")
    return _experiment(values, PROFILES[profile][kind], ("in_context", "proactive", "source_only", *arms)), counts


def skewed_distribution(plan: Experiment, arms: Arms) -> Distribution:
    """Returns the distribution of the skewed arms over the values of all inputs."""
    inputs = family(plan.family, **dict(plan.family_settings)).inputs()
    return distribution(condition(arms.skewed).stages[-1].distribution, map(value, inputs))


def _profile(values: Mapping[str, Any]) -> tuple[str, str]:
    given = parameters({"profile": str, "family": str}, values)
    for name, got, valid in (("profile", given.profile, PROFILES), ("family", given.family, SKEWED)):
        if got not in valid:
            raise did_you_mean(name, got, valid)
    return given.profile, given.family


def _experiment(values: Mapping[str, Any], base: Experiment, arms: Sequence[str]) -> Experiment:
    texts = {"texts": str | None, "min_letters": int | None, "max_letters": int | None, "n_texts": int | None}
    sizes = {"n_eval_inputs": int | None, "inputs_per_program": int | None}
    given = parameters({"model": str | None, "match": str} | texts | sizes, values)
    named = {name: number for name in sizes if (number := getattr(given, name)) is not None}
    settings = {name: setting for name in texts if (setting := getattr(given, name)) is not None}
    base = replace(base, conditions=tuple(arms), budget=replace(base.budget, match=given.match),
                   family_settings=(*base.family_settings, *settings.items()), **named)  # fmt: skip
    plan = profiles.experiment(
        {**values, "conditions": None, "model": given.model if given.model is not None else base.model}, {values["profile"]: base}
    )
    # `n_without_io` sets the number of demonstrated programs that are asked too; these notebooks ask fewer.
    return replace(plan, n_with_io_asked=base.n_with_io_asked)
