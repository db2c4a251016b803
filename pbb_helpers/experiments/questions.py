"""What a model is asked after training, and what can be had without knowing the program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pbb_helpers.data.compositions import kind
from pbb_helpers.data.conditions import Condition, condition
from pbb_helpers.data.datasets import Dataset, generator
from pbb_helpers.data.demonstrations import SHOWN, pairs
from pbb_helpers.data.distributions import value
from pbb_helpers.data.documents import (
    N_TEMPLATES,
    NAMED,
    Example,
    call_document,
    description_document,
    source_document,
    way_of_answering,
)
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.specs import StageSpec
from pbb_helpers.programs import Program, to_cell


def questions(
    experiment: Experiment, dataset: Dataset, modes: Sequence[str], templates: int = N_TEMPLATES, last: StageSpec | None = None
) -> Iterator[list[Example]]:
    """Yields the questions of each group and mode; a program is asked the same held-out inputs in every mode.

    Args:
        experiment, dataset, modes, templates: What is asked, and in how many phrasings.
        last: The stage that was trained last: where it showed I/O pairs of w/o IO programs, these are asked too.
    """
    every = calls_asked(experiment, dataset)
    for group, calls in every.items():
        programs = list(dict.fromkeys(program for program, _ in calls))
        for mode in modes:
            # Where a line is given, the prompts are those of recall, to the letter.
            draws = generator(dataset.seed, f"evaluation template {group} {'recall' if mode == NAMED else mode}")
            if mode == "source":
                yield [source_document(program, group, int(draws.integers(templates))) for program in programs]
            elif mode == "description":
                yield [description_document(program, group, int(draws.integers(templates))) for program in programs]
            else:
                yield [call_document(program, group, mode, x, int(draws.integers(templates))) for program, x in calls]

    if last is not None and last.pairs:
        yield shown_pairs(experiment, dataset, last, templates)


def shown_pairs(experiment: Experiment, dataset: Dataset, spec: StageSpec, templates: int = N_TEMPLATES) -> list[Example]:
    """Returns direct questions, of group `SHOWN`, on I/O pairs that a stage shows: the first different ones of each program, as many as it is asked otherwise."""
    draws, drawn = generator(dataset.seed, f"evaluation template {SHOWN}"), pairs(spec, dataset)
    asked = [
        (program, x) for program in dataset.without_io for x in list(dict.fromkeys(drawn[program.name]))[: experiment.inputs_per_program]
    ]
    return [call_document(program, SHOWN, "direct", x, int(draws.integers(templates))) for program, x in asked]


def calls_asked(experiment: Experiment, dataset: Dataset) -> dict[str, list[tuple[Program, Any]]]:
    """Returns the programs and inputs of each group that are asked.

    Where there are compositions, these are asked, and each of their parts at the very input that it gets in them: the inner part at the
    held-out input, the outer part at the true value that the inner one returns, which may be an input of its training.
    """
    groups = {"without_io": dataset.without_io, "with_io": dataset.with_io}
    composed = {group: [program for program in programs if program.calls] for group, programs in groups.items()}
    if not any(composed.values()):
        asked = {"without_io": dataset.without_io, "with_io": dataset.with_io[: experiment.n_with_io_asked]}
        return {
            group: [(program, x) for program, some in zip(programs, held_out_inputs(experiment, dataset, group, len(programs)), strict=True) for x in some]
            for group, programs in asked.items()
        }  # fmt: skip
    composed["with_io"] = composed["with_io"][: experiment.n_with_io_asked]
    asked_of = {group: _some_inputs(experiment, dataset, group, programs) for group, programs in composed.items()}
    hidden = {program.name for program in dataset.without_io}
    parts = dict.fromkeys(part for calls in asked_of.values() for program, x in calls for part in program.called(x))
    for part, x in parts:
        asked_of["without_io" if part.name in hidden else "with_io"].append((part, x))
    return asked_of


def _some_inputs(experiment: Experiment, dataset: Dataset, group: str, programs: Sequence[Program]) -> list[tuple[Program, Any]]:
    draws = generator(dataset.seed, f"evaluation inputs composed {group}")
    valid = [dataset.held_out_of(program) for program in programs]
    return [
        (program, its[i])
        for program, its in zip(programs, valid, strict=True)
        for i in draws.permutation(len(its))[: experiment.inputs_per_program]
    ]


def modes_of(name: str) -> tuple[str, ...]:
    """Returns the modes that rows of a condition have (`recorded_mode`): of the untuned model in context these are plain "direct", "cot", "recall"."""
    chosen = condition(name)
    return tuple(recorded_mode(chosen, mode) for mode in chosen.modes)


def recorded_mode(chosen: Condition, mode: str) -> str:
    """Returns the mode that the rows of a condition have where it is asked in `mode`.

    What the untuned model does with the source in its prompt is a condition of its own, the ceiling of each way of answering; so is what a
    trained one does where the first line is given.
    """
    return way_of_answering(mode)[0] if mode == NAMED or not chosen.stages else mode


def held_out_inputs(experiment: Experiment, dataset: Dataset, group: str, count: int) -> list[list[Any]]:
    """Returns the inputs that each of `count` programs is asked; of texts and shifts every shift as often as any other, up to one."""
    draws, inputs, n = generator(dataset.seed, f"evaluation inputs {group}"), dataset.eval_inputs, experiment.inputs_per_program
    if isinstance(inputs[0], tuple):
        return _every_value_alike(inputs, n, count, draws)
    return [[inputs[i] for i in draws.permutation(len(inputs))[:n]] for _ in range(count)]


def _every_value_alike(inputs: Sequence[Any], n: int, count: int, draws: np.random.Generator) -> list[list[Any]]:
    """Returns `n` inputs of different values (shifts) for each of `count` programs, the values that were asked least so far."""
    by_value = {v: [x for x in inputs if value(x) == v] for v in sorted(set(map(value, inputs)))}
    values, asked, chosen = list(by_value), np.zeros(len(by_value), dtype=int), []
    for _ in range(count):
        places = np.lexsort((draws.random(len(values)), asked))[:n]
        asked[places] += 1
        chosen.append([by_value[values[i]][draws.integers(len(by_value[values[i]]))] for i in places])
    return chosen


def floors(experiment: Experiment, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """Returns, for each seed, what the best answers that ignore the program would score on the w/o IO questions.

    They are fitted on the true outputs of the w/ IO programs at the very inputs that are asked, which no model is trained on: more than
    any model could know of an unknown program. Where there are compositions, these alone are asked, and the w/ IO ones fitted on. See
    `statistics.floors`; `by=["length"]` scores each number of statements apart, `by=["kind"]` each kind of composition.
    """
    from pbb_helpers.analysis import statistics

    fitted, asked = [], []
    for seed in experiment.seeds:
        dataset = experiment.dataset(seed)
        composed = [program for program in dataset.with_io if program.calls]
        fitted += [_pair(seed, program, x) for program in composed or dataset.with_io for x in dataset.eval_inputs]
        calls = calls_asked(experiment, dataset)["without_io"]
        asked += [
            _pair(seed, program, x) | {"kind": kind(program, dataset)}
            for program, x in calls
            if program.calls or not experiment.n_composed_without_io
        ]
    return statistics.floors(pd.DataFrame(fitted), pd.DataFrame(asked), by=by)


def _pair(seed: int, program: Program, x: Any) -> dict[str, Any]:
    return {"seed": seed, "program": program.name, "input": to_cell(x), "gold": str(program.run(x)), "length": program.length}
