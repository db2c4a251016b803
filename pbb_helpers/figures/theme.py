"""How every figure looks, and the words under it: the theme, the reference lines, the counts and the footnote."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

GREY = "#5F5F5F"
FLOOR_LINE: dict[str, Any] = {"color": "#A6761D", "linestyle": (0, (4, 2)), "linewidth": 1.4}
CEILING_LINE: dict[str, Any] = {"color": "black", "linestyle": ":", "linewidth": 1.2}
PERCENT = (0.0, 0.25, 0.5, 0.75, 1.0), ("0", "25", "50", "75", "100 %")


def theme() -> Any:
    """Returns the context in which all figures are made: opaque white, so that a figure reads on a light and on a dark page."""
    settings = {
        **sns.axes_style("ticks"), "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.0, "axes.titlesize": 10.0,
        "axes.labelsize": 9.0, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "legend.fontsize": 8.5, "legend.frameon": False,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#404040", "grid.color": "#E3E3E3", "grid.linewidth": 0.7,
        "figure.facecolor": "white", "savefig.facecolor": "white", "axes.axisbelow": True,
    }  # fmt: skip
    return mpl.rc_context(settings)


def themed(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Returns the drawing function with all it does inside the theme."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Figure:
        with theme():
            return draw(*args, **kwargs)

    return wrapper


def number_range(values: pd.Series) -> str:
    """Returns "80", or "60 to 80" where the values differ."""
    low, high = values.min(), values.max()
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def counts_text(overall: pd.DataFrame) -> str:
    """Returns what stands behind a point, from lines of `statistics.results` with seed "all"."""
    seeds = number_range(overall["n_seeds"])
    return f"n = {number_range(overall['n'])} answers over {number_range(overall['n_programs'])} programs, {seeds} seed{'' if seeds == '1' else 's'}"


def footnote(fig: Figure, text: str) -> None:
    """Writes `text` below everything, wrapped by hand to the width of the figure: matplotlib's own wrapping ignores the layout."""
    lines = textwrap.wrap(text, int(fig.get_figwidth() * 17))
    fig.legend(handles=[], title="\n".join(lines), title_fontproperties={"size": 7.5}, loc="outside lower left")
