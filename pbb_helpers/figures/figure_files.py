"""A recorded figure: the image, what it plots as CSV, and where it comes from; the same figure gives the same bytes."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from pbb_helpers.disk import plain_errors
from pbb_helpers.programs import UsageError

SMALL_SVG = 200_000  # bytes; a larger one is not worth its place in a git history
DPI = 160


def save_figure(fig: Figure, name: str, *, data: pd.DataFrame, alt: str, provenance: Mapping[str, Any], folder: Path | str) -> Path:
    """Returns the path of name.png after writing it with name.csv (what is plotted), name.json (alt text, provenance) and, if small, name.svg.

    Nothing that is written holds a time of its own: the same figure, data and provenance give the same bytes with the same matplotlib.

    Args:
        fig: The figure.
        name: Letters, digits, "-" and "_".
        data: What the figure plots.
        alt: What it shows, in words, for those who don't see it.
        provenance: Of the run: parameters, commit, hardware and the like; must be JSON.
        folder: Made if need be.

    Raises:
        UsageError: A bad name, no alt text, no data, provenance that is not JSON, no permission or no space.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(f"figure name {name!r}; use letters, digits, - and _ without an ending, such as 'accuracy_by_condition'")
    if not alt.strip():
        raise UsageError(f"figure {name!r} has no alt text; say in words what it shows")
    if data.empty:
        raise UsageError(f"figure {name!r} has no data; pass the table that it plots")
    folder = Path(folder)
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        png = folder / f"{name}.png"
        _write(folder / f"{name}.csv", data.to_csv(index=False, lineterminator="\n", float_format="%.10g").encode())
        _write(folder / f"{name}.json", _described(name, alt, provenance))
        svg = _rendered(fig, "svg")
        if len(svg) <= SMALL_SVG:
            _write(folder / f"{name}.svg", svg)
        else:
            (folder / f"{name}.svg").unlink(missing_ok=True)  # an older, smaller one would show another figure
        _write(png, _rendered(fig, "png"))
    return png


def _described(name: str, alt: str, provenance: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps({"name": name, "alt": alt.strip(), "provenance": dict(provenance)}, indent=2, sort_keys=True, ensure_ascii=False)
    except TypeError as error:
        raise UsageError(f"provenance of figure {name!r}: {error}; pass texts, numbers, lists and dicts only") from None
    return f"{text}\n".encode()


def _rendered(fig: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    # Without a salt matplotlib draws random ids for an SVG; without these keys it writes its version, and the date.
    with mpl.rc_context({"svg.hashsalt": "pbb"}):
        fig.savefig(buffer, format=kind, dpi=DPI, metadata={"Software": None} if kind == "png" else {"Date": None, "Creator": None})
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
