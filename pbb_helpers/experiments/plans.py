"""What each notebook makes of its parameters, so that a command refuses what the notebook would refuse before a kernel or a job is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pbb_helpers.training.model_files import is_hub_id

Values = Mapping[str, Any]


def _pretraining(values: Values) -> None:
    from pbb_helpers.experiments import pretraining

    pretraining.plan(values)


def _proactive(values: Values) -> None:
    from pbb_helpers.experiments import profiles

    profiles.experiment(values)


def _representations(values: Values) -> None:
    from pbb_helpers.experiments import profiles

    profiles.representations(values)


def _forward(values: Values) -> None:
    from pbb_helpers.experiments import profiles

    profiles.experiment(values, profiles.FORWARD_PROFILES)
    profiles.repeated(values)


def _scaling(values: Values) -> None:
    from pbb_helpers.experiments import scaling

    scaling.plan(values)


def _composition(values: Values) -> None:
    from pbb_helpers.experiments import composition_plan

    composition_plan.plan(values)


def _robustness(values: Values) -> None:
    from pbb_helpers.experiments import demonstration_plan

    demonstration_plan.skewed_distribution(*demonstration_plan.robustness_plan(values))


def _efficiency(values: Values) -> None:
    from pbb_helpers.experiments import demonstration_plan

    demonstration_plan.efficiency_plan(values)


def _curricula(values: Values) -> None:
    from pbb_helpers.experiments import profiles

    profiles.experiment(values, profiles.CURRICULA_PROFILES)
    profiles.sizes(values)


def _performance(values: Values) -> None:
    from pbb_helpers.performance import performance

    performance.plan(values)


PLANS: dict[str, Callable[[Values], None]] = {
    "00_pretrain": _pretraining,
    "01_proactive": _proactive,
    "02_code_vs_language": _representations,
    "03_forward_pass_vs_cot": _forward,
    "04_scaling": _scaling,
    "05_composition": _composition,
    "06_io_distribution": _robustness,
    "07_sample_efficiency": _efficiency,
    "08_curricula": _curricula,
    "90_performance": _performance,
}
"""Notebook → what its first cell does with its parameters. They are imported when they are asked for: a command line is quick."""


def check(notebook: str, values: Values) -> None:
    """Refuses parameters that the notebook of this name would refuse; any other notebook knows by itself.

    A model on the hub is left to the notebook: whether it exists is not asked for every point of a sweep.

    Raises:
        UsageError: A parameter is not valid.
    """
    models = [values.get("model"), *(values.get("models") or ()), *(values.get("sizes") or ()), *(values.get("crossed") or ())]
    if notebook in PLANS and not any(is_hub_id(name) for name in models if isinstance(name, str)):
        PLANS[notebook](values)
