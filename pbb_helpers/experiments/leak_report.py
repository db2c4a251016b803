"""`leak_report`: what the stages of an experiment hold, every document checked for leaks before anything is trained; `budgets`: how much that is."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.specs import DECLARATIONS
from pbb_helpers.data.stages import build_stage


def leak_report(experiment: Experiment, seed: int | None = None) -> pd.DataFrame:
    """Returns, for each stage of each condition, how many documents of which group and kind it holds, after checking every one for leaks."""
    dataset = experiment.dataset(experiment.seeds[0] if seed is None else seed)
    count = _counter(experiment) if experiment.budget.match == "tokens" else None
    lines = []
    for name in experiment.conditions:
        for spec in condition(name).stages:
            stage = build_stage(spec, dataset, experiment.budget, count)
            counts = (
                pd.Series([f"{e.group} {e.kind}" if e.group != "replay" else "replay" for e in stage.examples]).value_counts().to_dict()
            )
            lines.append({"condition": name, "stage": spec.name, "documents": len(stage.examples), "leaks": 0} | counts)
    return pd.DataFrame(lines).fillna(0).astype({c: int for line in lines for c in line if c not in ("condition", "stage")})


def budgets(experiment: Experiment) -> pd.DataFrame:
    """Returns what is equal between the conditions of an experiment, and what only nearly is: documents and supervised tokens of each, in its first seed.

    Returns:
        Columns condition, documents, without_io_sources (documents that show a w/o IO program, in code or in words), tokens (supervised ones, by the
        tokenizer of the experiment's model, end tokens counted); conditions that train nothing are left out.
    """
    dataset, count = experiment.dataset(experiment.seeds[0]), _counter(experiment)
    lines = []
    for name in experiment.conditions:
        stages = [build_stage(spec, dataset, experiment.budget, count) for spec in condition(name).stages]
        examples = [example for stage in stages for example in stage.examples]
        shown = sum(e.group == "without_io" and e.kind in DECLARATIONS for e in examples)
        tokens = sum(count(e.completion) for e in examples)
        lines += [{"condition": name, "documents": len(examples), "without_io_sources": shown, "tokens": tokens}] if stages else []
    return pd.DataFrame(lines)


def _counter(experiment: Experiment) -> Callable[[str], int]:
    from pbb_helpers.training import models

    return models.token_counter(models.load_tokenizer(experiment.model, trust_remote_code=experiment.trust_remote_code))
