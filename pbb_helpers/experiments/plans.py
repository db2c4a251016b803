"""What each notebook makes of its parameters, so that a command refuses what the notebook would refuse before a kernel or a job is started."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pbb_helpers.training.model_files import is_hub_id

PLANS = {
    "00_pretrain": "experiments.pretraining:plan",
    "01_proactive": "experiments.profiles:experiment",
    "02_code_vs_language": "experiments.profiles:representations",
    "03_forward_pass_vs_cot": "experiments.profiles:forward",
    "04_scaling": "experiments.scaling:plan",
    "05_composition": "experiments.composition_plan:plan",
    "06_io_distribution": "experiments.demonstration_plan:robustness_plan",
    "07_sample_efficiency": "experiments.demonstration_plan:efficiency_plan",
    "08_curricula": "experiments.profiles:curricula",
    "90_performance": "performance.performance:plan",
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
        module, function = PLANS[notebook].split(":")
        getattr(importlib.import_module(f"pbb_helpers.{module}"), function)(values)
