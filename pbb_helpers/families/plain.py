"""What a family of functions of one number need not say itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

from pbb_helpers.families import line_steps
from pbb_helpers.programs import Step, UsageError


class Plain:
    """A chain of thought with a line for each executed line, and no words: a family in code alone. See `programs.Family`."""

    takes: ClassVar[str] = "number"
    line_a_step: ClassVar[bool] = True

    @staticmethod
    def steps(steps: Iterable[Step]) -> list[str]:
        """Returns the lines of a chain of thought; see `programs.Family`."""
        return line_steps.step_by_step(steps)

    @staticmethod
    def describe(source: str, choose: Callable[[tuple[str, ...]], str]) -> str:
        """Raises UsageError: there are no words."""
        raise UsageError(f"no words for {source.splitlines()[0]!r}: its family is one in code alone; run conditions without descriptions")

    @staticmethod
    def read(text: str) -> Iterator[tuple[str, int]]:
        """Yields nothing: no text says a program of the family."""
        yield from ()

    @staticmethod
    def heads() -> list[str]:
        """Returns nothing: no sentence begins one."""
        return []
