"""A program is a piece of Python: `Program.run` executes the very source that a model is shown."""

from __future__ import annotations

import ast
import builtins
import difflib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field, dataclass, fields, replace
from types import FrameType
from typing import Any, ClassVar, Protocol

import numpy as np

# What the source of a program may call. This keeps honest programs honest; it is not a sandbox for hostile ones.
BUILTINS = {
    name: getattr(builtins, name)
    for name in ("abs", "bool", "chr", "divmod", "enumerate", "int", "len", "max", "min", "ord", "range", "str", "sum")
}


class UsageError(ValueError):
    """What a user asked for can't be done: the message is one line that says what arrived, what is valid and what to do."""


def plain_number(value: float) -> str:
    """Returns a number without an exponent and without zeros that say nothing.

    >>> plain_number(0.50), plain_number(2.0), plain_number(0.00001)
    ('0.5', '2', '0.00001')
    """
    return np.format_float_positional(value, trim="-")


def did_you_mean(what: str, got: object, valid: Iterable[str]) -> UsageError:
    """Returns the error for an unknown name.

    >>> str(did_you_mean("condition", "proactve", ["base", "proactive"]))
    "unknown condition 'proactve'; did you mean 'proactive'? choose from base, proactive"
    """
    valid = sorted(valid)
    close = difflib.get_close_matches(str(got), valid, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return UsageError(f"unknown {what} {str(got)!r}{hint} choose from {', '.join(valid) or '(nothing)'}")


@dataclass(frozen=True)
class Step:
    """One executed line: its text, and the local variables before and after it (`value` is what a return line returned)."""

    line: str
    before: dict[str, Any]
    after: dict[str, Any]
    value: Any = None


@dataclass(frozen=True)
class Program:
    """A named function, as source text. An input is its one argument or, for a function of several, the tuple of them.

    Attributes:
        name: The pointer that a model learns, for example "zibble".
        family: The name of the family that drew it, for example "arithmetic".
        source: The whole text, "def zibble(x):\\n    x = x + 3\\n    return x".
        length: Number of top-level statements, the return not counted; of a program that calls others, theirs.
        calls: The programs that its source calls by name; their sources are executed together with its own.
    """

    name: str
    family: str
    source: str
    length: int
    calls: tuple[Program, ...] = ()

    @property
    def whole(self) -> str:
        """The text that Python executes: the sources of the programs that it calls, then its own."""
        return "\n\n".join([*(program.whole for program in self.calls), self.source])

    def run(self, x: Any) -> Any:
        """Returns what Python returns for this source at `x`.

        >>> Program("zibble", "arithmetic", "def zibble(x):\\n    x = x + 3\\n    return x", 1).run(4)
        7
        """
        return _function(self.whole, self.name)(*arguments(x))

    def trace(self, x: Any) -> list[Step]:
        """Returns its own executed lines in order with the true states around each, read from the running frame."""
        return _trace(_function(self.whole, self.name), self.whole.splitlines(), x)

    def called(self, x: Any) -> list[tuple[Program, Any]]:
        """Returns the programs that a run at `x` calls, in order, each with its argument as it stood in the running frame.

        >>> inner, outer = (Program(f, "arithmetic", f"def {f}(x):\\n    x = x {op}\\n    return x", 1) for f, op in (("g", "+ 3"), ("f", "* 2")))
        >>> both = Program("h", "arithmetic", "def h(x):\\n    return f(g(x))", 2, (outer, inner))
        >>> both.run(5), [(program.name, value) for program, value in both.called(5)]
        (16, [('g', 5), ('f', 8)])
        """
        function = _function(self.whole, self.name)
        codes = {function.__globals__[program.name].__code__: program for program in self.calls}
        made: list[tuple[Program, Any]] = []

        def enter(frame: FrameType, event: str, arg: Any) -> None:
            if frame.f_code in codes:
                made.append((codes[frame.f_code], frame.f_locals[frame.f_code.co_varnames[0]]))

        _traced(enter, function, x)
        return made

    def renamed(self, name: str) -> Program:
        """Returns the same program under another name."""
        return replace(self, name=name, source=self.source.replace(f"def {self.name}(", f"def {name}(", 1))


def arguments(x: Any) -> tuple:
    """Returns the arguments that an input stands for."""
    return x if isinstance(x, tuple) else (x,)


def written(x: Any) -> str:
    """Returns an input as it stands between the brackets of a call.

    >>> written(7), written(("CAB", 3))
    ('7', "'CAB', 3")
    """
    return ", ".join(repr(value) if isinstance(value, str) else str(value) for value in arguments(x))


def to_cell(x: Any) -> Any:
    """Returns an input as a table holds it: several arguments as the text of them, one as it is."""
    return written(x) if isinstance(x, tuple) else x


def from_cell(x: Any) -> Any:
    """Returns the input that a cell of a table holds; a column with gaps has made floats of whole numbers.

    >>> from_cell(7.0), from_cell("'CAB', 3")
    (7, ('CAB', 3))
    """
    return ast.literal_eval(f"({x})") if isinstance(x, str) else int(x) if isinstance(x, float) else x


@functools.lru_cache(maxsize=20_000)
def _function(source: str, name: str) -> Callable[[Any], Any]:
    namespace: dict[str, Any] = {"__builtins__": BUILTINS}
    exec(compile(source, f"<{name}>", "exec"), namespace)  # noqa: S102 - running the source is what this module is for
    return namespace[name]


def _trace(function: Callable[[Any], Any], lines: list[str], x: Any) -> list[Step]:
    code = function.__code__
    events: list[tuple[int, dict[str, Any]]] = []

    def local(frame: FrameType, event: str, arg: Any) -> Any:
        if event in ("line", "return"):
            events.append((frame.f_lineno, dict(frame.f_locals)))
        return local

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        return local if frame.f_code is code else None

    value = _traced(enter, function, x)
    steps = [Step(lines[number - 1].strip(), before, after) for (number, before), (_, after) in zip(events, events[1:], strict=False)]
    steps[-1] = Step(steps[-1].line, steps[-1].before, steps[-1].after, value)
    return steps


def _traced(enter: Callable[..., Any], function: Callable[[Any], Any], x: Any) -> Any:
    previous = sys.gettrace()
    sys.settrace(enter)
    try:
        return function(*arguments(x))
    finally:
        sys.settrace(previous)


class Family(Protocol):
    """What a family of programs offers to the rest of the package: one file in `families/`, one entry in `FAMILIES`.

    It is a dataclass whose fields, all with defaults, are its settings; `min_statements` and `max_statements` are among them, since replay draws
    programs of each length. `families.plain.Plain` has what a family of functions of one number need not say itself.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    takes: ClassVar[str]
    """What prompts call the input of its programs: "number", "text"."""
    line_a_step: ClassVar[bool]
    """Whether each line of a chain of thought is one step of the trace, so that the first wrong one can be judged by itself (`traces`)."""

    @property
    def name(self) -> str:
        """Its name in `FAMILIES`."""
        ...

    def __hash__(self) -> int: ...

    @staticmethod
    def steps(steps: Iterable[Step]) -> list[str]:
        """Returns the lines of a chain of thought, from a true trace."""
        ...

    @staticmethod
    def describe(source: str, choose: Callable[[tuple[str, ...]], str]) -> str:
        """Returns a program in words, in one line; `choose` picks one of the phrases that say the same."""
        ...

    @staticmethod
    def read(text: str) -> Iterator[tuple[str, int]]:
        """Yields the source of every program that the beginning of a text may say in words, and where its words end."""
        ...

    @staticmethod
    def heads() -> list[str]:
        """Returns the regular expressions of the sentences that a program in words begins with."""
        ...

    def inputs(self) -> list[Any]:
        """Returns every input on which its programs are defined."""
        ...

    def draw(self, names: list[str], generator: np.random.Generator, *, exclude: Iterable[tuple] = ()) -> list[Program]:
        """Returns one program per name, no two equal in behaviour over `inputs()`, none equal to a behaviour in `exclude`."""
        ...

    def sketch(self, name: str, generator: np.random.Generator) -> Program:
        """Returns one program drawn without the costly guarantees of `draw`, for pretraining on millions."""
        ...


def family_of(program: Program) -> type[Family]:
    """Returns the family that a program is of, for what all settings of it have in common."""
    from pbb_helpers.families import FAMILIES

    return FAMILIES[program.family]


def behaviour(program: Program, inputs: Iterable[Any]) -> tuple:
    """Returns the program's outputs over `inputs`: two programs are the same in behaviour when these are equal."""
    function = _function(program.whole, program.name)
    return tuple(function(*arguments(x)) for x in inputs)


def draw_distinct(names: list[str], sketch: Callable[[str], Program], inputs: list[Any], *, accept: Callable[[Program, tuple], bool],
                  exclude: Iterable[tuple], tries: int, what: str, unit: str) -> list[Program]:  # fmt: skip
    """Returns one sketch per name, no two equal in behaviour over `inputs`, none equal to one in `exclude`; for `Family.draw`.

    Args:
        names: Of the programs.
        sketch: Draws a program of a name.
        inputs: What behaviours are over.
        accept: Whether a program with these outputs is good enough.
        exclude: Behaviours that none may have.
        tries: Sketches in a row that may be turned down.
        what, unit: What is drawn, and what more of could be allowed, for the message.

    Raises:
        UsageError: So many were turned down in a row: there are not that many different programs.
    """
    seen, misses = set(exclude), 0
    programs: list[Program] = []
    while len(programs) < len(names):
        program = sketch(names[len(programs)])
        outputs = behaviour(program, inputs)
        if outputs not in seen and accept(program, outputs):
            seen.add(outputs)
            programs.append(program)
            misses = 0
        elif (misses := misses + 1) > tries:
            raise UsageError(
                f"found {len(programs):,} {what} that differ in behaviour, {len(names):,} were asked for; ask for fewer or allow more {unit}"
            )
    return programs


def family(name: str, /, **settings: Any) -> Family:
    """Returns the family of that name with these settings.

    Raises:
        UsageError: There is no such family or setting.
    """
    from pbb_helpers.families import FAMILIES

    if name not in FAMILIES:
        raise did_you_mean("family", name, FAMILIES)
    valid = {setting.name for setting in fields(FAMILIES[name])} - {"name"}
    for key in settings:
        if key not in valid:
            raise did_you_mean(f"setting of {name}", key, valid)
    return FAMILIES[name](**{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})
