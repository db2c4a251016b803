"""The figures: one theme, one table of labels and colours, and on every figure n, the seeds, what its interval is, the floor and the ceiling.

Each function takes a long table and returns a matplotlib Figure that pyplot does not know of, so nothing leaks and nothing is shown twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, NullLocator

from pbb_helpers.analysis import statistics
from pbb_helpers.analysis.intervals import wilson
from pbb_helpers.analysis.labels import COLOURS, LABELS, MODE_COLOURS, colour, in_order, label, marker
from pbb_helpers.figures.figure_files import save_figure
from pbb_helpers.figures.theme import CEILING_LINE, FLOOR_LINE, GREY, PERCENT, counts_text, footnote, number_range, theme, themed
from pbb_helpers.programs import UsageError

__all__ = ["COLOURS", "LABELS", "accuracy_by_condition", "accuracy_by_length", "pretraining_curve", "recall_against_execution", "save_figure", "theme",
           "training_curves"]  # fmt: skip

MODES = ("direct", "cot", "recall")
GROUPS = ("without_io", "with_io")
OUTCOME_COLOURS = {"right": "#009E73", "wrong execution": "#F0E442", "wrong recall": "#D55E00", "right, source wrong": "#56B4E9"}
INTERVAL = "95 % interval over programs, seeds held: cluster bootstrap, or Wilson on the number of programs where that degenerates"
MIN_SEEDS_DRAWN = 3  # with two seeds the t interval covers most of the axis: it is in the table, and drawn it would only hide the rest


@themed
def accuracy_by_condition(table: pd.DataFrame, floors: pd.DataFrame | None = None, ceiling: str = "in_context", *, modes: Iterable[str] = MODES,
                          groups: Iterable[str] = GROUPS) -> Figure:  # fmt: skip
    """Returns accuracy by condition: a column of panels per mode, a row per group; means, intervals, seeds, floor and ceiling.

    Args:
        table: From `statistics.results`.
        floors: From `statistics.floors`, for the w/o IO programs; the highest is drawn in their panels.
        ceiling: The condition whose accuracy in the same panel is the ceiling.
        modes, groups: What to show. A cell that was not run says so.
    """
    modes, groups = list(modes), list(groups)
    shown = table[table["mode"].isin(modes) & table["group"].isin(groups)].assign(seed=table["seed"].astype(str))
    conditions = in_order(shown["condition"])
    fig = Figure(figsize=(3.0 * len(modes) + 2.2, (0.3 * len(conditions) + 0.5) * len(groups) + 1.1), layout="constrained")
    axes = fig.subplots(len(groups), len(modes), sharex=True, sharey=True, squeeze=False)
    for ax, (group, mode) in zip(axes.flat, [(g, m) for g in groups for m in modes], strict=True):
        panel = shown[(shown["mode"] == mode) & (shown["group"] == group)]
        for y, condition in enumerate(conditions):
            _dot(ax, panel[panel["condition"] == condition], condition, y)
        _reference(ax, panel, mode, floors if group == "without_io" else None, ceiling)
        ax.set_title(label(mode) if group == groups[0] else "", pad=8)
        ax.annotate("mean", (1, 1), (4, 2), xycoords="axes fraction", textcoords="offset points", fontsize=7, color=GREY)
        ax.set_yticks(range(len(conditions)), [label(c) for c in conditions])
        ax.set_xlim(-0.02, 1.02)
        ax.set_xticks(*PERCENT)
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
    axes[0, 0].invert_yaxis()
    for row, group in enumerate(groups):
        axes[row, 0].set_ylabel(f"{label(group)} programs", fontweight="bold")
    for ax in axes[-1]:
        ax.set_xlabel("answers exactly right")
    n_seeds = int(shown["n_seeds"].max())
    _legend(fig, floors, ceiling if ceiling in conditions else None, n_seeds, modes)
    over_seeds = " Thin line: 95 % t interval over seeds." if n_seeds >= MIN_SEEDS_DRAWN else ""
    footnote(fig, f"Each line: {counts_text(shown[shown['seed'] == 'all'])}. {INTERVAL}.{over_seeds}")
    return fig


@themed
def accuracy_by_length(rows: pd.DataFrame, *, modes: Iterable[str] = MODES, group: str = "without_io", conditions: Iterable[str] | None = None,
                       floors: pd.DataFrame | None = None, n_boot: int = 2000) -> Figure:  # fmt: skip
    """Returns accuracy against the number of statements of the program, a panel per mode, a line per condition.

    `floors` may be made with `by=["length"]`: then the highest floor at each length is drawn, otherwise the overall one.
    """
    modes = list(modes)
    kept = rows[rows["mode"].isin(modes) & (rows["group"] == group)]
    table = statistics.results(kept, n_boot=n_boot, by=[*statistics.CELL, "length"])
    overall = table[table["seed"] == "all"]
    names = in_order(overall["condition"] if conditions is None else conditions)
    lengths = sorted(overall["length"].unique())
    fig = Figure(figsize=(2.9 * len(modes) + 0.9, 4.3), layout="constrained")
    axes = fig.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    shifts = np.linspace(-0.24, 0.24, len(names)) if len(names) > 1 else [0.0]
    for ax, mode in zip(axes, modes, strict=True):
        for shift, name in zip(shifts, names, strict=True):
            line = overall[(overall["mode"] == mode) & (overall["condition"] == name)].sort_values("length")
            spread = np.abs(line[["low", "high"]].to_numpy(float).T - line["accuracy"].to_numpy(float))
            ax.errorbar(line["length"] + shift, line["accuracy"], yerr=spread, color=colour(name), marker=marker(name), markersize=5.5, linewidth=1.1,
                        elinewidth=1.3, linestyle="--" if name == "in_context" else "-", label=label(name), clip_on=False, zorder=3)  # fmt: skip
        _floor_by_length(ax, floors, lengths)
        ax.set_title(label(mode))
        ax.set_ylim(0, 1)
        ax.set_xlim(min(lengths) - 0.5, max(lengths) + 0.5)
        ax.set_xticks(lengths, [f"{n}\n({_programs_at(overall, mode, n)})" for n in lengths])
        ax.set_xlabel("statements in the program")
        ax.grid(axis="y")
    axes[0].set_yticks(*PERCENT)
    axes[0].set_ylabel(f"exactly right, {label(group)} programs")
    handles, names_shown = axes[0].get_legend_handles_labels()
    fig.legend(handles, names_shown, loc="outside upper center", ncols=4)
    footnote(fig, f"Each point: {counts_text(overall)}; mean over seeds; programs in brackets. {INTERVAL}.")
    return fig


@themed
def recall_against_execution(rows: pd.DataFrame, *, group: str = "without_io", modes: Iterable[str] = ("cot", "recall"),
                             floors: pd.DataFrame | None = None, ceiling: str = "in_context") -> Figure:  # fmt: skip
    """Returns whether what can be recalled can be run: source recall against accuracy per condition and seed, and which half failed."""
    modes = list(modes)
    table = statistics.results(rows[rows["group"] == group], n_boot=2)
    seeds = table[table["seed"] != "all"].pivot(index=["condition", "seed"], columns="mode", values="accuracy").reset_index()
    seeds = seeds.dropna(subset=["source"]) if "source" in seeds else seeds.iloc[:0]
    if seeds.empty:
        raise UsageError(f"no answers in mode 'source' on group {group!r}; evaluate that mode to compare recall with execution")
    shares = statistics.failures(rows, group=group).query("seed == 'all'")
    names = in_order(seeds["condition"])
    fig = Figure(figsize=(2.8 * len(modes) + 5.2, 4.1), layout="constrained")
    *scatters, bars = fig.subplots(1, len(modes) + 1, width_ratios=[*[1.0] * len(modes), 1.15])
    for ax, mode in zip(scatters, modes, strict=True):
        _scatter(ax, seeds, names, mode, floors)
        top = table[(table["condition"] == ceiling) & (table["mode"] == mode) & (table["seed"] == "all")]["accuracy"]
        if len(top):
            ax.axhline(float(top.iloc[0]), **CEILING_LINE, zorder=1.5)
            ax.text(0.01, float(top.iloc[0]) - 0.02, f"ceiling: {label(ceiling)}", fontsize=7, va="top")
    scatters[0].set_ylabel(f"exactly right, {label(group)} programs")
    _stack(bars, shares, names)
    handles = [Line2D([], [], linestyle="", marker=marker(c), color=colour(c), label=label(c)) for c in names]
    fig.legend(handles=handles, loc="outside upper center", ncols=4)
    every = table[(table["seed"] == "all") & table["mode"].isin(["source", *modes])]
    footnote(fig, f"Each condition and mode: {counts_text(every)}. Left: one point per condition and seed, without interval; on the grey diagonal "
                   "everything that is recalled is run. Right: all seeds; the source is judged in the answer itself.")  # fmt: skip
    return fig


@themed
def training_curves(metrics: pd.DataFrame) -> Figure:
    """Returns the training loss by step, a panel per stage, a thin line per seed; conditions that share a stage share its line.

    Args:
        metrics: Columns condition, seed, stage, step, loss (nats per supervised token).
    """
    stages = in_order(metrics["stage"])
    fig = Figure(figsize=(3.6 * len(stages) + 1.2, 3.6), layout="constrained")
    axes = fig.subplots(1, len(stages), sharey=True, squeeze=False)[0]
    for ax, stage in zip(axes, stages, strict=True):
        part = metrics[metrics["stage"] == stage]
        for conditions in _sharing(part):
            line = part[part["condition"] == conditions[0]]
            # A shared line takes the colour of what it is mostly read for: the last in the order of the table.
            sns.lineplot(line, x="step", y="loss", units="seed", estimator=None, ax=ax, color=colour(conditions[-1]), linewidth=1.2)
            ax.plot([], [], color=colour(conditions[-1]), label=" = ".join(conditions))  # one entry, not one per seed
        ax.set(title=label(stage), xlabel="step", ylabel="loss (nats per supervised token, log scale)", yscale="log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.grid(axis="y")
        ax.legend(loc="upper right", fontsize=7.5)
    footnote(
        fig, f"One line per seed ({metrics['seed'].nunique()}); training loss, not a test of anything. Names joined by = share the stage."
    )
    return fig


@themed
def pretraining_curve(points: pd.DataFrame, *, targets: Mapping[str, float] | None = None) -> Figure:
    """Returns in-context accuracy on fresh programs against training tokens, a line per mode.

    Args:
        points: Columns tokens, mode, accuracy, and optionally n (answers, for a Wilson interval).
        targets: Accuracy aimed at, by mode; drawn as short lines at the right.
    """
    fig = Figure(figsize=(6.4, 3.9), layout="constrained")
    ax = fig.subplots()
    for mode in in_order(points["mode"]):
        line = points[points["mode"] == mode].sort_values("tokens")
        shade = MODE_COLOURS.get(mode.removeprefix("in_context_"), GREY)
        aim = f" (aim {100 * targets[mode]:.0f} %)" if targets and mode in targets else ""
        ax.plot(
            line["tokens"], line["accuracy"], color=shade, marker="o", markersize=4, linewidth=1.3, label=f"{label(mode)}{aim}", zorder=3
        )
        if "n" in points and line["n"].notna().all():
            ends = np.array([wilson(a, int(n)) for a, n in zip(line["accuracy"], line["n"], strict=True)])
            ax.fill_between(line["tokens"], ends[:, 0], ends[:, 1], color=shade, alpha=0.15, linewidth=0)
        if targets and mode in targets:
            ax.axhline(targets[mode], xmin=0.94, color=shade, linewidth=3)
    ax.set(xlabel="training tokens", ylabel="exactly right, source in the prompt", ylim=(0, 1))
    ax.set_yticks(*PERCENT)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.grid(axis="y")
    ax.legend(loc="lower right")
    n = f"n = {number_range(points['n'])} answers per point; band: 95 % Wilson interval over answers. " if "n" in points else ""
    footnote(fig, f"{n}One pretraining run.{' Thick ends: the aim.' if targets else ''}")
    return fig


def _dot(ax: Axes, lines: pd.DataFrame, condition: str, y: int) -> None:
    overall, seeds = lines[lines["seed"] == "all"], lines[lines["seed"] != "all"]
    if overall.empty:
        ax.text(0.02, y, "not run", color=GREY, va="center", fontsize=7.5, style="italic")
        return
    line = overall.iloc[0]
    if not math.isnan(line["low"]):
        ax.plot([line["low"], line["high"]], [y, y], color=colour(condition), linewidth=2.4, solid_capstyle="butt", zorder=3)
    if len(seeds) >= MIN_SEEDS_DRAWN and not math.isnan(line["seed_low"]):
        ax.plot([line["seed_low"], line["seed_high"]], [y + 0.3, y + 0.3], color=colour(condition), linewidth=0.8, zorder=2)
    if len(seeds) > 1:
        ax.plot(seeds["accuracy"], np.full(len(seeds), y + 0.3), linestyle="", marker="o", markersize=3.2, color=colour(condition), markerfacecolor="white",
                markeredgewidth=0.8, zorder=3, clip_on=False)  # fmt: skip
    ax.plot([line["accuracy"]], [y], marker=marker(condition), markersize=_size(condition), color=colour(condition), markeredgecolor="white",
            markeredgewidth=0.5, zorder=4, clip_on=False)  # fmt: skip
    ax.annotate(f"{100 * line['accuracy']:.0f}", (1, y), (7, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
                fontsize=8, color="#303030", annotation_clip=False)  # fmt: skip


def _size(condition: str) -> float:
    """Points: a star, a cross and a plus have little ink for their size."""
    return {"*": 10.0, "P": 7.5, "X": 7.5}.get(marker(condition), 6.0)


def _reference(ax: Axes, panel: pd.DataFrame, mode: str, floors: pd.DataFrame | None, ceiling: str) -> None:
    if floors is not None:
        ax.axvline(statistics.highest_floor(floors, mode)[1], **FLOOR_LINE, zorder=1.5)
    top = panel[(panel["condition"] == ceiling) & (panel["seed"] == "all")]
    if not top.empty:
        ax.axvline(float(top["accuracy"].iloc[0]), **CEILING_LINE, zorder=1.5)


def _legend(fig: Figure, floors: pd.DataFrame | None, ceiling: str | None, n_seeds: int, modes: Iterable[str]) -> None:
    handles = [Line2D([], [], color=GREY, marker="o", markersize=7, markeredgecolor="white", linewidth=2.4, label="mean and 95 % interval")]
    if n_seeds > 1:
        handles.append(Line2D([], [], color=GREY, linestyle="", marker="o", markersize=3.2, markerfacecolor="none", label="one seed each"))
    if floors is not None:
        best = dict.fromkeys(statistics.highest_floor(floors, mode) for mode in modes)
        each = ", ".join(f"{label(name)} ({100 * value:.0f} %)" for name, value in best)
        text = f"floor, {label('without_io')}: {each}"
        handles.append(Line2D([], [], **FLOOR_LINE, label=text))
    if ceiling:
        handles.append(Line2D([], [], **CEILING_LINE, label=f"ceiling: {label(ceiling)}"))
    fig.legend(handles=handles, loc="outside upper center", ncols=len(handles), columnspacing=1.4)


def _floor_by_length(ax: Axes, floors: pd.DataFrame | None, lengths: list[int]) -> None:
    if floors is None:
        return
    if "length" not in floors:
        name, value = statistics.highest_floor(floors)
        ax.axhline(value, **FLOOR_LINE, label=f"floor: {name}, all lengths", zorder=1.5)
        return
    highest = floors[floors["seed"] == "all"].groupby("length")["accuracy"].max()
    for n in lengths:
        text = "highest floor" if n == lengths[0] else None
        ax.plot([n - 0.4, n + 0.4], [highest.get(n, math.nan)] * 2, **FLOOR_LINE, label=text, zorder=1.5)


def _programs_at(overall: pd.DataFrame, mode: str, length: int) -> str:
    return number_range(overall[(overall["mode"] == mode) & (overall["length"] == length)]["n_programs"])


def _scatter(ax: Axes, seeds: pd.DataFrame, names: list[str], mode: str, floors: pd.DataFrame | None) -> None:
    ax.plot([0, 1], [0, 1], color="#BDBDBD", linewidth=0.9, zorder=1)
    if floors is not None:
        name, value = statistics.highest_floor(floors, mode)
        ax.axhline(value, **FLOOR_LINE, zorder=1.5)
        ax.text(0.99, value + 0.02, f"floor: {label(name)}", color=FLOOR_LINE["color"], fontsize=7, ha="right")
    for condition in names:
        points = seeds[seeds["condition"] == condition]
        ax.plot(points["source"], points.get(mode, pd.Series(math.nan, points.index)), linestyle="", marker=marker(condition), markersize=_size(condition),
                color=colour(condition), markeredgecolor="white", markeredgewidth=0.6, clip_on=False, zorder=3)  # fmt: skip
    ax.set(title=label(mode), xlabel="source reproduced", xlim=(0, 1), ylim=(0, 1))
    ax.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
    ax.set_yticks([0, 0.5, 1], ["0", "50", "100 %"])


def _stack(ax: Axes, shares: pd.DataFrame, names: list[str]) -> None:
    left = np.zeros(len(names))
    for outcome in statistics.OUTCOMES:
        widths = shares[shares["outcome"] == outcome].set_index("condition")["share"].reindex(names).fillna(0.0).to_numpy()
        ax.barh(
            range(len(names)),
            widths,
            left=left,
            height=0.62,
            color=OUTCOME_COLOURS[outcome],
            edgecolor="white",
            linewidth=0.8,
            label=outcome,
        )
        left += widths
    for y in np.flatnonzero(left == 0).tolist():
        ax.text(0.02, y, "not run", color=GREY, va="center", fontsize=7.5, style="italic")
    ax.set_yticks(range(len(names)), [label(c) for c in names])
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set(title="recall mode: which half failed", xlim=(0, 1), xlabel="share of answers")
    ax.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _sharing(metrics: pd.DataFrame) -> list[list[str]]:
    """Conditions by what they trained: those with the same losses at the same steps in the same seeds did the same, once."""
    by_losses: dict[tuple, list[str]] = {}
    for condition in in_order(metrics["condition"]):
        lines = metrics[metrics["condition"] == condition].sort_values(["seed", "step"])
        by_losses.setdefault(tuple(lines[["seed", "step", "loss"]].itertuples(index=False, name=None)), []).append(condition)
    return list(by_losses.values())
