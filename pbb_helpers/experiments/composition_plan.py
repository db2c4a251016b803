"""The sizes of notebook 05 and its own parameters, beside those of every experiment notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from pbb_helpers.analysis import reading
from pbb_helpers.analysis.labels import label
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.compositions import KINDS, SHOWN, kind
from pbb_helpers.data.conditions import condition
from pbb_helpers.data.documents import call_document, source_document
from pbb_helpers.data.plan import Experiment, small
from pbb_helpers.experiments import profiles
from pbb_helpers.experiments.unread import unread
from pbb_helpers.notebook import parameters
from pbb_helpers.programs import UsageError
from pbb_helpers.training.model_files import find

CONDITIONS = ("base", "in_context", "stage1_only", "proactive", "shuffled_calls", "mixture")
QUICK = Experiment(
    conditions=CONDITIONS,
    family_settings=(("max_statements", 1),),  # of two such a composition has the length of what the shipped model was made for
    seeds=(0, 1),
    n_with_io=200,
    n_without_io=80,
    n_with_io_asked=40,
    n_composed_with_io=160,
    n_composed_without_io=40,
    budget=Budget(stage1_steps=600, stage2_steps=300),
)
FULL = replace(
    QUICK, family_settings=(("max_statements", 2),), seeds=(0, 1, 2, 3, 4), n_with_io=500, n_without_io=200,
    n_with_io_asked=100, n_composed_with_io=400, n_composed_without_io=100, budget=Budget(stage1_steps=2400, stage2_steps=800),
)  # fmt: skip
SMOKE = replace(small(replace(QUICK, seeds=(0,))), n_composed_with_io=6, n_composed_without_io=3)
PROFILES = {"smoke": SMOKE, "quick": QUICK, "full": FULL}


def plan(values: Mapping[str, Any]) -> Experiment:
    """Returns the experiment that the parameters of the notebook ask for; `values` is its `globals()`.

    Raises:
        UsageError: A parameter is not valid.
    """
    numbers = parameters({"n_composed_with_io": int | None, "n_composed_without_io": int | None}, values)
    given = parameters({"train_unread": bool}, values)
    asked = profiles.experiment(values, PROFILES)
    # `n_without_io` sets the number of demonstrated programs that are asked too; here that is a number of compositions.
    changes = {name: number for name, number in vars(numbers).items() if number is not None}
    planned = replace(asked, n_with_io_asked=PROFILES[values["profile"]].n_with_io_asked, **changes)
    if planned.n_composed_without_io < 1:
        raise UsageError(
            f"n_composed_without_io {planned.n_composed_without_io}; give at least 1, else nothing is asked that was only read"
        )
    if all(name in profiles.GIVEN or not condition(name).stages for name in planned.conditions):
        raise UsageError(f"conditions {', '.join(planned.conditions)}: add one that is trained and asked as it is, for example proactive")
    if worded := [name for name in planned.conditions if condition(name).uses_words]:
        raise UsageError(f"conditions {', '.join(worded)}: a program that calls others has no description in words; leave them out")
    if not given.train_unread:
        return planned
    if planned.budget.stage1.method == "full":
        raise UsageError("train_unread with method full, which trains every embedding; leave train_unread out")
    every = replace(planned, conditions=CONDITIONS, seeds=(0,))  # not those that are asked for: arms that share a stage share its key
    return replace(planned, budget=replace(planned.budget, new_tokens=tuple(unread(every)["token"])))


def has_read_calls(experiment: Experiment) -> bool:
    """Returns whether the base model is one of ours whose pretraining held programs that call others."""
    from pbb_helpers.training.pretrain_documents import settings_of

    folder, _ = find(experiment.model, trust_remote_code=experiment.trust_remote_code)
    return (folder / "card.json").is_file() and settings_of(folder).mix.calls > 0


def facts(experiment: Experiment) -> dict[str, Any]:
    """Returns what a reader must know of an experiment's size, in words and numbers."""
    return profiles.facts(experiment) | {
        "compositions w/ IO, of two w/ IO programs, per seed": experiment.n_composed_with_io,
        "compositions w/o IO, per seed": f"{experiment.n_composed_without_io} of each kind: {', '.join(label(name) for name in KINDS)}",
        "compositions w/ IO that are asked, per seed": min(experiment.n_with_io_asked, experiment.n_composed_with_io),
        "tokens whose embeddings are trained with the names'": ", ".join(map(repr, experiment.budget.new_tokens)) or "none",
    }


def table(experiment: Experiment) -> pd.DataFrame:
    """Returns the same as a table of two columns."""
    return reading.facts(facts(experiment))


def drawn(experiment: Experiment) -> pd.DataFrame:
    """Returns what was drawn with the first seed, a line per kind of program.

    Columns kind, programs, training inputs and held-out inputs (mean number per program), statements (mean of those that run).
    """
    dataset = experiment.dataset(experiment.seeds[0])
    programs = pd.DataFrame([
        {"kind": label(kind(p, dataset)), "programs": 1, "training inputs": len(dataset.inputs_of(p)), "held-out inputs": len(dataset.held_out_of(p)), "statements": p.length}
        for p in dataset.with_io + dataset.without_io
    ])  # fmt: skip
    how = {"programs": "sum", "training inputs": "mean", "held-out inputs": "mean", "statements": "mean"}
    return programs.groupby("kind", sort=False).agg(how).reset_index()


def examples(experiment: Experiment) -> str:
    """Returns one composition of each side as a model meets it: what it is trained on, and what it is asked."""
    dataset = experiment.dataset(experiment.seeds[0])
    by_kind = {kind(program, dataset): program for program in reversed(dataset.with_io + dataset.without_io)}
    texts = []
    if shown := by_kind.get(SHOWN):
        x = dataset.inputs_of(shown)[0]
        texts += [("Trained on, stage 1", call_document(shown, "with_io", mode, x, 0)) for mode in ("direct", "cot", "recall")]
    hidden = by_kind[KINDS[-1]]
    x = dataset.held_out_of(hidden)[0]
    texts += [("Trained on, stage 2", source_document(program, "without_io", 0)) for program in (hidden, *hidden.calls)]
    texts += [("Asked, never trained on", call_document(hidden, "without_io", mode, x, 0)) for mode in ("cot", "in_context_direct")]
    return "\n\n".join(
        f"=== {title}: {example.kind}\n{example.prompt}>>> " + example.completion.replace("\n", "\n    ") for title, example in texts
    )
