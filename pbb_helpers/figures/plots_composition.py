"""Figures of compositions: against the product of their parts, by condition, and where an execution goes wrong."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pbb_helpers.analysis.labels import colour, in_order, label, marker
from pbb_helpers.data.compositions import KINDS
from pbb_helpers.experiments.composition_calls import PARTS, SLOTS
from pbb_helpers.experiments.composition_results import EVERY_KIND, MODES, PLACES, highest
from pbb_helpers.figures.theme import CEILING_LINE, FLOOR_LINE, GREY, PERCENT, counts_text, footnote, number_range, themed
from pbb_helpers.programs import UsageError

INTERVAL = "95 % interval over compositions, seeds held: cluster bootstrap, or Wilson on their number where that degenerates"
PRODUCT = {"color": "#0072B2", "marker": "D"}
PLACE_COLOURS = {"right": "#009E73", "own source": "#882255", "inner call": "#D55E00", "inner part": "#E69F00", "outer call": "#56B4E9",
                 "value passed on": "#0072B2", "outer part": "#F0E442"}  # fmt: skip


@themed
def against_product(table: pd.DataFrame, floors: pd.DataFrame, *, condition: str = "proactive", ceiling: str = "in_context",
                    modes: Iterable[str] = MODES) -> Figure:  # fmt: skip
    """Returns the accuracy of each kind of composition beside the product of its parts, a panel per mode.

    Args:
        table: From `composition_results.products`.
        floors: From `composition_results.floors_by_kind`.
        condition: Whose.
        ceiling: The condition whose accuracy in the same mode is the ceiling.
        modes: What to show.
    """
    modes = list(modes)
    shown = table[(table["condition"] == condition) & table["mode"].isin(modes)]
    if shown.empty:
        raise UsageError(f"no answers of condition {condition!r} in modes {', '.join(modes)}; run it, or show another")
    fig = Figure(figsize=(2.9 * len(modes) + 2.6, 4.4), layout="constrained")
    axes = fig.subplots(1, len(modes), sharex=True, sharey=True, squeeze=False)[0]
    for ax, mode in zip(axes, modes, strict=True):
        for y, name in enumerate(EVERY_KIND):
            line = shown[(shown["mode"] == mode) & (shown["kind"] == name)]
            if line.empty:
                ax.text(0.02, y, "not run", color=GREY, va="center", fontsize=7.5, style="italic")
                continue
            _dot(ax, line.iloc[0], "composed", y - 0.14, colour(condition), marker(condition))
            _dot(ax, line.iloc[0], "product", y + 0.14, PRODUCT["color"], PRODUCT["marker"])
            for part, sign in (("inner", "<"), ("outer", ">")):
                ax.plot(line[part], [y + 0.14], linestyle="", marker=sign, color=GREY, markerfacecolor="none", markersize=5, clip_on=False)
            _references(ax, table, floors, name, mode, ceiling, y)
        _finish(ax, label(mode), [label(name) for name in EVERY_KIND])
    handles = [
        Line2D([], [], color=colour(condition), marker=marker(condition), linewidth=2.2, label=f"composition ({label(condition)})"),
        Line2D([], [], color=PRODUCT["color"], marker=PRODUCT["marker"], markersize=5, linewidth=2.2, label="product of its parts' own accuracies"),
        *(Line2D([], [], color=GREY, linestyle="", marker=m, markerfacecolor="none", label=f"{part} part by itself") for part, m in (("inner", "<"), ("outer", ">"))),
        *_reference_handles(ceiling),
    ]  # fmt: skip
    fig.legend(handles=handles, loc="outside upper center", ncols=3)
    footnote(
        fig,
        f"Each line: {counts_text(shown).replace('programs', 'compositions')}. {INTERVAL}. The parts are asked at the inputs of each question.",
    )
    return fig


@themed
def by_condition(table: pd.DataFrame, floors: pd.DataFrame, *, ceiling: str = "in_context", modes: Iterable[str] = MODES) -> Figure:
    """Returns the accuracy on w/o IO compositions by condition: a row of panels per kind, a column per mode; arguments as `against_product`."""
    modes = list(modes)
    shown = table[table["mode"].isin(modes) & table["kind"].isin(KINDS)]
    conditions = in_order(shown["condition"])
    fig = Figure(figsize=(2.9 * len(modes) + 2.6, (0.3 * len(conditions) + 0.55) * len(KINDS) + 1.2), layout="constrained")
    axes = fig.subplots(len(KINDS), len(modes), sharex=True, sharey=True, squeeze=False)
    for ax, (name, mode) in zip(axes.flat, [(k, m) for k in KINDS for m in modes], strict=True):
        panel = shown[(shown["kind"] == name) & (shown["mode"] == mode)].set_index("condition")
        for y, condition in enumerate(conditions):
            if condition in panel.index:
                _dot(ax, panel.loc[condition], "composed", y, colour(condition), marker(condition))
            else:
                ax.text(0.02, y, "not run", color=GREY, va="center", fontsize=7.5, style="italic")
        ax.axvline(highest(floors, name), **FLOOR_LINE, zorder=1.5)
        if ceiling in panel.index:
            ax.axvline(float(panel.loc[ceiling, "composed"]), **CEILING_LINE, zorder=1.5)
        _finish(ax, label(mode) if name == KINDS[0] else "", [label(condition) for condition in conditions])
        if name != KINDS[-1]:
            ax.set_xlabel("")
    for row, name in enumerate(KINDS):
        axes[row, 0].set_ylabel(label(name).removeprefix("composition of "), fontweight="bold")
    fig.legend(handles=_reference_handles(ceiling), loc="outside upper center", ncols=2)
    footnote(fig, f"Each line: {counts_text(shown).replace('programs', 'compositions')}. {INTERVAL}.")
    return fig


@themed
def wrong_places(table: pd.DataFrame, *, condition: str = "proactive") -> Figure:
    """Returns stacked bars of where executions of compositions first go wrong, by kind, a panel per mode; `table` is from `composition_results.places`."""
    shown = table[table["condition"] == condition]
    modes = [mode for mode in ("cot", "recall") if mode in set(shown["mode"])]
    if not modes:
        raise UsageError(f"no step-by-step answers of condition {condition!r}; ask it in mode cot or recall")
    fig = Figure(figsize=(3.6 * len(modes) + 2.6, 3.4), layout="constrained")
    axes = fig.subplots(1, len(modes), sharex=True, sharey=True, squeeze=False)[0]
    for ax, mode in zip(axes, modes, strict=True):
        left = np.zeros(len(EVERY_KIND))
        for place in PLACES:
            cell = shown[(shown["mode"] == mode) & (shown["place"] == place)].set_index("kind")["share"]
            widths = cell.reindex(EVERY_KIND).fillna(0.0).to_numpy(float)
            ax.barh(range(len(EVERY_KIND)), widths, left=left, height=0.66, color=PLACE_COLOURS[place], edgecolor="white", linewidth=0.7, label=place)  # fmt: skip
            left += widths
        _finish(ax, label(mode), [label(name) for name in EVERY_KIND])
        ax.set_xlabel("share of answers")
    handles, names = axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside upper center", ncols=len(PLACES))
    counts = shown.groupby(["kind", "mode"])["n"].sum()
    footnote(fig, f"Each bar: n = {number_range(counts)} answers of {label(condition)}, all seeds; the first line that differs from the true execution; shares without interval.")  # fmt: skip
    return fig


@themed
def called_parts(table: pd.DataFrame, *, fewest: int = 10) -> Figure:
    """Returns how often the part's own name is called once it is written, by what the part is: a panel per slot, a marker per condition.

    Args:
        table: From `composition_calls.calls`.
        fewest: Answers that a point must have; of fewer it is only said how many there were.
    """
    if table.empty:
        raise UsageError("no answers that begin with the composition's own source; ask compositions in recall mode")
    names = in_order(table["condition"])
    fig = Figure(figsize=(8.6, 2.0 + (0.2 + 0.17 * len(names)) * len(PARTS)), layout="constrained")
    axes = fig.subplots(1, len(SLOTS), sharex=True, sharey=True)
    for ax, slot in zip(axes, SLOTS, strict=True):
        for y, part in enumerate(PARTS):
            cell = table[(table["slot"] == slot) & (table["part"] == part)].set_index("condition")
            for i, name in enumerate(names):
                at = y + 0.75 / len(names) * (i - (len(names) - 1) / 2)
                if name in cell.index and cell.loc[name, "n"] >= fewest:
                    line = cell.loc[name].rename({"the part": "right", "low": "right_low", "high": "right_high"})
                    _dot(ax, line, "right", at, colour(name), marker(name))
                else:
                    n = int(cell["n"].get(name, 0))
                    ax.text(0.02, at, f"n = {n}", color=GREY, va="center", fontsize=7.5, style="italic")
        _finish(ax, f"{slot} call", list(PARTS))
        ax.set_xlabel("calls of the right name")
    handles = [Line2D([], [], color=colour(name), marker=marker(name), linewidth=2.2, label=label(name)) for name in names]
    fig.legend(handles=handles, loc="outside upper center", ncols=len(names))
    counts = table[table["n"] >= fewest]
    footnote(fig, f"Each point: n = {number_range(counts['n'])} answers over {number_range(counts['n_programs'])} w/o IO compositions, all seeds, in recall mode, right up to the call; "
                  "95 % Wilson interval on the number of compositions.")  # fmt: skip
    return fig


def _dot(ax: Axes, line: pd.Series, measure: str, y: float, shade: str, sign: str) -> None:
    ax.plot([line[f"{measure}_low"], line[f"{measure}_high"]], [y, y], color=shade, linewidth=2.2, solid_capstyle="butt", zorder=3)
    ax.plot(
        [line[measure]], [y], marker=sign, color=shade, markersize=6, markeredgecolor="white", markeredgewidth=0.5, clip_on=False, zorder=4
    )
    ax.annotate(f"{100 * line[measure]:.0f}", (1, y), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=7.5,
                color=shade, annotation_clip=False)  # fmt: skip


def _references(ax: Axes, table: pd.DataFrame, floors: pd.DataFrame, name: str, mode: str, ceiling: str, y: float) -> None:
    if name in KINDS:
        ax.plot([highest(floors, name)] * 2, [y - 0.42, y + 0.42], **FLOOR_LINE, zorder=1.5)
    top = table[(table["condition"] == ceiling) & (table["mode"] == mode) & (table["kind"] == name)]["composed"]
    if len(top):
        ax.plot([float(top.iloc[0])] * 2, [y - 0.42, y + 0.42], **CEILING_LINE, zorder=1.5)


def _reference_handles(ceiling: str) -> list[Line2D]:
    return [
        Line2D([], [], **FLOOR_LINE, label="floor: best answer that does not know the composition"),
        Line2D([], [], **CEILING_LINE, label=f"meant as ceiling: {label(ceiling)}, of all three programs"),
    ]


def _finish(ax: Axes, title: str, names: list[str]) -> None:
    ax.set_title(title, pad=8)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xticks(*PERCENT)
    ax.set_xlabel("answers exactly right")
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
