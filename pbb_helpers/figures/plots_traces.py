"""What becomes of generated executions: which half fails, and on which line."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pbb_helpers.analysis.labels import colour, in_order, label, marker
from pbb_helpers.analysis.traces import ERRORS, TRACED, shares, still_right
from pbb_helpers.figures.theme import GREY, PERCENT, footnote, number_range, themed
from pbb_helpers.programs import UsageError

ERROR_COLOURS = {"right": "#009E73", "wrong arithmetic": "#F0E442", "wrong state": "#E69F00", "wrong operation": "#D55E00",
                 "not a step": "#56B4E9", "source not written first": "#882255", "wrong end": "#999999"}  # fmt: skip
GROUPS = ("without_io", "with_io")


@themed
def errors_by_condition(errors: pd.DataFrame) -> Figure:
    """Returns stacked bars of what generated executions are, by condition: a column of panels per mode, a row per group.

    Args:
        errors: From `traces.first_errors`.
    """
    _require_some(errors)
    table, names = shares(errors), in_order(errors["condition"])
    fig = Figure(figsize=(8.6, (0.3 * len(names) + 0.5) * len(GROUPS) + 1.3), layout="constrained")
    axes = fig.subplots(len(GROUPS), len(TRACED), sharex=True, sharey=True, squeeze=False)
    for ax, (group, mode) in zip(axes.flat, [(g, m) for g in GROUPS for m in TRACED], strict=True):
        cell = table[(table["group"] == group) & (table["mode"] == mode)]
        left = np.zeros(len(names))
        for error in ERRORS:
            widths = cell[cell["error"] == error].set_index("condition")["share"].reindex(names).fillna(0.0).to_numpy(float)
            ax.barh(
                range(len(names)), widths, left=left, height=0.66, color=ERROR_COLOURS[error], edgecolor="white", linewidth=0.7, label=error
            )
            left += widths
        for y in np.flatnonzero(left == 0):
            ax.text(0.02, y, "not run", color=GREY, va="center", fontsize=7.5, style="italic")
        ax.set_title(label(mode) if group == GROUPS[0] else "")
        ax.set_yticks(range(len(names)), [label(name) for name in names])
        ax.tick_params(axis="y", length=0)
        ax.set_xlim(0, 1)
        ax.set_xticks(*PERCENT)
    axes[0, 0].invert_yaxis()
    for row, group in enumerate(GROUPS):
        axes[row, 0].set_ylabel(f"{label(group)} programs", fontweight="bold")
    for ax in axes[-1]:
        ax.set_xlabel("share of answers")
    handles, names_shown = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, names_shown, loc="outside upper center", ncols=4)
    footnote(
        fig, f"Each bar: {_counts(errors)}, all seeds. The kind of an answer is that of its first wrong line; shares without interval."
    )
    return fig


@themed
def right_so_far(errors: pd.DataFrame, *, group: str = "without_io") -> Figure:
    """Returns the share of generated executions that are right up to each line, a panel per mode, a line per condition.

    Args:
        errors: From `traces.first_errors`.
        group: Whose programs.
    """
    _require_some(errors)
    table = still_right(errors[errors["group"] == group])
    fig = Figure(figsize=(8.2, 4.0), layout="constrained")
    axes = fig.subplots(1, len(TRACED), sharey=True)
    for ax, mode in zip(axes, TRACED, strict=True):
        _curves(ax, table[table["mode"] == mode])
        ax.set(title=label(mode), xlabel="line of the true execution (0: the source, in recall mode)", ylim=(-0.02, 1.02))
        ax.grid(axis="y")
    axes[0].set_yticks(*PERCENT)
    axes[0].set_ylabel(f"right so far, {label(group)} programs")
    handles, names = axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside upper center", ncols=3)
    footnote(fig, f"Each curve: {_counts(errors[errors['group'] == group])} at line 1; at each line those executions that have it, at least 5 of "
                   "them; band: 95 % Wilson interval on the number of programs.")  # fmt: skip
    return fig


@themed
def beyond_chance(table: pd.DataFrame, what: str, *, chance: str, own: str, group: str = "without_io") -> Figure:
    """Returns shares beside those by chance, a row per condition.

    Args:
        table: From `near_misses.near_misses`, or a mode of `beyond_chance.right`.
        what: What is counted, for the axis.
        chance, own: What the two marks are, for the legend.
        group: Whose programs.

    Raises:
        UsageError: There is no line of this group.
    """
    shown = table[table["group"] == group].set_index("condition")
    if shown.empty:
        raise UsageError(f"nothing to draw about {label(group)} programs: {what}")
    names = in_order(shown.index)
    fig = Figure(figsize=(7.6, 0.36 * len(names) + 1.5), layout="constrained")
    ax = fig.subplots()
    most = max(shown["share"].max(), (shown["chance"] + shown["high"]).max())
    digits = 0 if most > 0.2 else 1  # a difference of one point is much there
    for y, name in enumerate(names):
        line = shown.loc[name]
        shade = colour(name)
        ax.plot([line["chance"], line["share"]], [y, y], color=shade, linewidth=0.8, zorder=2)
        ax.plot(line["chance"] + line[["low", "high"]].to_numpy(float), [y, y], color=shade, linewidth=2.2, solid_capstyle="butt", zorder=3)
        ax.plot(
            [line["share"]], [y], marker=marker(name), color=shade, markersize=6, markeredgecolor="white", markeredgewidth=0.5, zorder=4
        )
        ax.plot([line["chance"]], [y], marker="D", color=GREY, markerfacecolor="white", markersize=5, zorder=4)
        ax.annotate(f"{100 * line['share']:.{digits}f}, by chance {100 * line['chance']:.{digits}f}", (1, y), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                    va="center", fontsize=7.5, color=shade, annotation_clip=False)  # fmt: skip
    ax.set_yticks(range(len(names)), [label(name) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.5, -0.5)
    end, step = (1.0, 0.2) if most > 0.4 else (1.1 * most, 0.05 if most > 0.15 else 0.02)
    ticks = np.arange(0, end + 1e-9, step)
    ax.set_xlim(0, end)
    ax.set_xticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
    ax.grid(axis="x")
    ax.set_xlabel(f"{what}, {label(group)} programs")
    handles = [Line2D([], [], color=GREY, marker="D", markerfacecolor="white", linestyle="", label=f"by chance: {chance}"),
               Line2D([], [], color=GREY, marker="o", linewidth=2.2, label=own)]  # fmt: skip
    fig.legend(handles=handles, loc="outside upper center", ncols=2)
    footnote(fig, f"Each row: n = {number_range(shown['n'])} answers over {number_range(shown['n_programs'])} programs; bar: 95 % interval of the distance from chance, "
                   "over programs, seeds held: cluster bootstrap.")  # fmt: skip
    return fig


def _curves(ax: Axes, table: pd.DataFrame) -> None:
    for name in in_order(table["condition"]):
        line = table[table["condition"] == name].sort_values("line")
        ax.plot(line["line"], line["share"], color=colour(name), marker=marker(name), markersize=4.5, linewidth=1.2, label=label(name),
                linestyle="--" if name == "in_context" else "-", clip_on=False, zorder=3)  # fmt: skip
        ax.fill_between(line["line"], line["low"], line["high"], color=colour(name), alpha=0.13, linewidth=0)
    ax.set_xticks(sorted(table["line"].unique()))


def _counts(errors: pd.DataFrame) -> str:
    cells = errors.groupby(["condition", "group", "mode"])
    programs = (
        errors.assign(program=errors["seed"].astype(str) + " " + errors["program"])
        .groupby(["condition", "group", "mode"])["program"]
        .nunique()
    )
    seeds = errors["seed"].nunique()
    return f"n = {number_range(cells.size())} answers over {number_range(programs)} programs, {seeds} seed{'' if seeds == 1 else 's'}"


def _require_some(errors: pd.DataFrame) -> None:
    if errors.empty:
        raise UsageError(f"no answers in modes {', '.join(TRACED)}; ask in one of them")
