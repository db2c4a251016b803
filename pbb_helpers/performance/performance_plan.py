"""The sizes of notebook 90, its parameters, and what it cannot measure here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from pbb_helpers import notebook
from pbb_helpers.analysis import reading
from pbb_helpers.data.plan import QUICK
from pbb_helpers.performance.benchmark import Missing
from pbb_helpers.performance.random_models import LARGE, SHAPES, too_large
from pbb_helpers.programs import UsageError, did_you_mean
from pbb_helpers.training.recipes import PretrainSettings
from pbb_helpers.training.train import WINDOW


@dataclass(frozen=True)
class Plan:
    """What a profile of the notebook does.

    Attributes:
        model: The shipped model that is trained and asked.
        rounds: Of every measurement.
        threads: Of torch; the first is that of the goals, the second is measured for the two main arms only.
        batch_size: Documents per step.
        steps: Of a training of the main comparison.
        large_steps: Of a training of the large model: a whole window of batches, which then pad as those of an experiment do.
        short: Steps of a training on the axes and in a stack.
        large: The shape of the large model, with random weights.
        sizes: Shapes of the models on the axis of parameters.
        programs: Numbers of programs on their axis.
        lengths: Numbers of statements on theirs.
        seeds: Numbers of trainings on theirs.
        stacked: Seeds in a stack.
        stacked_batches: Documents per step and seed in it.
        questions: Programs asked, each once per mode.
        shapes: Published models, by name in `random_models.SHAPES`, whose shapes are trained.
        backend: Of torch.compile, for the arm that compiles.
    """

    model: str
    rounds: int = 5
    threads: tuple[int, ...] = (2, 1)
    batch_size: int = 64
    steps: int = 12
    large_steps: int = WINDOW
    short: int = 4
    large: PretrainSettings = PretrainSettings(name="10M", hidden=320, layers=7, intermediate=960)
    sizes: tuple[PretrainSettings, ...] = (
        PretrainSettings(name="0.5M", hidden=64, layers=4, intermediate=192),
        PretrainSettings(name="2M", hidden=128, layers=6, intermediate=384),
        PretrainSettings(name="10M", hidden=320, layers=7, intermediate=960),
    )
    programs: tuple[int, ...] = (50, 100, 200)
    lengths: tuple[int, ...] = (1, 2, 3)
    seeds: tuple[int, ...] = (1, 2, 4)
    stacked: int = 8
    stacked_batches: tuple[int, ...] = (64, 4)
    questions: int = 320
    shapes: tuple[str, ...] = ()
    backend: str = "inductor"

    def facts(self) -> pd.DataFrame:
        """Returns the plan as a table of two columns."""
        facts = {
            "model": self.model, "rounds, each arm once in each, in turn forwards and backwards": self.rounds,
            "threads of torch in every arm": ", ".join(map(str, self.threads)),
            "arithmetic of training": f"{dtype_name(_device())} on {_device()}",
            "main comparison": f"{self.steps} steps of {self.batch_size} documents of stage 1 of 01_proactive, LoRA of rank 64",
            "large model": f"{self.large.name}: hidden {self.large.hidden}, {self.large.layers} layers, random weights; {self.large_steps} steps", "questions": f"{self.questions} programs, source in the prompt, 3 modes",
            "compilation": f"torch.compile, backend {self.backend}" + (" (traced only, nothing is compiled)" if self.backend == "eager" else ""),
            "shapes of published models": ", ".join(self.shapes) or "none",
            "missing here": "; ".join(f"{m.name}: {m.why}" for m in missing(self)) or "nothing",
        }  # fmt: skip
        return reading.facts(facts)


_TINY = PretrainSettings(name="tiny", hidden=32, layers=1, intermediate=64)
PLANS: dict[str, dict[str, Any]] = {
    "smoke": {"rounds": 2, "threads": (1,), "batch_size": 8, "steps": 2, "large_steps": 1, "short": 1, "large": _TINY, "sizes": (_TINY, replace(_TINY, name="less tiny", layers=2)),
              "programs": (8, 16), "lengths": (1, 2), "seeds": (1, 2), "questions": 4,
              "stacked": 2, "stacked_batches": (8, 4), "backend": "eager"},
    "quick": {},
    "full": {"rounds": 9, "steps": 60, "large_steps": 3 * WINDOW, "short": 10, "programs": (100, 400, 1000), "seeds": (1, 2, 4, 8), "questions": 512,
             "sizes": (*Plan.sizes, PretrainSettings(name="25M", hidden=512, layers=8, intermediate=1536))},
}  # fmt: skip


def plan(values: Mapping[str, Any]) -> Plan:
    """Returns what the parameters of the notebook ask for; `values` is its `globals()`.

    Raises:
        UsageError: A parameter is not valid.
    """
    from pbb_helpers.training.model_files import find

    kinds = {"rounds": int | None, "threads": list[int] | None, "steps": int | None, "stacked": int | None, "shapes": list[str] | None}
    given = notebook.parameters({"profile": tuple(PLANS), "model": str} | kinds, values)
    find(given.model)
    changes = {name: value for name in kinds if (value := getattr(given, name)) is not None}
    changes |= {name: tuple(value) for name, value in changes.items() if isinstance(value, list)}
    return plan_of(given.model, given.profile, **changes)


def plan_of(model: str, profile: str, **changes: Any) -> Plan:
    """Returns the plan of a profile with some values changed; on a GPU `quick` and `full` have more seeds in a stack, and the shapes of `LARGE`.

    Raises:
        UsageError: A value is not valid.
    """
    on_gpu: dict[str, Any] = {"stacked": 16, "shapes": LARGE} if _device().type == "cuda" and profile != "smoke" else {}
    plan = Plan(model, **on_gpu | PLANS[profile] | changes)
    for name in plan.shapes:
        if name not in SHAPES:
            raise did_you_mean("shape", name, SHAPES)
    each_once = all(len(set(given)) == len(given) for given in (plan.threads, plan.shapes))
    if not plan.threads or min(plan.rounds, plan.steps, plan.stacked - 1, *plan.threads) < 1 or not each_once:
        raise UsageError(f"rounds={plan.rounds}, steps={plan.steps}, stacked={plan.stacked}, threads={list(plan.threads)}, "
                         f"shapes={list(plan.shapes)}; give whole numbers from 1, stacked from 2, threads and shapes each once")  # fmt: skip
    return plan


def missing(plan: Plan) -> list[Missing]:
    """Returns what is not measured here, and why: models by their suite, arms by name."""
    from pbb_helpers.performance import peers

    asked = {name: too_large(name) for name in plan.shapes}
    not_asked = "not among the shapes of this run, by default both on a GPU and none on a CPU"
    found = [Missing(suite_of(name), why) for name in LARGE if (why := asked.get(name, not_asked))]
    found += [Missing(f"{n} seeds stacked", f"stacked is {plan.stacked} in this run") for n in (8, 16) if n != plan.stacked]
    if not peers.trl_installed():
        found += [Missing(name, "not installed: pip install -e '.[trl]'") for name in ("TRL tuned", "TRL as it comes")]
    return found


def suite_of(shape: str) -> str:
    """Returns the name of the suite in which one of `random_models.SHAPES` is measured."""
    return f"shape {shape}"


def _device() -> torch.device:
    """Returns where `models.load` puts a model."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_name(device: torch.device) -> str:
    """Returns the dtype that trainings of our own models compute in on a device."""
    from pbb_helpers.training.train import resolve_dtype

    return str(resolve_dtype(QUICK.budget.stage1.dtype, device)).removeprefix("torch.")
