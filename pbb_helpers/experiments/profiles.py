"""The sizes that notebooks come in, and the parameters that change them: smoke (seconds), quick (minutes), full (hours on a CPU)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from pbb_helpers.analysis import reading
from pbb_helpers.analysis.labels import label
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.compositions import KINDS
from pbb_helpers.data.conditions import CONDITIONS, condition
from pbb_helpers.data.demonstrations import demonstration, require_room
from pbb_helpers.data.knobs import knob
from pbb_helpers.data.plan import QUICK, Experiment, small
from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.data.specs import STAGE1, STAGE2, StageSpec
from pbb_helpers.families import FAMILIES
from pbb_helpers.notebook import parameters
from pbb_helpers.programs import UsageError, did_you_mean
from pbb_helpers.training.model_files import find

FULL = Experiment(
    family_settings=(("max_statements", 3),),
    seeds=(0, 1, 2, 3, 4),
    n_with_io=1000,
    n_without_io=200,
    n_with_io_asked=200,
    budget=Budget(stage1_steps=2400, stage2_steps=800),
)
PROFILES = {"smoke": small(replace(QUICK, seeds=(0,))), "quick": QUICK, "full": FULL}
GIVEN = ("proactive_named", "mixture_named")
CURRICULA = ("in_context", "proactive", "mixture", "retroactive_sft", "early(0.75)", "replay(0)", "stage2(2)", "rate2(2)", *GIVEN)
ALL_CURRICULA = (
    *CURRICULA[:3], "shuffled_mixture", "retroactive_sft", "no_exposure_sft", "source_only", "early(0.25)", "early(0.5)", "early(0.75)", "early(1)", "replay(0)",
    "replay(0.3)", "stage2(0.5)", "stage2(2)", "rate2(0.5)", "rate2(2)", "templates(1)", "templates(5)", *GIVEN,
)  # fmt: skip
CURRICULA_PROFILES = {
    "smoke": replace(PROFILES["smoke"], conditions=CURRICULA),
    "quick": replace(QUICK, conditions=CURRICULA, seeds=FULL.seeds),
    "full": replace(FULL, conditions=ALL_CURRICULA),
}
SIZES = ("in_context", "proactive", "mixture", *GIVEN)
SIZES_PROFILES = {
    "smoke": replace(PROFILES["smoke"], conditions=SIZES),
    "quick": replace(QUICK, conditions=SIZES, seeds=FULL.seeds),
    "full": replace(FULL, conditions=(*SIZES, "retroactive_sft", "early(0.75)")),
}
SIZES_MODELS = {"smoke": ("pbb-xs",), "quick": ("pbb-s",), "full": ("pbb-xs", "pbb-s", "pbb-m")}
"""One recipe in several sizes: whether what the order does to the notebook's own model holds for others."""
FORWARD = ("base", "in_context", "answers_only", "stage1_only", "shuffled_source", "proactive", "mixture")
FORWARD_PROFILES = {
    "smoke": replace(PROFILES["smoke"], conditions=FORWARD),
    "quick": replace(QUICK, conditions=FORWARD),
    "full": replace(FULL, conditions=FORWARD),
}
REPEATED = ("in_context", "proactive", "mixture")
REPEATED_PROFILES = {name: replace(base, conditions=REPEATED) for name, base in PROFILES.items()}
REPEATED_MODELS = {name: ("pbb-once", "pbb-twice") for name in PROFILES}
"""One architecture with the same parameters, pretrained on the same documents; the second runs its layers twice."""
REPRESENTATIONS = ("in_context", "in_context_description", "proactive", "description")
REPRESENTATION_PROFILES = {
    "smoke": replace(PROFILES["smoke"], conditions=REPRESENTATIONS),
    "quick": replace(QUICK, conditions=REPRESENTATIONS, seeds=FULL.seeds),
    "full": replace(FULL, conditions=(*REPRESENTATIONS, "stage1_only")),
}
REPRESENTATION_MODELS = {
    "smoke": ("pbb-m", "pbb-m-code"),
    "quick": ("pbb-m-code", "pbb-m", "pbb-m-words"),
    "full": ("pbb-m-code", "pbb-m", "pbb-m-words"),
}
WORDS_SIZES_PROFILES = {
    "smoke": REPRESENTATION_PROFILES["smoke"],
    "quick": replace(QUICK, conditions=REPRESENTATIONS, seeds=(0, 1, 2)),
    "full": replace(FULL, conditions=REPRESENTATIONS),
}
WORDS_SIZES_MODELS = {"smoke": ("pbb-xs",), "quick": ("pbb-xs", "pbb-s", "pbb-m"), "full": ("pbb-xs", "pbb-s", "pbb-m")}
"""One recipe, code and words 1:1; pbb-m, which is among `REPRESENTATION_MODELS` too, is not trained again for it."""
CROSSED = (*REPRESENTATIONS, "code_to_description", "description_to_code")
CROSSED_PROFILES = {
    "smoke": replace(PROFILES["smoke"], conditions=CROSSED),
    "quick": replace(QUICK, conditions=CROSSED, seeds=FULL.seeds),
    "full": replace(FULL, conditions=CROSSED),
}
CROSSED_MODELS = {name: ("pbb-m",) for name in PROFILES}
FULL_FINETUNING_LR = 1e-3
"""Without adapters the same model takes half the rate (at 2e-3 it forgets what it could)."""
LLM_LR = 2e-4
"""Adapters on a pretrained LLM take a tenth of the rate that suits the models that we make (those with a card)."""
LLM_FULL_FINETUNING_LR = 2e-5
"""All weights of a pretrained LLM take a tenth of what its adapters do."""


class Parameters(BaseModel):
    """The parameters of an experiment notebook; None takes the profile's value."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    profile: str
    model: str
    family: str | None = None
    conditions: list[str] | None = None
    seeds: list[int] | None = None
    n_with_io: int | None = None
    n_without_io: int | None = None
    min_statements: int | None = None
    max_statements: int | None = None
    stage1_steps: int | None = None
    stage2_steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    method: str | None = None
    rank: int | None = None
    processes: int | None = None
    trust_remote_code: bool = False


def experiment(values: Mapping[str, Any], profiles: Mapping[str, Experiment] = PROFILES) -> Experiment:
    """Returns the experiment that the parameters of a notebook ask for; `values` is its `globals()`.

    Raises:
        UsageError: A parameter is not valid; or there is no such profile, model or condition.
    """
    given = parameters(Parameters, values)
    if given.profile not in profiles:
        raise did_you_mean("profile", given.profile, profiles)
    made_here = (find(given.model, trust_remote_code=given.trust_remote_code)[0] / "card.json").is_file()
    for name in given.conditions or ():
        condition(name)
    if given.processes is not None and given.processes < 1:
        raise UsageError(f"processes {given.processes}; give at least 1")
    base = profiles[given.profile]
    budget = base.budget
    if given.conditions and not any(condition(name).stages for name in given.conditions):
        raise UsageError(f"conditions {', '.join(given.conditions)} train nothing; add one that does, for example proactive")
    if "shuffled_calls" in (given.conditions or ()) and not base.n_composed_without_io:
        raise UsageError(
            "condition shuffled_calls is proactive itself where no program calls another; leave it out, or take notebook 05, where some do"
        )
    if given.rank is not None and given.method == "full":
        raise UsageError(f"rank {given.rank} with method full, which has no adapters; leave one of them out")
    full = given.method == "full"
    default = (FULL_FINETUNING_LR if full else None) if made_here else LLM_FULL_FINETUNING_LR if full else LLM_LR
    stage1 = _changed(
        budget.stage1,
        batch_size=given.batch_size,
        method=given.method,
        rank=given.rank,
        # The scale of the adapters, alpha / rank, stays: else a change of rank would be one of the learning rate too.
        alpha=None if given.rank is None else given.rank * budget.stage1.alpha // budget.stage1.rank,
        lr=given.lr if given.lr is not None else default,
    )
    # The second stage keeps its proportion to the first.
    stage2 = _changed(stage1, lr=stage1.lr * budget.stage2.lr / budget.stage1.lr)
    budget = _changed(replace(budget, stage1=stage1, stage2=stage2), stage1_steps=given.stage1_steps, stage2_steps=given.stage2_steps)
    statements = {k: v for k, v in (("min_statements", given.min_statements), ("max_statements", given.max_statements)) if v is not None}
    n_without_io = given.n_without_io
    plan = _changed(
        base, model=given.model, family=given.family, budget=budget, n_with_io=given.n_with_io, n_without_io=n_without_io, n_with_io_asked=n_without_io,
        conditions=tuple(sorted(given.conditions, key=_place)) if given.conditions is not None else None,
        seeds=tuple(given.seeds) if given.seeds is not None else None, trust_remote_code=given.trust_remote_code,
        family_settings=tuple(({**dict(base.family_settings), **statements}).items()) or None,
    )  # fmt: skip
    for name in plan.conditions:  # of the plan as it will be run: its base may have had room for less
        require_room(name, condition(name).stages, plan.budget, plan.n_without_io + len(KINDS) * plan.n_composed_without_io)
    return plan


def proactive(values: Mapping[str, Any]) -> Experiment:
    """Returns the experiment of notebook 01, whose figures compare what is recalled with what is run.

    Raises:
        UsageError: A parameter is not valid.
    """
    plan = experiment(values)
    require_source(plan)
    return plan


class SeveralModels(BaseModel):
    """What a notebook on several models has in place of `model`, and how their stages are matched."""

    model_config = ConfigDict(strict=True)

    models: list[str] | None = None
    match: str = "documents"


def require(plan: Experiment, *names: str) -> None:
    """Refuses, before anything is trained, a plan without the conditions that its notebook compares.

    Raises:
        UsageError: One of `names` is missing.
    """
    if missing := [name for name in names if name not in plan.conditions]:
        raise UsageError(
            f"conditions {', '.join(plan.conditions)}; this notebook compares {' with '.join(names)}: add {' and '.join(missing)}"
        )


def require_source(plan: Experiment) -> None:
    """Refuses, before anything is trained, a plan none of whose conditions is asked for the source of a program.

    Raises:
        UsageError: There is none.
    """
    if not any(condition(name).stages and "source" in condition(name).modes for name in plan.conditions):
        raise UsageError(
            f"conditions {', '.join(plan.conditions)}: none of them is asked for its programs' source, which this notebook compares with "
            "their execution; add one that is, for example proactive"
        )


def experiments(
    values: Mapping[str, Any], profiles: Mapping[str, Experiment], models: Mapping[str, tuple[str, ...]]
) -> tuple[Experiment, tuple[str, ...]]:
    """Returns the experiment that a notebook on several models asks for, on the first of them, and the models.

    Raises:
        UsageError: A parameter is not valid, or the models cannot share one learning rate since only some of them are ours.
    """
    given = parameters(SeveralModels, values)
    profile = str(values.get("profile"))
    if profile not in profiles:
        raise did_you_mean("profile", profile, profiles)
    names = tuple(given.models if given.models is not None else models[profile])
    if not names or len(set(names)) < len(names):
        raise UsageError(f"models {list(names)}; give at least one, each once")
    plans = [experiment({**values, "model": name}, profiles) for name in names]
    if len({plan.budget for plan in plans}) > 1:
        raise UsageError(f"models {', '.join(names)} are partly ours and partly not, and would be trained at different rates; give lr")
    return replace(plans[0], budget=replace(plans[0].budget, match=given.match)), names


def beside(
    values: Mapping[str, Any], parameter: str, profiles: Mapping[str, Experiment], models: Mapping[str, tuple[str, ...]]
) -> tuple[Experiment | None, tuple[str, ...]]:
    """Returns the experiment that a notebook runs on further models, beside its own, and those models; none where `parameter` is an empty list.

    It has the sizes that the notebook's own experiment is given, the conditions of `profiles`, and no other model than those.

    Raises:
        UsageError: A parameter is not valid.
    """
    names = getattr(parameters({parameter: list[str] | None}, values), parameter)
    if names == []:
        return None, ()
    return experiments({**values, "conditions": None, "models": names}, profiles, models)


def representations(values: Mapping[str, Any]) -> list[tuple[Experiment | None, tuple[str, ...]]]:
    """Returns experiment and models of the three parts of notebook 02: code against words, the same in other sizes, and crossed.

    Raises:
        UsageError: A parameter is not valid.
    """
    plan, names = experiments(values, REPRESENTATION_PROFILES, REPRESENTATION_MODELS)
    require(plan, "proactive", "description")
    sizes = beside(values, "sizes", WORDS_SIZES_PROFILES, WORDS_SIZES_MODELS)
    return [(plan, names), sizes, beside(values, "crossed", CROSSED_PROFILES, CROSSED_MODELS)]


def forward(values: Mapping[str, Any]) -> list[tuple[Experiment | None, tuple[str, ...]]]:
    """Returns experiment and models of the two parts of notebook 03: its own, and `beside` on models that differ in how often their layers run."""
    plan = experiment(values, FORWARD_PROFILES)
    return [(plan, (plan.model,)), beside(values, "repeated", REPEATED_PROFILES, REPEATED_MODELS)]


def curricula(values: Mapping[str, Any]) -> list[tuple[Experiment | None, tuple[str, ...]]]:
    """Returns experiment and models of the two parts of notebook 08: its own, and `beside` on models of other sizes."""
    plan = experiment(values, CURRICULA_PROFILES)
    require_source(plan)
    return [(plan, (plan.model,)), beside(values, "sizes", SIZES_PROFILES, SIZES_MODELS)]


def _place(name: str) -> tuple[int, str, float]:
    """Returns where a condition stands in a table: in the order of the registry, then the knobs by value, then I/O pairs by their number."""
    turned = knob(name)
    if stages := demonstration(name):
        return len(CONDITIONS) + 1, f"{name.partition('(')[0]} {stages[-1].distribution}", stages[-1].pairs
    return (len(CONDITIONS), *turned) if turned else (list(CONDITIONS).index(name), "", 0.0)


def _changed(thing: Any, **changes: Any) -> Any:
    """Returns `thing` with the changes that are not None."""
    return replace(thing, **{name: value for name, value in changes.items() if value is not None})


def facts(experiment: Experiment, models: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what a reader must know of an experiment's size, in words and numbers; `models` where it is run on several."""
    budget = experiment.budget
    texts = FAMILIES[experiment.family].takes == "text"
    held_out = f"{experiment.n_eval_inputs} texts, at every shift" if texts else experiment.n_eval_inputs
    return (
        {
            "model": (", ".join(models) or experiment.model) + (", its own Python code is run" if experiment.trust_remote_code else ""),
            "family": experiment.family + "".join(f", {name} {value}" for name, value in experiment.family_settings),
            "conditions": ", ".join(experiment.conditions),
            "seeds (each draws programs, inputs, documents, initial weights)": ", ".join(map(str, experiment.seeds)),
            "programs w/ IO and w/o IO, per seed": f"{experiment.n_with_io} and {experiment.n_without_io}",
            "inputs held out of all training": held_out,
            "questions per program and mode": experiment.inputs_per_program,
            "stage 1": f"{budget.stage1_steps} steps of {budget.stage1.batch_size} documents, {_method(budget.stage1)}",
            "stage 2": f"{budget.stage2_steps} steps of {budget.stage2.batch_size} documents, {_method(budget.stage2)}",
            "documents of stage 1": _mix(STAGE1),
            "documents of stage 2": _mix(STAGE2),
            "mixture": "the documents of both stages, trained at the rate of stage 1",
        }
        | (
            {"in words": f"the same programs, inputs and shares, the description for the source, as many {budget.match} per stage"}
            if any("description" in name for name in experiment.conditions)
            else {}
        )
        | (
            {"I/O pairs of w/o IO programs": f"input and output alone, direct answers; as many {budget.match} as proactive has"}
            if any(map(demonstration, experiment.conditions))
            else {}
        )
    )


def table(experiment: Experiment, models: Sequence[str] = ()) -> pd.DataFrame:
    """Returns the same as a table of two columns."""
    return reading.facts(facts(experiment, models))


def _mix(spec: StageSpec) -> str:
    parts = [(share, f"{label(group)} {kind}") for group in ("without_io", "with_io") for kind, share in getattr(spec, group)]
    parts += [(spec.replay, "general replay, other programs run from a source in the prompt")]
    return ", ".join(f"{100 * share / sum(s for s, _ in parts):.0f} % {what}" for share, what in parts)


def _method(settings: TrainSettings) -> str:
    how = f"LoRA of rank {settings.rank}" if settings.method == "lora" else "full finetuning"
    names = " and the names' embeddings" if settings.train_names and settings.method == "lora" else ""
    return f"{how}{names}, learning rate {settings.lr:g}, {settings.decay} decay"
