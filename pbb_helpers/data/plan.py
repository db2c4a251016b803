"""What to run: an experiment as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pbb_helpers.data.budget import Budget
from pbb_helpers.data.compositions import with_compositions
from pbb_helpers.data.conditions import MAIN, condition
from pbb_helpers.data.datasets import Dataset, draw_dataset, require_programs
from pbb_helpers.data.demonstrations import require_distributions
from pbb_helpers.data.distributions import value
from pbb_helpers.programs import UsageError, family


@dataclass(frozen=True)
class Experiment:
    """What to run. A seed draws programs, inputs, documents, initial adapters and order: it is the unit of replication.

    Attributes:
        model: A shipped name, a folder or a hub id.
        family: The name of a family of programs.
        family_settings: Its settings, as pairs.
        conditions: Names in `conditions.CONDITIONS`.
        seeds: Of stage 1, and with it of everything after.
        n_with_io: Number of programs with source and I/O.
        n_with_io_drawn: Out of how many that were drawn, the first ones; 0 takes them all. Experiments that draw as many have the same w/o IO
            programs, names and inputs, and the w/ IO programs of the smaller are among those of the larger.
        n_without_io: Number of programs with source only.
        n_eval_inputs: Number of inputs that no training question has; of texts and shifts the number of texts, held out at every shift.
        inputs_per_program: How many of those each program is asked.
        n_with_io_asked: How many w/ IO programs are asked after training (forgetting).
        n_composed_with_io: Number of compositions of two w/ IO programs with source and I/O, beside the programs themselves.
        n_composed_without_io: Number of compositions with source only, of each kind of `compositions.KINDS`.
        budget: Length and settings of the stages.
        trust_remote_code: Whether Python code that a model brings with it is run.
    """

    model: str = "pbb-small"
    family: str = "arithmetic"
    family_settings: tuple[tuple[str, Any], ...] = ()
    conditions: tuple[str, ...] = MAIN
    seeds: tuple[int, ...] = (0,)
    n_with_io: int = 400
    n_with_io_drawn: int = 0
    n_without_io: int = 80
    n_eval_inputs: int = 10
    inputs_per_program: int = 2
    n_with_io_asked: int = 80
    n_composed_with_io: int = 0
    n_composed_without_io: int = 0
    budget: Budget = field(default_factory=Budget)
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        inputs = family(self.family, **dict(self.family_settings)).inputs()
        for name in self.conditions:
            require_distributions(condition(name).stages, inputs)
        if not self.conditions or not self.seeds:
            raise UsageError(f"conditions {self.conditions} and seeds {self.seeds}; give at least one of each")
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.conditions)) < len(self.conditions):
            raise UsageError(f"conditions {self.conditions} and seeds {self.seeds}; name each once")
        require_programs(self.n_with_io_drawn or self.n_with_io, self.n_without_io)
        if min(self.seeds) < 0:
            raise UsageError(f"seeds {self.seeds}; give whole numbers from 0")
        if self.n_with_io_asked < 1:
            raise UsageError(f"{self.n_with_io_asked} w/ IO programs asked; give at least 1: forgetting is part of every result")
        if self.n_with_io_drawn and self.n_with_io_drawn < self.n_with_io:
            raise UsageError(f"{self.n_with_io} w/ IO programs of {self.n_with_io_drawn} drawn; draw at least as many")
        if min(self.n_composed_with_io, self.n_composed_without_io) < 0 or self.n_composed_with_io and not self.n_composed_without_io:
            raise UsageError(
                f"{self.n_composed_with_io} compositions w/ IO and {self.n_composed_without_io} of each kind w/o IO; give 0 or more, and at "
                "least 1 w/o IO where there are some w/ IO"
            )
        # Of texts each program is asked at so many different shifts.
        most = len(set(map(value, inputs))) if isinstance(inputs[0], tuple) else self.n_eval_inputs
        if not 1 <= self.inputs_per_program <= most:
            raise UsageError(f"{self.inputs_per_program} inputs per program where {self.n_eval_inputs} are held out; give 1 to {most}")

    def dataset(self, seed: int) -> Dataset:
        """Returns the programs and inputs of a seed."""
        programs = family(self.family, **dict(self.family_settings))
        parts = draw_dataset(
            programs, n_with_io=self.n_with_io_drawn or self.n_with_io, n_without_io=self.n_without_io,
            n_eval_inputs=self.n_eval_inputs, seed=seed,
        )  # fmt: skip
        parts = replace(parts, with_io=parts.with_io[: self.n_with_io])
        if not self.n_composed_without_io:
            return parts
        return with_compositions(
            parts, n_with_io=self.n_composed_with_io, n_each=self.n_composed_without_io, fewest=self.inputs_per_program
        )


def small(experiment: Experiment) -> Experiment:
    """Returns the experiment at the smallest size that still runs through everything."""
    budget = experiment.budget
    tiny = Budget(replace(budget.stage1, batch_size=16), replace(budget.stage2, batch_size=16), stage1_steps=6, stage2_steps=4)
    return replace(experiment, n_with_io=12, n_without_io=6, n_eval_inputs=4, inputs_per_program=1, n_with_io_asked=4, budget=tiny)


QUICK = Experiment(seeds=(0, 1), n_with_io=400, n_without_io=80, n_with_io_asked=80, budget=Budget(stage1_steps=500, stage2_steps=160))
"""The size of an experiment of minutes: from it profiles are made, and the documents whose training is timed."""
