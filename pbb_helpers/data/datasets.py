"""The programs and inputs of one seed, split so that no question of an evaluation is ever trained on."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from pbb_helpers.families.names import draw_names, require_names
from pbb_helpers.programs import Family, Program, UsageError, arguments, behaviour


@dataclass(frozen=True)
class Dataset:
    """The programs and inputs of one seed. `train_inputs` and `eval_inputs` have none in common, nor have the programs.

    Attributes:
        family: The name of their family.
        with_io: Programs given with source and I/O.
        without_io: Programs given with source only.
        train_inputs: The inputs of every training question.
        eval_inputs: Inputs that occur in no training question of any program; of texts and shifts, texts that occur in none, at every shift.
        behaviours: Of the w/o IO programs over all inputs: no replayed program may have one of these.
        seed: What it was drawn from.
    """

    family: str
    with_io: tuple[Program, ...]
    without_io: tuple[Program, ...]
    train_inputs: tuple[Any, ...]
    eval_inputs: tuple[Any, ...]
    behaviours: frozenset[tuple]
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all programs, w/ IO first."""
        return tuple(program.name for program in self.with_io + self.without_io)

    def inputs_of(self, program: Program) -> tuple[Any, ...]:
        """Returns the inputs that training questions on a program may have.

        Of a program that calls others those at which what it calls gets a training input too: the chain of thought shows these values.
        """
        return _passing_on(program, self.train_inputs, self.train_inputs)

    def held_out_of(self, program: Program) -> tuple[Any, ...]:
        """Returns the held-out inputs that a program may be asked: what it calls must be defined where it is called."""
        return _passing_on(program, self.eval_inputs, self.train_inputs + self.eval_inputs)


@functools.lru_cache(maxsize=20_000)
def _passing_on(program: Program, inputs: tuple[Any, ...], valid: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the inputs at which every program that `program` calls is called on a valid one."""
    return tuple(x for x in inputs if all(value in valid for _, value in program.called(x))) if program.calls else inputs


def held_out_part(x: Any) -> Any:
    """Returns what of an input is held out of training whole: the number itself, or of a text and a shift the text, at whatever shift.

    >>> held_out_part(7), held_out_part(("CAB", 3))
    (7, 'CAB')
    """
    return arguments(x)[0]


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Returns the generator of one purpose, so that a further draw for one moves nothing of another."""
    return np.random.Generator(np.random.PCG64([seed, *purpose.encode()]))


def require_programs(n_with_io: int, n_without_io: int) -> None:
    """Raises UsageError where these are too few programs, or more than there are names for."""
    if n_with_io < 1 or n_without_io < 2:
        raise UsageError(f"{n_with_io} programs w/ IO and {n_without_io} w/o IO; give at least 1 and 2")
    require_names(n_with_io + n_without_io)


@functools.lru_cache(maxsize=8)
def draw_dataset(programs: Family, *, n_with_io: int, n_without_io: int, n_eval_inputs: int, seed: int) -> Dataset:
    """Returns programs that all differ in behaviour, and their inputs split in two.

    Raises:
        UsageError: A number is too small, or too large for the family.
    """
    every = programs.inputs()
    require_programs(n_with_io, n_without_io)
    parts = list(dict.fromkeys(map(held_out_part, every)))
    if not 1 <= n_eval_inputs < len(parts):
        what = "inputs" if len(parts) == len(every) else f"{programs.takes}s"
        raise UsageError(f"{n_eval_inputs} held-out {what} of {len(parts)}; give 1 to {len(parts) - 1}")
    names = draw_names(n_with_io + n_without_io, generator(seed, "names"))
    drawn = programs.draw(names, generator(seed, "programs"))
    # Behaviours of short programs run out while drawing, so that the last drawn are longer: unshuffled, the w/o IO group would be harder.
    drawn = [drawn[i] for i in generator(seed, "groups").permutation(len(drawn))]
    held_out = {parts[i] for i in generator(seed, "inputs").permutation(len(parts))[:n_eval_inputs]}
    with_io, without_io = tuple(drawn[:n_with_io]), tuple(drawn[n_with_io:])
    return Dataset(
        programs.name, with_io, without_io,
        tuple(x for x in every if held_out_part(x) not in held_out), tuple(x for x in every if held_out_part(x) in held_out),
        frozenset(behaviour(p, every) for p in without_io), seed,
    )  # fmt: skip
