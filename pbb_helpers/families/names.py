"""Made-up names, the pointers to programs: pronounceable, in a fixed order, none a word of Python or of a prompt."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from pbb_helpers.programs import UsageError

POOL = 4096
ONSETS = ("b bl br d dr f fl fr g gl gr j k kl kr l m n p pl pr qu r s sk sl sm sn sp st t tr v w z zw").split()
VOWELS = "a e i o u".split()
MIDDLES = ("b bb d dd g gg lb lm ln mb mp nd ng nk nt pp rb rd rg rk rm rt sk sp st v z zz").split()
ENDINGS = ("ax ek el ex ib if ig il im in ip ix ok ol om on op or os ot ox ub ug ul um un up us").split()


@functools.cache
def made_up_names() -> tuple[str, ...]:
    """Returns the 4,096 names that the shipped tokenizer holds as one token each, always the same ones in the same order.

    >>> len(set(made_up_names())), made_up_names()[0].isalpha()
    (4096, True)
    """
    every = ["".join(parts) for parts in itertools.product(ONSETS, VOWELS, MIDDLES, ENDINGS)]
    order = np.random.Generator(np.random.PCG64(2506_18777)).permutation(len(every))
    return tuple(every[i] for i in order[:POOL])


def require_names(count: int) -> None:
    """Raises UsageError where there are not so many names."""
    if count > POOL:
        raise UsageError(f"{count:,} programs need {count:,} names, and there are {POOL:,}; ask for fewer programs")


def draw_names(count: int, generator: np.random.Generator) -> list[str]:
    """Returns `count` different names.

    Raises:
        UsageError: More are asked for than there are.
    """
    require_names(count)
    return [made_up_names()[i] for i in generator.permutation(POOL)[:count]]
