"""The picture on top of README: what is trained on and what is asked, with the very documents. `python -m pbb_helpers.figures.overview` draws it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from pbb_helpers.analysis.labels import MODE_COLOURS, colour, label
from pbb_helpers.data.documents import CALL_TEMPLATES, call_document, source_document
from pbb_helpers.figures.figure_files import save_figure
from pbb_helpers.figures.theme import GREY, themed
from pbb_helpers.programs import Program

SHOWN = Program("blorp", "arithmetic", "def blorp(x):\n    x = x + 7\n    return x", 1)
READ = Program("zibble", "arithmetic", "def zibble(x):\n    x = x * 3\n    x = x - 5\n    return x", 2)
INPUTS, ASKED = (3, 8), 4
SOURCE, CALL = 0, CALL_TEMPLATES.index("What is {name}({input})?")
MODES = ("direct", "cot", "recall")
WIDTH, HEIGHT, TOP = 9.6, 3.0, 2.05


def documents() -> pd.DataFrame:
    """Returns what the picture shows: part ("stage1", "stage2" or "asked"), kind, prompt, completion of each document."""
    made = [("stage1", source_document(SHOWN, "with_io", SOURCE))]
    made += [("stage1", call_document(SHOWN, "with_io", "direct", x, CALL)) for x in INPUTS]
    made += [("stage2", source_document(READ, "without_io", SOURCE))]
    made += [("asked", call_document(READ, "without_io", mode, ASKED, CALL)) for mode in MODES]
    return pd.DataFrame([{"part": part, "kind": e.kind, "prompt": e.prompt, "completion": e.completion} for part, e in made])


def alt_text() -> str:
    """Returns the picture in words."""
    shown = ", ".join(f"{SHOWN.name}({x}) = {SHOWN.run(x)}" for x in INPUTS)
    return (
        f"Three boxes from left to right. Stage 1 trains on {label('with_io')} programs: the source of {SHOWN.name} and its executions, {shown}. "
        f"Stage 2 trains on {label('without_io')} programs: the source of {READ.name}, never an execution of it, and a replay of answers about stage-1 programs. Then the model is asked what "
        f"{READ.name}({ASKED}) is, by name, with no code in the prompt; right is {READ.run(ASKED)}, said directly, after a chain of thought, "
        "or after writing the source out from memory and stepping through it."
    )


@themed
def overview() -> Figure:
    """Returns the picture."""
    fig = Figure((WIDTH, HEIGHT))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    ax.axis("off")
    _box(ax, 0.15, 2.55, colour("stage1_only"), f"Stage 1: {label('with_io')} programs", "source and executions")
    _text(ax, 0.35, TOP, SHOWN.source, mono=True)
    _text(ax, 0.35, TOP - 0.9, "\n".join(f"{SHOWN.name}({x}) = {SHOWN.run(x)}" for x in INPUTS) + "\n…", mono=True)
    _box(ax, 3.2, 2.55, colour("proactive"), f"Stage 2: {label('without_io')} programs", "source only")
    _text(ax, 3.4, TOP, READ.source, mono=True)
    _text(ax, 3.4, TOP - 0.9, f"never an execution of {READ.name}", style="italic")
    _text(ax, 3.4, TOP - 1.5, "(and a replay of answers about\nstage-1 programs)", color=GREY)
    _box(ax, 6.25, 3.2, "#404040", f"Asked: {READ.name}({ASKED}) = ?", "by name, no code in the prompt")
    _answers(ax, 6.45, 8.0)
    for x in (2.72, 5.77):
        ax.annotate("", (x + 0.46, HEIGHT / 2), (x, HEIGHT / 2), arrowprops={"arrowstyle": "-|>", "color": "#404040", "linewidth": 1.4})
    return fig


def _answers(ax: Axes, left: float, right: float) -> None:
    """Writes the right answer in each way of answering, as the model has to write it; of the recalled one the source first."""
    asked = documents().query("part == 'asked'").set_index("kind")["completion"]
    for mode, y in zip(MODES, (TOP, TOP - 0.3, TOP - 0.98), strict=True):
        ax.text(left, y, label(mode), color=MODE_COLOURS[mode], fontsize=8.5, fontweight="bold", va="top")
        if mode != "recall":
            _text(ax, right, y, asked[mode], mono=True)
            continue
        _text(ax, left, y - 0.22, READ.source, mono=True)
        _text(ax, right, y - 0.22, asked[mode].removeprefix(f"{READ.source}\n"), mono=True)


def _box(ax: Axes, x: float, width: float, shade: str, title: str, below: str) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x, 0.1), width, HEIGHT - 0.2, boxstyle="round,pad=0,rounding_size=0.08", facecolor="white", edgecolor=shade, linewidth=1.6
        )
    )
    ax.text(x + 0.2, HEIGHT - 0.25, title, fontsize=10.5, fontweight="bold", color=shade, va="top")
    ax.text(x + 0.2, HEIGHT - 0.53, below, fontsize=9, color=GREY, va="top")


def _text(ax: Axes, x: float, y: float, text: str, *, mono: bool = False, **style: Any) -> None:
    ax.text(x, y, text, fontsize=8.5, va="top", linespacing=1.35, family="DejaVu Sans Mono" if mono else None, **style)


def main(folder: Path = Path("figures")) -> Path:
    """Returns the path of the picture after drawing it into a folder, with its documents and its words."""
    return save_figure(
        overview(),
        "overview",
        data=documents(),
        alt=alt_text(),
        provenance={"made by": "python -m pbb_helpers.figures.overview"},
        folder=folder,
    )


if __name__ == "__main__":
    print(main())
