"""`leak_report`: what the stages of an experiment hold, every document checked for leaks before anything is trained."""

from __future__ import annotations

import pandas as pd

from pbb_helpers.data.conditions import condition
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.stages import build_stage


def leak_report(experiment: Experiment, seed: int | None = None) -> pd.DataFrame:
    """Returns, for each stage of each condition, how many documents of which group and kind it holds, after checking every one for leaks."""
    dataset = experiment.dataset(experiment.seeds[0] if seed is None else seed)
    count = None
    if experiment.budget.match == "tokens":
        from pbb_helpers.training import models

        count = models.token_counter(models.load(experiment.model, trust_remote_code=experiment.trust_remote_code).tokenizer)
    lines = []
    for name in experiment.conditions:
        for spec in condition(name).stages:
            stage = build_stage(spec, dataset, experiment.budget, count)
            counts = (
                pd.Series([f"{e.group} {e.kind}" if e.group != "replay" else "replay" for e in stage.examples]).value_counts().to_dict()
            )
            lines.append({"condition": name, "stage": spec.name, "documents": len(stage.examples), "leaks": 0} | counts)
    return pd.DataFrame(lines).fillna(0).astype({c: int for line in lines for c in line if c not in ("condition", "stage")})
