"""What each notebook makes of its parameters, so that a command refuses what the notebook would refuse before a kernel or a job is started."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pbb_helpers.programs import UsageError
from pbb_helpers.training.model_files import is_hub_id

if TYPE_CHECKING:
    from pbb_helpers.data.plan import Experiment

PLANS = {
    "00_pretrain": "experiments.pretraining:plan",
    "01_proactive": "experiments.profiles:proactive",
    "02_code_vs_language": "experiments.profiles:representations",
    "03_forward_pass_vs_cot": "experiments.profiles:forward",
    "04_scaling": "experiments.scaling:plan",
    "05_composition": "experiments.composition_plan:plan",
    "06_io_distribution": "experiments.demonstration_plan:robustness_plan",
    "07_sample_efficiency": "experiments.demonstration_plan:efficiency_plan",
    "08_curricula": "experiments.profiles:curricula",
    "90_performance": "performance.performance_plan:plan",
}
"""Notebook → the function that its first cell calls with its parameters, imported when it is asked for: a command line is quick."""


def check(notebook: str, values: Mapping[str, Any]) -> None:
    """Refuses parameters that the notebook of this name would refuse; any other notebook knows by itself.

    A model on the hub is left to the notebook: whether it exists is not asked for every point of a sweep.

    Raises:
        UsageError: A parameter is not valid.
    """
    models = [values.get("model"), *(name for several in ("models", "sizes", "crossed", "repeated") for name in values.get(several) or ())]
    if notebook in PLANS and not any(is_hub_id(name) for name in models if isinstance(name, str)):
        _plan(notebook, values)


def _plan(notebook: str, values: Mapping[str, Any]) -> Any:
    module, function = PLANS[notebook].split(":")
    return getattr(importlib.import_module(f"pbb_helpers.{module}"), function)(values)


def experiments(notebook: str, values: Mapping[str, Any]) -> list[dict[str, Experiment]]:
    """Returns what a notebook trains and asks with these parameters: experiments by name, a model's or a number's, those of a dict at the same time.

    Raises:
        UsageError: A parameter is not valid, or the notebook is none of those that run experiments.
    """
    from pbb_helpers.data.plan import Experiment
    from pbb_helpers.experiments.scaling import Scaling

    planned = _plan(notebook, values) if notebook in PLANS else None
    match planned:
        case Experiment() | (Experiment(), tuple()):
            only = planned if isinstance(planned, Experiment) else planned[0]
            return [{only.model: only}]
        case Scaling(sizes, models, by_number):
            by_model = {model: replace(sizes, model=model) for model in models}
            return [pool for pool in (by_model, {f"{number:,} w/ IO programs": one for number, one in by_number.items()}) if pool]
        case list(parts):
            return [{model: replace(plan, model=model) for model in models} for plan, models in parts if plan]
    those = ", ".join(name for name in PLANS if name not in ("00_pretrain", "90_performance"))
    raise UsageError(f"notebook {notebook} is none whose experiments are known here; those are {those}")
