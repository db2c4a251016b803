"""What a model is asked after training, and what can be had without knowing the program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from pbb_helpers.conditions import condition
from pbb_helpers.datasets import Dataset, generator
from pbb_helpers.documents import (
    N_TEMPLATES,
    Example,
    call_document,
    description_document,
    source_document,
    way_of_answering,
)
from pbb_helpers.plan import Experiment
from pbb_helpers.programs import Program, to_cell


def questions(experiment: Experiment, dataset: Dataset, modes: Sequence[str], templates: int = N_TEMPLATES) -> Iterator[list[Example]]:
    """Yields the questions of each group and mode; a program is asked the same held-out inputs in every mode."""
    for group, programs in (("without_io", dataset.without_io), ("with_io", dataset.with_io[: experiment.n_with_io_asked])):
        inputs = held_out_inputs(experiment, dataset, group, len(programs))
        for mode in modes:
            draws = generator(dataset.seed, f"evaluation template {group} {mode}")
            if mode == "source":
                yield [source_document(program, group, int(draws.integers(templates))) for program in programs]
            elif mode == "description":
                yield [description_document(program, group, int(draws.integers(templates))) for program in programs]
            else:
                asked = [(program, x) for program, some in zip(programs, inputs, strict=True) for x in some]
                yield [call_document(program, group, mode, x, int(draws.integers(templates))) for program, x in asked]


def modes_of(name: str) -> tuple[str, ...]:
    """Returns the modes that rows of a condition have: of the untuned model in context these are plain "direct", "cot", "recall"."""
    chosen = condition(name)
    return chosen.modes if chosen.stages else tuple(way_of_answering(mode)[0] for mode in chosen.modes)


def held_out_inputs(experiment: Experiment, dataset: Dataset, group: str, count: int) -> list[list[Any]]:
    """Returns the inputs that each of `count` programs is asked."""
    draws = generator(dataset.seed, f"evaluation inputs {group}")
    return [
        [dataset.eval_inputs[i] for i in draws.permutation(len(dataset.eval_inputs))[: experiment.inputs_per_program]] for _ in range(count)
    ]


def floors(experiment: Experiment, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """Returns, for each seed, what the best answers that ignore the program would score on the w/o IO questions.

    They are fitted on the true outputs of the w/ IO programs at the very inputs that are asked, which no model is trained on: more than
    any model could know of an unknown program. See `statistics.floors`; `by=["length"]` scores each number of statements apart.
    """
    from pbb_helpers import statistics

    fitted, asked = [], []
    for seed in experiment.seeds:
        dataset = experiment.dataset(seed)
        fitted += [_pair(seed, program, x) for program in dataset.with_io for x in dataset.eval_inputs]
        inputs = held_out_inputs(experiment, dataset, "without_io", len(dataset.without_io))
        asked += [_pair(seed, program, x) for program, some in zip(dataset.without_io, inputs, strict=True) for x in some]
    return statistics.floors(pd.DataFrame(fitted), pd.DataFrame(asked), by=by)


def _pair(seed: int, program: Program, x: Any) -> dict[str, Any]:
    return {"seed": seed, "program": program.name, "input": to_cell(x), "gold": str(program.run(x)), "length": program.length}
