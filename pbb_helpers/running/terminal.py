"""Progress of a run for people: one line that is rewritten in a terminal, a line now and then in a log."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

from pbb_helpers.markup import visible


class Terminal:
    """Progress for people: one line that is rewritten in a terminal, a line now and then in a log."""

    def __init__(self, every: float = 10.0) -> None:
        self.live, self.every = sys.stderr.isatty(), every
        self._start, self._last, self._heading = time.monotonic(), 0.0, ""
        self._line = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def event(self, what: dict[str, Any]) -> None:
        """Shows a new section of the notebook, or how far the work is."""
        if what["kind"] == "cell" and what["heading"] != self._heading:
            self._heading = what["heading"]
            self._write(f"[{self._clock()}] {what['index'] + 1}/{what['count']} {self._heading}", stays=True)
        elif what["kind"] == "progress":
            ended = what.get("status") in ("done", "failed")
            self._write(f"[{self._clock()}]   {what['line']}", stays=ended or what.get("status") == "line")

    def clear(self) -> None:
        """Takes the rewritten line away."""
        if self._line and self.live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._line = ""

    def _write(self, text: str, *, stays: bool) -> None:
        text, now = visible(text), time.monotonic()
        if stays:
            self.clear()
            print(text, file=sys.stderr, flush=True)
        elif self.live:
            self._line = text[: shutil.get_terminal_size().columns - 1]
            sys.stderr.write(f"\r\x1b[K{self._line}")
            sys.stderr.flush()
        elif now - self._last >= self.every:
            self._last = now
            print(text, file=sys.stderr, flush=True)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._start)
        return f"{seconds // 60:3d}:{seconds % 60:02d}"
