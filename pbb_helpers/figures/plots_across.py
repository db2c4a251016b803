"""Accuracy and differences along something: base models, parameters, numbers of programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from pbb_helpers.analysis import statistics
from pbb_helpers.analysis.fits import Fit
from pbb_helpers.analysis.labels import MODE_COLOURS, colour, in_order, label, marker
from pbb_helpers.figures.plots import INTERVAL
from pbb_helpers.figures.theme import FLOOR_LINE, GREY, PERCENT, counts_text, footnote, number_range, themed

MODES = ("direct", "cot", "recall", "source")
UNTUNED = ("in_context", "in_context_description")
FIT_LINE: dict[str, Any] = {"color": GREY, "linestyle": "-.", "linewidth": 1.3}


@themed
def accuracy_along(table: pd.DataFrame, column: str, *, modes: Iterable[str] = MODES, group: str = "without_io", at: Mapping[object, float] | None = None,
                   xlabel: str = "", floors: pd.DataFrame | None = None, fits: Mapping[str, Fit] | None = None) -> Figure:  # fmt: skip
    """Returns accuracy against `column`, a panel per mode, a line per condition; the untuned ones, with the program in the prompt, are dashed.

    Args:
        table: From `across.results`, with a line for each value of `column`, condition, mode, group and seed.
        column: What stands along the axis.
        modes, group: What to show.
        at: Where each value of the column stands on a logarithmic axis (its parameters, say); by default they stand side by side.
        xlabel: What the axis says.
        floors: From `statistics.floors` or `with_control`; the highest is drawn in each panel.
        fits: From `fits.along`, by mode: the curves of those that hold are drawn.
    """
    modes = list(modes)
    shown = table[table["mode"].isin(modes) & (table["group"] == group)].assign(seed=table["seed"].astype(str))
    values, names = list(dict.fromkeys(shown[column])), in_order(shown["condition"])
    places = {value: float(at[value]) if at else float(i) for i, value in enumerate(values)}
    fig = Figure(figsize=(max(2.5 * len(modes) + 0.8, 6.6), 4.2), layout="constrained")
    axes = fig.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    for ax, mode in zip(axes, modes, strict=True):
        panel = shown[shown["mode"] == mode]
        for name, shift in zip(names, np.linspace(-1, 1, len(names)) if len(names) > 1 else [0.0], strict=True):
            _line(ax, panel[panel["condition"] == name].assign(x=panel[column].map(places)), name, shift, logarithmic=at is not None)
        if fits and mode in fits and fits[mode].holds:
            grid = np.geomspace(min(places.values()), max(places.values()), 50)
            ax.plot(grid, fits[mode].at(grid), **FIT_LINE, zorder=1.8)
        if floors is not None and mode != "source":  # who does not know the program cannot write it
            ax.axhline(statistics.highest_floor(floors, mode)[1], **FLOOR_LINE, zorder=1.5)
        _axis(ax, values, places, xlabel, logarithmic=at is not None)
        ax.set_title(label(mode))
    axes[0].set_yticks(*PERCENT)
    axes[0].set_ylim(-0.02, 1.02)
    axes[0].set_ylabel(f"exactly right, {label(group)} programs")
    handles = [
        Line2D([], [], color=colour(n), marker=marker(n), markersize=5, linestyle="--" if n in UNTUNED else "-", label=label(n))
        for n in names
    ]
    if fits and any(f.holds for f in fits.values()):
        handles.append(Line2D([], [], **FIT_LINE, label="line in logit against logarithm, where it holds"))
    if floors is not None:
        best = dict.fromkeys(statistics.highest_floor(floors, mode) for mode in modes if mode != "source")
        handles.append(Line2D([], [], **FLOOR_LINE, label="floor: " + ", ".join(f"{label(n)} ({100 * v:.0f} %)" for n, v in best)))
    fig.legend(handles=handles, loc="outside upper center", ncols=3)
    footnote(fig, f"Each point: {counts_text(shown[shown['seed'] == 'all'])}; small dots: one seed each. {INTERVAL}.")
    return fig


def _line(ax: Axes, lines: pd.DataFrame, name: str, shift: float, *, logarithmic: bool) -> None:
    def moved(x: pd.Series) -> pd.Series:  # beside each other, so that intervals can be told apart
        return x * 1.02**shift if logarithmic else x + 0.12 * shift

    overall = lines[lines["seed"] == "all"].sort_values("x")
    if overall.empty:
        return
    spread = np.abs(overall[["low", "high"]].to_numpy(float).T - overall["accuracy"].to_numpy(float))
    ax.errorbar(moved(overall["x"]), overall["accuracy"], yerr=spread, color=colour(name), marker=marker(name), markersize=5, linewidth=1.1, elinewidth=1.4,
                linestyle="--" if name in UNTUNED else "-", clip_on=False, zorder=3)  # fmt: skip
    seeds = lines[lines["seed"] != "all"]
    ax.plot(moved(seeds["x"]), seeds["accuracy"], linestyle="", marker="o", markersize=2.2, color=colour(name), alpha=0.6, zorder=2)


def _axis(ax: Axes, values: Sequence[object], places: Mapping[object, float], xlabel: str, *, logarithmic: bool) -> None:
    if logarithmic:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
        ax.set_xticks(sorted(set(places.values())))
        ax.xaxis.set_minor_locator(NullLocator())
        if len(places) > 4:  # "1,600" and "3,200" would touch
            ax.tick_params(axis="x", rotation=40)
    else:
        ax.set_xticks(list(places.values()), [str(value) for value in values], rotation=20 if max(len(str(v)) for v in values) > 6 else 0)
        ax.set_xlim(-0.4, len(values) - 0.6)
    ax.set_xlabel(xlabel)
    ax.grid(axis="y")


@themed
def differences(table: pd.DataFrame, *, column: str = "model", title: str = "", names: Mapping[str, str] | None = None) -> Figure:
    """Returns paired differences with their intervals: a row per value of `column`, a panel per mode; filled where every seed agrees.

    Args:
        table: From `across.contrasts`: `column`, mode, effect, low, high, n, n_programs, n_seeds, apart.
        column: What stands at the rows.
        title: What is positive.
        names: Words for the values of the column.
    """
    modes, values = list(dict.fromkeys(table["mode"])), list(dict.fromkeys(table[column]))
    fig = Figure(figsize=(max(2.3 * len(modes) + 1.6, 6.6), 0.42 * len(values) + 1.9), layout="constrained")
    axes = fig.subplots(1, len(modes), sharex=True, sharey=True, squeeze=False)[0]
    for ax, mode in zip(axes, modes, strict=True):
        ax.axvline(0, color=GREY, linewidth=0.9)
        for y, value in enumerate(values):
            line = table[(table["mode"] == mode) & (table[column] == value)].iloc[0]
            shade = MODE_COLOURS.get(mode, GREY)
            ax.plot([100 * line["low"], 100 * line["high"]], [y, y], color=shade, linewidth=2.2, solid_capstyle="butt")
            ax.plot(
                [100 * line["effect"]], [y], marker="o", markersize=6.5, color=shade, markerfacecolor=shade if line["apart"] else "white"
            )
            ax.annotate(f"{100 * line['effect']:+.0f}", (1, y), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
                        fontsize=8, color="#303030", annotation_clip=False)  # fmt: skip
        ax.set_title(label(mode))
        ax.set_yticks(range(len(values)), [(names or {}).get(value, str(value)) for value in values])
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("points")
        ax.grid(axis="x")
    axes[0].set_ylim(len(values) - 0.5, -0.5)
    fig.suptitle(title, fontsize=10)
    seeds = number_range(table["n_seeds"])
    footnote(fig, f"Each line: n = {number_range(table['n'])} pairs over {number_range(table['n_programs'])} programs, {seeds} seed{'' if seeds == '1' else 's'}; 95 % interval of the paired difference over "
                  "programs, seeds held. Filled: it excludes zero and every seed agrees.")  # fmt: skip
    return fig


def short_number(value: float) -> str:
    """Returns a number as it stands at an axis, to three digits.

    >>> short_number(800), short_number(3200), short_number(557_632), short_number(1_967_744)
    ('800', '3,200', '558k', '1.97M')
    """
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:,.0f}"
