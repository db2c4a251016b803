"""Compositions: programs that call two others, `def blorp(x): return zibble(snurg(x))`, drawn beside the programs that they call.

The paper asks for `Blorp(x) = Zibble(Snurg(x))` of two separately learned programs (arXiv 2506.18777). Here a composition is a program like
any other, with a name, a source and a group of its own; what differs is which of its parts' I/O was ever shown.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pbb_helpers.data.datasets import Dataset, generator
from pbb_helpers.families.arithmetic import INDENT, Arithmetic
from pbb_helpers.families.names import made_up_names
from pbb_helpers.programs import Program, UsageError, behaviour

KINDS = ("composed_of_with_io", "composed_of_each", "composed_of_without_io")
"""Of w/o IO compositions: both parts w/ IO, one of each (either may be the inner one), both w/o IO."""
SHOWN = "composed_with_io"
"""The kind of a composition that is w/ IO itself, and so are both its parts."""
FEWEST_INPUTS = 0.5
"""Share of all inputs at which the inner part must give an input of the outer part."""
MISSES = 20_000


def compose(name: str, outer: Program, inner: Program) -> Program:
    """Returns the program that calls `outer` on what `inner` returns.

    >>> g, f = (Program(n, "arithmetic", f"def {n}(x):\\n    x = x {op}\\n    return x", 1) for n, op in (("g", "+ 3"), ("f", "* 2")))
    >>> h = compose("h", f, g)
    >>> h.source, h.run(5)
    ('def h(x):\\n    return f(g(x))', 16)
    """
    source = f"def {name}(x):\n{INDENT}return {outer.name}({inner.name}(x))"
    return Program(name, inner.family, source, inner.length + outer.length, (inner, outer))


@functools.lru_cache(maxsize=8)
def with_compositions(parts: Dataset, *, n_with_io: int, n_each: int, fewest: int) -> Dataset:
    """Returns the dataset with compositions of its programs added to both groups, after the programs themselves.

    All differ in behaviour from one another and from every part, and neither are near constant nor mostly their input. The inner part
    gives an input of the outer one at half of the inputs at least. Within a kind no part occurs twice before every one did, as far as that can be
    had: compositions that share a part are right or wrong together.

    Args:
        parts: Programs that call no others.
        n_with_io: Number of compositions of two w/ IO programs that are w/ IO themselves.
        n_each: Number of w/o IO compositions of each of `KINDS`.
        fewest: Held-out inputs that a composition must have.

    Raises:
        UsageError: There are not that many, or not so many names.
    """
    every = sorted(parts.train_inputs + parts.eval_inputs)
    draws = generator(parts.seed, "compositions")
    taken = set(parts.names)
    free = [name for name in made_up_names() if name not in taken]
    if n_with_io + 3 * n_each > len(free):
        raise UsageError(f"{n_with_io + 3 * n_each:,} compositions, and {len(free):,} names are left; ask for fewer")
    names = iter([free[i] for i in generator(parts.seed, "composition names").permutation(len(free))])
    seen = {behaviour(program, every) for program in parts.with_io + parts.without_io}

    def draw(count: int, orders: Sequence[tuple[Sequence[Program], Sequence[Program]]]) -> tuple[Program, ...]:
        """Returns compositions; `orders` holds the programs to take outer and inner parts from, taken in turn."""
        found: list[Program] = []
        used: set[str] = set()
        misses = 0
        while len(found) < count:
            outer, inner = (_one(pool, used, draws) for pool in orders[len(found) % len(orders)])
            made = None if outer is None or inner is None or outer is inner else compose("h", outer, inner)
            outputs = behaviour(made, every) if made else ()
            if made and outputs not in seen and Arithmetic.informative(every, outputs) and _fits(made, parts, fewest):
                seen.add(outputs)
                used |= {outer.name, inner.name}  # type: ignore[union-attr]
                found.append(made.renamed(next(names)))
                misses = 0
            elif (misses := misses + 1) % 500 == 0 or outer is None or inner is None:
                used.clear()  # every part that fits was used, or those left do not fit one another
            if misses > MISSES:
                raise UsageError(
                    f"found {len(found)} compositions that differ in behaviour of {len(parts.with_io)} programs w/ IO and "
                    f"{len(parts.without_io)} w/o IO, {count} of a kind were asked for; ask for fewer or draw more programs"
                )
        return tuple(found)

    shown, hidden = parts.with_io, parts.without_io
    with_io = draw(n_with_io, [(shown, shown)])
    without_io = draw(n_each, [(shown, shown)]) + draw(n_each, [(shown, hidden), (hidden, shown)]) + draw(n_each, [(hidden, hidden)])
    return replace(
        parts, with_io=shown + with_io, without_io=hidden + without_io,
        behaviours=parts.behaviours | {behaviour(program, every) for program in without_io},
    )  # fmt: skip


def passed_on(program: Program, inputs: Sequence[Any]) -> float:
    """Returns the share of `inputs` at which the inner part gives one of them, so that the outer part is asked what it may be asked by itself."""
    return sum(program.calls[0].run(x) in inputs for x in inputs) / len(inputs)


def kind(program: Program, dataset: Dataset) -> str:
    """Returns "with_io" or "without_io" of a part; of a composition its kind, `SHOWN` or one of `KINDS`."""
    hidden = {p.name for p in dataset.without_io}
    if not program.calls:
        return "without_io" if program.name in hidden else "with_io"
    return KINDS[sum(part.name in hidden for part in program.calls)] if program.name in hidden else SHOWN


def _one(pool: Sequence[Program], used: set[str], draws: np.random.Generator) -> Program | None:
    left = [program for program in pool if program.name not in used]
    return left[draws.integers(len(left))] if left else None


def _fits(program: Program, parts: Dataset, fewest: int) -> bool:
    inputs, held_out = parts.inputs_of(program), parts.held_out_of(program)
    return len(inputs) > 0 and len(held_out) >= fewest and passed_on(program, parts.train_inputs + parts.eval_inputs) >= FEWEST_INPUTS
