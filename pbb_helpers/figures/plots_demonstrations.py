"""Figures of source against I/O pairs: accuracy by shift or input, robustness in numbers, and accuracy against the number of pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pbb_helpers.analysis import statistics
from pbb_helpers.analysis.labels import colour, in_order, label, marker
from pbb_helpers.analysis.robustness import MODES, own_way
from pbb_helpers.figures.plots import INTERVAL
from pbb_helpers.figures.theme import CEILING_LINE, FLOOR_LINE, GREY, PERCENT, counts_text, footnote, number_range, themed
from pbb_helpers.programs import UsageError

CEILING = "in_context"
SOURCE, WITHOUT_STAGE1 = "proactive", "source_only"
MEASURE_WORDS = {
    "mean": "mean over all",
    "worst": "at the worst",
    "frequent": "where frequent",
    "rare": "where rare",
    "gap": "frequent minus rare",
}


@themed
def heat_map(
    table: pd.DataFrame, frequent: Sequence[int], *, axis: str = "shift", modes: Iterable[str] = MODES[1:], floor: float | None = None
) -> Figure:
    """Returns accuracy by condition and by what was called at, a panel per mode.

    Args:
        table: From `robustness.by_value`: columns condition, mode, bin, seed, accuracy, low, high, n.
        frequent: The bins of frequent values; they are marked below the axis.
        axis: What the bins are.
        modes: What to show.
        floor: The highest, over all values, for the footnote and a line on the colour bar.
    """  # fmt: skip
    modes = list(modes)
    shown = table[table["mode"].isin(modes) & (table["seed"] == "all")]
    if shown.empty:
        raise UsageError(f"no answers in modes {', '.join(modes)}; ask in one of these modes")
    conditions, bins = in_order(shown["condition"]), sorted(set(shown["bin"]))
    fig = Figure(figsize=(7.6, (0.24 * len(conditions) + 0.55) * len(modes) + 1.2), layout="constrained")
    axes = fig.subplots(len(modes), 1, sharex=True, squeeze=False)[:, 0]
    image = None
    for ax, mode in zip(axes, modes, strict=True):
        grid = (
            shown[shown["mode"] == mode].pivot(index="condition", columns="bin", values="accuracy").reindex(index=conditions, columns=bins)
        )
        image = ax.pcolormesh(range(len(bins) + 1), range(len(conditions) + 1), grid.to_numpy(float), cmap="cividis", vmin=0, vmax=1)
        for y, name in enumerate(conditions):
            if grid.loc[name].isna().all():
                ax.text(0.1, y + 0.5, "not run", color=GREY, va="center", fontsize=7.5, style="italic")
        ax.set_yticks(np.arange(len(conditions)) + 0.5, [label(name) for name in conditions])
        ax.invert_yaxis()
        ax.tick_params(length=0)
        ax.set_title(label(mode))
    names = [f"{'▲' if b in frequent else ' '}\n{b}" for b in bins]
    axes[-1].set_xticks(np.arange(len(bins)) + 0.5, [name.split("\n")[1] + "\n" + name.split("\n")[0] for name in names])
    axes[-1].set_xlabel(f"{axis} in the question; ▲ frequent in the skewed pairs")
    assert image is not None
    bar = fig.colorbar(image, ax=list(axes), aspect=40, pad=0.01)
    bar.set_ticks(PERCENT[0], labels=PERCENT[1])
    bar.set_label("exactly right, w/o IO programs")
    if floor is not None:
        bar.ax.axhline(floor, color="white", linewidth=1.2)
    width = (shown["high"] - shown["low"]).median() / 2
    spread = f"; their 95 % intervals over programs are ±{100 * width:.0f} points in the median" if not math.isnan(width) else ""
    under = f" Floor over all: {100 * floor:.0f} % (white line)." if floor is not None else ""
    footnote(fig, f"Each cell: {counts_text(shown)}{spread}.{under} Ceiling: {label(CEILING)}.")
    return fig


@themed
def measures(table: pd.DataFrame, *, names: Iterable[str] = ("mean", "worst", "gap"), modes: Iterable[str] = MODES,
             floor: float | None = None, ylabel: str = "exactly right, w/o IO programs") -> Figure:  # fmt: skip
    """Returns measures of robustness with their intervals: a column of panels per measure, a row per mode.

    Args:
        table: From `robustness.summary`.
        names: Which of `robustness.MEASURES`.
        modes: What to show.
        floor: The highest, over all values; drawn beside all but the gap.
        ylabel: What is scored.
    """
    names, modes = list(names), list(modes)
    conditions = in_order(table["condition"])
    gaps = table[(table["measure"] == "gap") & table["mode"].isin(modes)][["low", "high"]].abs().max().max()
    widest = 0.5 if gaps <= 0.5 else 1.0
    fig = Figure(figsize=(2.4 * len(names) + 2.6, (0.25 * len(conditions) + 0.65) * len(modes) + 1.0), layout="constrained")
    axes = fig.subplots(len(modes), len(names), sharey=True, squeeze=False)
    for ax, (mode, name) in zip(axes.flat, [(m, n) for m in modes for n in names], strict=True):
        panel = table[(table["mode"] == mode) & (table["measure"] == name)].set_index("condition")
        for y, one in enumerate(conditions):
            if one not in panel.index:
                ax.text(0.02, y, "not run", color=GREY, va="center", fontsize=7.5, style="italic")
                continue
            line = panel.loc[one]
            ax.plot([line["low"], line["high"]], [y, y], color=colour(one), linewidth=2.2, solid_capstyle="butt", zorder=3)
            ax.plot([line["accuracy"]], [y], marker=marker(one), color=colour(one), markersize=6.5, markeredgecolor="white", markeredgewidth=0.5,
                    clip_on=False, zorder=4)  # fmt: skip
        if CEILING in panel.index and name != "gap":
            ax.axvline(float(panel.loc[CEILING, "accuracy"]), **CEILING_LINE, zorder=1.5)
        if floor is not None and name != "gap":
            ax.axvline(floor, **FLOOR_LINE, zorder=1.5)
        if name == "gap":
            ax.axvline(0, color=GREY, linewidth=0.9)
            ax.set_xlim(-1.02 * widest, 1.02 * widest)
            ax.set_xticks(
                [part * widest for part in (-1.0, -0.5, 0.0, 0.5, 1.0)],
                [f"{part * widest:.0f}".replace("-", "−") for part in (-100, -50, 0, 50, 100)],
            )
        else:
            ax.set_xlim(-0.02, 1.02)
            ax.set_xticks(*PERCENT)
        ax.set_title(MEASURE_WORDS[name] if mode == modes[0] else "")
        ax.set_yticks(range(len(conditions)), [label(one) for one in conditions])
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
    axes[0, 0].set_ylim(len(conditions) - 0.4, -0.6)
    for row, mode in enumerate(modes):
        axes[row, -1].annotate(
            label(mode), (1, 0.5), (6, 0), xycoords="axes fraction", textcoords="offset points", rotation=270, va="center", fontsize=8.5
        )
    for ax, name in zip(axes[-1], names, strict=True):
        ax.set_xlabel("points" if name == "gap" else ylabel if name == names[0] else "")
    handles = [Line2D([], [], **CEILING_LINE, label=f"ceiling: {label(CEILING)}")]
    handles += [Line2D([], [], **FLOOR_LINE, label=f"floor ({100 * floor:.0f} %)")] if floor is not None else []
    fig.legend(handles=handles, loc="outside upper center", ncols=2)
    seeds = number_range(table["n_seeds"])
    footnote(fig, f"Each line: n = {number_range(table['n'])} answers over {number_range(table['n_programs'])} programs, {seeds} seed{'' if seeds == '1' else 's'}; 95 % bootstrap interval over "
                  "programs, seeds held. The worst is found on one half of the programs and scored on the other. Own way: recall where source was "
                  "shown, direct where pairs alone were.")  # fmt: skip
    return fig


@themed
def accuracy_by_pairs(table: pd.DataFrame, counts: Sequence[int], floors: pd.DataFrame | None = None, *, modes: Iterable[str] = MODES,
                      group: str = "without_io") -> Figure:  # fmt: skip
    """Returns accuracy against the number of I/O pairs of a program, a panel per mode; the source after stage 1 is a level with its band, the source without it a line.

    Args:
        table: From `statistics.results`, of rows with mode "own" where that is shown.
        counts: Numbers of pairs; each has its condition io_only(k, uniform).
        floors: From `statistics.floors`; the highest is drawn.
        modes, group: What to show.
    """
    modes = list(modes)
    shown = table[table["mode"].isin(modes) & (table["group"] == group)].assign(seed=table["seed"].astype(str))
    fig = Figure(figsize=(2.3 * len(modes) + 1.0, 4.1), layout="constrained")
    axes = fig.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    alone = f"io_alone({counts[-1]}, uniform)"
    for ax, mode in zip(axes, modes, strict=True):
        panel = shown[shown["mode"] == mode]
        _level(ax, panel, SOURCE)
        for line in panel[(panel["condition"] == WITHOUT_STAGE1) & (panel["seed"] == "all")].itertuples():
            ax.axhline(line.accuracy, color=colour(WITHOUT_STAGE1), linewidth=1.2, linestyle=(0, (5, 1, 1, 1)), zorder=1.8)
        for one in (*(f"io_only({k}, uniform)" for k in counts), alone):
            _point(ax, panel[panel["condition"] == one], one, counts[-1] * 1.25 if one == alone else int(one[8:].split(",")[0]))
        line = panel[panel["seed"] == "all"].set_index("condition")["accuracy"]
        ax.plot(
            counts,
            [line.get(f"io_only({k}, uniform)", np.nan) for k in counts],
            color=colour("io_only(1, uniform)"),
            linewidth=1.1,
            zorder=2.5,
        )
        if CEILING in line.index:
            ax.axhline(float(line[CEILING]), **CEILING_LINE, zorder=1.5)
        if floors is not None:
            ax.axhline(statistics.highest_floor(floors)[1], **FLOOR_LINE, zorder=1.5)
        ax.set_xscale("log", base=2)
        ax.set_xticks(counts, [str(k) for k in counts])
        ax.set_xlim(counts[0] / 1.4, counts[-1] * 1.8)
        ax.set_title(label(mode))
        ax.set_xlabel("I/O pairs of a program")
        ax.grid(axis="y")
    axes[0].set_yticks(*PERCENT)
    axes[0].set_ylim(-0.02, 1.02)
    axes[0].set_ylabel(f"exactly right, {label(group)} programs")
    handles = [
        Patch(color=colour(SOURCE), alpha=0.35, label=f"{label(SOURCE)}: source after stage 1, no pair"),
        Line2D([], [], color=colour(WITHOUT_STAGE1), linewidth=1.2, linestyle=(0, (5, 1, 1, 1)), label=label(WITHOUT_STAGE1)),
        Line2D([], [], color=colour("io_only(1, uniform)"), marker=marker("io_only(1, uniform)"), markersize=5, label="I/O pairs alone, after stage 1"),
        Line2D([], [], color=colour(alone), marker=marker(alone), linestyle="", label=label(alone)),
        Line2D([], [], **CEILING_LINE, label=f"ceiling: {label(CEILING)}"),
    ]  # fmt: skip
    if floors is not None:
        handles.append(Line2D([], [], **FLOOR_LINE, label=f"floor: {statistics.highest_floor(floors)[0]}"))
    fig.legend(handles=handles, loc="outside upper center", ncols=3)
    footnote(
        fig,
        f"Each point: {counts_text(shown[shown['seed'] == 'all'])}; small dots: one seed each. {INTERVAL}. Own way: {SOURCE} in {own_way(SOURCE)} mode, pairs directly.",
    )
    return fig


def _level(ax: Axes, panel: pd.DataFrame, name: str) -> None:
    for line in panel[(panel["condition"] == name) & (panel["seed"] == "all")].itertuples():
        ax.axhline(line.accuracy, color=colour(name), linewidth=1.4, zorder=2)
        if not math.isnan(line.low):
            ax.axhspan(line.low, line.high, color=colour(name), alpha=0.22, linewidth=0, zorder=1)


def _point(ax: Axes, lines: pd.DataFrame, name: str, x: float) -> None:
    for line in lines[lines["seed"] == "all"].itertuples():
        ax.plot([x, x], [line.low, line.high], color=colour(name), linewidth=1.4, zorder=3)
        ax.plot([x], [line.accuracy], marker=marker(name), color=colour(name), markersize=5.5, clip_on=False, zorder=4)
    seeds = lines[lines["seed"] != "all"]
    ax.plot(
        np.full(len(seeds), x * 1.06), seeds["accuracy"], linestyle="", marker="o", markersize=2.2, color=colour(name), alpha=0.6, zorder=2
    )
