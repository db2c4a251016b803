"""The figures of notebook 90: every round as a point, the median as a line, n and range said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, NullLocator

from pbb_helpers.figures.theme import GREY, footnote, number_range, themed
from pbb_helpers.performance import benchmark

ARM_COLOURS = {
    "ours": "#D55E00", "TRL tuned": "#0072B2", "TRL as it comes": "#56B4E9", "Trainer": "#009E73", "bare loop": "#CC79A7",
    "ours, as in an experiment": "#E69F00", "ours, compiled": "#E69F00", "plain generate, eager": "#0072B2", "plain generate, sdpa": "#56B4E9",
    "continuous batching": "#009E73", "matmul peak": "#000000",
}  # fmt: skip
AXIS_LABELS = {"programs": "programs w/ IO", "statements": "statements per program", "seeds": "seeds", "parameters": "parameters"}


@themed
def by_arm(rows: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
    """Returns a panel per column of `panels` (column → label): each round a point, the median a bar, a row per arm and number of threads.

    Args:
        rows: Of `benchmark.measure`; the yardstick's rows are left out.
    """
    timed = benchmark.rates(rows).query("arm != @benchmark.MatmulPeak.name")
    several = timed["threads"].nunique() > 1
    timed = timed.assign(
        line=timed["arm"]
        + (", " + timed["threads"].astype(str) + " thread" + timed["threads"].gt(1).map({True: "s", False: ""}) if several else "")
    )
    lines = list(dict.fromkeys(timed["line"]))
    colours = {line: ARM_COLOURS.get(arm, GREY) for line, arm in zip(timed["line"], timed["arm"], strict=True)}
    fig = Figure(figsize=(2.3 * len(panels) + 2.2, 0.34 * len(lines) + 1.3), layout="constrained")
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (column, label) in zip(axes, panels.items(), strict=True):
        sns.barplot(
            timed,
            x=column,
            y="line",
            order=lines,
            hue="line",
            palette=colours,
            estimator="median",
            errorbar=None,
            alpha=0.35,
            ax=ax,
            legend=False,
        )
        sns.stripplot(timed, x=column, y="line", order=lines, hue="line", palette=colours, size=4, jitter=0.12, ax=ax, legend=False)
        ax.set(xlabel=label, ylabel="")
        if timed[column].max() >= 10:
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.set_xlim(left=0)
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
    footnote(
        fig,
        f"Bar: median, points: each of n = {timed['round'].nunique()} rounds, the arms taking turns in one process (A B B A); warm-up left out.",
    )
    return fig


@themed
def cost(rows: pd.DataFrame) -> Figure:
    """Returns seconds against the size, a panel per axis, a line per kind of work; both scales logarithmic, points are rounds."""
    timed = rows[rows["phase"] == "timed"]
    axes_named = list(dict.fromkeys(timed["axis"]))
    kinds = list(dict.fromkeys(timed["what"]))
    palette = dict(zip(kinds, sns.color_palette("colorblind", len(kinds)), strict=True))
    fig = Figure(figsize=(2.7 * len(axes_named) + 0.6, 3.5), layout="constrained")
    panels = fig.subplots(1, len(axes_named), squeeze=False)[0]
    for ax, axis in zip(panels, axes_named, strict=True):
        part = timed[timed["axis"] == axis]
        sns.lineplot(part, x="x", y="seconds", hue="what", palette=palette, estimator="median", errorbar=("pi", 100), marker="o", ax=ax)
        ax.set(xscale="log", yscale="log", xlabel=AXIS_LABELS.get(axis, axis), ylabel="seconds")
        ticks = sorted(part["x"].unique())
        ax.set_xticks(ticks, [EngFormatter(sep="", places=1 if x > 1e4 else 0)(x) for x in ticks])
        ax.set_xticks([], minor=True)
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.grid(axis="y")
        ax.legend(fontsize=7, title=None, loc="best")
    footnote(
        fig,
        f"Line: median, band: range, n = {timed['round'].nunique()} rounds; {number_range(timed['threads'])} thread(s). Programs are each seen as often, whatever their number.",
    )
    return fig


@themed
def where_time_goes(profiles: Mapping[str, pd.DataFrame], labels: Mapping[str, str] | None = None, order: Sequence[str] = ()) -> Figure:
    """Returns the share of time by kind of operation, one stacked bar per piece of work.

    Args:
        profiles: Of `op_profile.by_group`, by name.
        labels: Words for the names.
        order: Kinds of operation from left to right; by default the largest first.
    """
    table = pd.concat([frame.assign(work=(labels or {}).get(name, name)) for name, frame in profiles.items()])
    wide = table.pivot_table(index="work", columns="group", values="share", sort=False).fillna(0.0)
    groups = list(order) or list(wide.mean().sort_values(ascending=False).index)
    palette = sns.color_palette("colorblind", len(groups))
    fig = Figure(figsize=(8.2, 0.5 * len(wide) + 1.7), layout="constrained")
    ax = fig.subplots()
    left = pd.Series(0.0, index=wide.index)
    for group, shade in zip(groups, palette, strict=True):
        ax.barh(wide.index, wide[group], left=left, color=shade, label=group)
        for y, (x, share) in enumerate(zip(left, wide[group], strict=True)):
            if share >= 0.05:
                ax.text(x + share / 2, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=8)
        left = left + wide[group]
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="share of the time, in %")
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    ax.tick_params(axis="y", length=0)
    fig.legend(loc="outside upper center", ncols=3, fontsize=7.5)
    footnote(
        fig, "torch.profiler, self time on one thread, n = 1 pass each; the profiler's own cost falls on groups of many small operations."
    )
    return fig
