"""Progress that can be read in JupyterLab, in a terminal, in a log and in a saved page: what, how far, how long still."""

from __future__ import annotations

import html
import json
import os
import sys
import time
import uuid
from typing import Any

from pbb_helpers.markup import visible

PREFIX = "progress: "  # a printed line that starts so is progress: reports leave it out
MIME = "application/vnd.pbb.progress+json"
PRINT_EVERY = 30.0  # seconds: often enough for a log, rare enough for a page
UPDATE_EVERY = 0.5


def duration(seconds: float | None) -> str:
    """Returns a time as a person says it.

    >>> duration(4.2), duration(75), duration(3720), duration(None)
    ('4 s', '1 min 15 s', '1 h 2 min', 'unknown')
    """
    if seconds is None:
        return "unknown"
    seconds = int(seconds + 0.5)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


class Progress:
    """A bar that updates in place, and a printed line now and then.

    Under `pbb run` (PBB_RUN_DIR is set) nothing is printed: the runner reads the updates and writes to the terminal itself.

    Example:
        >>> with Progress("stage 1", total=3) as progress:  # doctest: +ELLIPSIS
        ...     for _ in range(3):
        ...         progress.advance()
        progress: stage 1: 3 of 3, done in ...

    Args:
        what: What is going on, for people.
        total: How many units; None when unknown.
        unit: The name of one unit, for example "steps".
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "") -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done, self.note = 0, ""
        self._start = self._updated = self._printed = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._id = uuid.uuid4().hex
        self._displayed = self._closed = False
        self._emit("running")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.close("failed" if kind else "done")

    def advance(self, by: int = 1, note: str = "") -> None:
        """Moves on by so many units; `note` replaces the text at the end of the line."""
        self.update(self.done + by, note=note)

    def update(self, done: int, *, what: str | None = None, total: int | None = None, note: str = "") -> None:
        """Says how far it is now; what is not given stays as it was."""
        if what is not None and what != self.what:
            self.what, self._first, self._start = what, None, time.monotonic()
        self.done, self.total, self.note = done, self.total if total is None else total, note or self.note
        now = time.monotonic()
        # The first unit includes warm-up (imports, caches), so the rate is measured after it.
        self._first = self._first or (now, done)
        if now - self._updated >= UPDATE_EVERY:
            self._updated = now
            self._emit("running")

    def close(self, status: str = "done") -> None:
        """Leaves the last state standing: "done", "failed" or what else it was. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._emit(status)

    @property
    def left(self) -> float | None:
        """Returns the seconds still to go, or None while they can't be told."""
        if not self.total or not self._first or self.done <= self._first[1]:
            return None
        rate = (self.done - self._first[1]) / max(time.monotonic() - self._first[0], 1e-9)
        return max(self.total - self.done, 0) / rate

    def line(self, status: str = "running") -> str:
        """Returns the state as one line of text."""
        unit = f" {self.unit}" if self.unit else ""
        far = f"{self.done:,} of {self.total:,}{unit}" if self.total else f"{self.done:,}{unit}"
        percent = f" ({100 * self.done // self.total} %)" if self.total and status == "running" else ""
        note = f"; {self.note}" if self.note else ""
        if status != "running":
            return visible(
                f"{self.what}: {far}, {status} {'in' if status == 'done' else 'after'} {duration(time.monotonic() - self._start)}{note}"
            )
        still = f", {duration(self.left)} left" if self.left is not None else ""
        return visible(f"{self.what}: {far}{percent}{still}{note}")

    def _emit(self, status: str) -> None:
        line = self.line(status)
        if not self._display(line, status):
            self._print(line, status)
        elif "PBB_RUN_DIR" not in os.environ:
            self._print(line, status)

    def _print(self, line: str, status: str) -> None:
        now = time.monotonic()
        if status != "running" or now - self._printed >= PRINT_EVERY:
            self._printed = now
            print(PREFIX + line, flush=True)

    def _display(self, line: str, status: str) -> bool:
        """Returns whether there is a notebook to display in (after doing so)."""
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if shell is None or not hasattr(shell, "kernel"):
            return False
        from IPython.display import display

        share = min(self.done / self.total, 1.0) if self.total else None
        data: dict[str, Any] = {"text/plain": line, "text/html": _bar(line, share, status)}
        data[MIME] = json.dumps(
            {"what": visible(self.what), "done": self.done, "total": self.total, "left": self.left, "status": status, "line": line}
        )
        display(data, raw=True, display_id=self._id, update=self._displayed)
        self._displayed = True
        return True


class LiveCurves:
    """The loss of each running stage, redrawn in place every few seconds: to watch, not to keep (nothing is left when it closes).

    Args:
        every: Seconds between drawings.
    """

    def __init__(self, every: float = 5.0) -> None:
        self.every = every
        self.lines: list[dict] = []
        self._id, self._displayed, self._drawn = uuid.uuid4().hex, False, time.monotonic()

    def __enter__(self) -> LiveCurves:
        return self

    def __exit__(self, *_: object) -> None:
        if self._displayed:
            self._display({"text/html": "", "text/plain": ""}, {})

    def add(self, line: dict) -> None:
        """Takes a line of the training log: condition, seed, stage, step, loss."""
        self.lines.append(line)
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if hasattr(shell, "kernel") and time.monotonic() - self._drawn >= self.every:
            self._drawn = time.monotonic()
            self._draw()

    def _draw(self) -> None:
        import base64
        import io

        import pandas as pd

        from pbb_helpers.figures import plots

        buffer = io.BytesIO()
        plots.training_curves(pd.DataFrame(self.lines)).savefig(buffer, format="png", dpi=80)
        alt = "Loss so far, by training step, one line per stage and seed that is running."
        self._display({"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": alt}, {"image/png": {"alt": alt}})

    def _display(self, data: dict[str, str], metadata: dict[str, Any]) -> None:
        from IPython.display import display

        display(data, raw=True, metadata=metadata, display_id=self._id, update=self._displayed)
        self._displayed = True


def _bar(line: str, share: float | None, status: str) -> str:
    """Returns the bar as HTML that needs no script and no style sheet."""
    colour = {"running": "#3b7dd8", "done": "#3a9a5b"}.get(status, "#c8453b")
    width = 100.0 if share is None else 100 * share
    return (
        f'<div class="pbb-progress" style="max-width: 640px; margin: 4px 0"><div style="height: 6px; background: #8884">'
        f'<div style="height: 6px; width: {width:.1f}%; background: {colour}"></div></div>'
        f'<div style="font-size: 12px">{html.escape(line)}</div></div>'
    )
