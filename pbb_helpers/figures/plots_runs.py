"""Two to four runs over each other: what they score, and how they were trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from pbb_helpers.analysis.labels import in_order, label
from pbb_helpers.figures.plots import INTERVAL
from pbb_helpers.figures.theme import FLOOR_LINE, GREY, PERCENT, footnote, number_range, themed
from pbb_helpers.programs import UsageError

MOST = 4
RUN_STYLES: tuple[tuple[str, str, Any], ...] = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "D", "-."),
    ("#CC79A7", "v", ":"),
)
"""Colour, marker and line of the first, second, … run: any two differ in all three."""


@themed
def accuracy_by_run(table: pd.DataFrame, *, modes: Sequence[str], group: str = "without_io", floors: pd.DataFrame | None = None) -> Figure:
    """Returns accuracy by condition, a panel a mode, two beside each other, a dot with its interval a run.

    Args:
        table: From `statistics.results`, with a column of_run that names the run.
        modes: What to show.
        group: Whose programs.
        floors: Columns of_run, mode and accuracy: a line at the highest floor of each run; none is drawn where there is none.
    """
    runs = _runs(table)
    shown = table[(table["group"] == group) & table["mode"].isin(list(modes)) & (table["seed"].astype(str) == "all")]
    if shown.empty:
        raise UsageError(f"no answers about {label(group)} programs in {', '.join(map(label, modes))}; choose other runs or another group")
    modes = [mode for mode in modes if mode in set(shown["mode"])]
    conditions = in_order(shown["condition"])
    down = -(-len(modes) // 2)
    fig = Figure(figsize=(9.6, ((0.14 * len(runs) + 0.2) * len(conditions) + 0.7) * down + 0.8), layout="constrained")
    axes = fig.subplots(down, min(len(modes), 2), sharey=True, squeeze=False)
    for ax in axes.flat[len(modes) :]:
        ax.set_visible(False)
    for ax, mode in zip(axes.flat, modes, strict=False):
        for place, run in enumerate(runs):
            lines = shown[(shown["mode"] == mode) & (shown["of_run"] == run)].set_index("condition")
            _dots(ax, lines, conditions, place, len(runs))
            for floor in _floor(floors, run, mode):
                shade, mark, _ = RUN_STYLES[place]
                ax.axvline(floor, color=shade, linestyle=FLOOR_LINE["linestyle"], linewidth=1.1, zorder=1.5, marker=mark, markevery=[1], markersize=4.5,
                           clip_on=False)  # fmt: skip
        ax.set_title(label(mode))
        ax.set_yticks(range(len(conditions)), [label(name).replace(": ", ":\n") for name in conditions])  # an experiment above
        ax.set_ylim(len(conditions) - 0.5, -0.5)
        ax.hlines(np.arange(1, len(conditions)) - 0.5, 0, 1, color="#E3E3E3", linewidth=0.7)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xticks(*PERCENT)
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("answers exactly right")
    _legend(fig, runs, line=False, floors=floors is not None and len(floors) > 0)
    n = f"n = {number_range(shown['n'])} answers over {number_range(shown['n_programs'])} programs, seeds a run: {number_range(shown['n_seeds'])}"
    footnote(fig, f"{label(group)} programs. Each dot: {n}. {INTERVAL}. Intervals of two runs that asked about the same programs are not "
                  "independent: this is for looking, not a test of their difference. The ceiling is the line of the source in context. A run without a floor left none: it is in its report.")  # fmt: skip
    return fig


@themed
def loss_by_run(log: pd.DataFrame) -> Figure:
    """Returns the training loss by step, a panel a stage, a line a run and seed.

    Args:
        log: Columns of_run, seed, stage, folder, step, loss (nats per supervised token); a stage that several conditions share is drawn once.
    """
    runs, stages = _runs(log), in_order(log["stage"])
    fig = Figure(figsize=(3.4 * len(stages) + 1.4, 3.6), layout="constrained")
    axes = fig.subplots(1, len(stages), sharey=True, squeeze=False)[0]
    for ax, stage in zip(axes, stages, strict=True):
        part = log[log["stage"] == stage].drop_duplicates(["of_run", "folder", "step"])
        for (run, _), line in part.groupby(["of_run", "folder"], sort=False):
            shade, mark, dashes = RUN_STYLES[runs.index(run)]
            # One point is no line: of a short stage only its marker shows.
            ax.plot(
                line["step"],
                line["loss"],
                color=shade,
                linestyle=dashes,
                linewidth=1.3,
                marker=mark if len(line) == 1 else None,
                markersize=5,
            )
        ax.set(title=label(stage), xlabel="step", yscale="log")
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.grid(axis="y")
    axes[0].set_ylabel("loss (nats per token, log scale)")
    _legend(fig, runs, line=True)
    footnote(fig, "One line per run, seed and stage; training loss, not a test of anything.")
    return fig


def _runs(table: pd.DataFrame) -> list[str]:
    runs = list(dict.fromkeys(table["of_run"]))
    if not 1 <= len(runs) <= MOST:
        raise UsageError(f"{len(runs)} runs over each other; choose 1 to {MOST}")
    return runs


def _dots(ax: Axes, lines: pd.DataFrame, conditions: Sequence[str], place: int, count: int) -> None:
    shade, mark, _ = RUN_STYLES[place]
    shift = (place - (count - 1) / 2) * 0.7 / count
    for y, condition in enumerate(conditions):
        if condition not in lines.index:
            ax.text(0.01, y + shift, "not run", color=GREY, va="center", fontsize=6.5, style="italic")
            continue
        line = lines.loc[condition]
        if line["low"] == line["low"]:
            ax.plot([line["low"], line["high"]], [y + shift] * 2, color=shade, linewidth=2.0, solid_capstyle="butt", zorder=3)
        ax.plot([line["accuracy"]], [y + shift], marker=mark, markersize=5.5, color=shade, markeredgecolor="white", markeredgewidth=0.5, zorder=4,
                clip_on=False)  # fmt: skip


def _floor(floors: pd.DataFrame | None, run: str, mode: str) -> list[float]:
    if floors is None:
        return []
    return floors[(floors["of_run"] == run) & (floors["mode"] == mode)]["accuracy"].tolist()


def _legend(fig: Figure, runs: Sequence[str], *, line: bool, floors: bool = False) -> None:
    handles = [
        Line2D([], [], color=shade, linestyle=dashes if line else "", marker="" if line else mark, markersize=6, label=run)
        for run, (shade, mark, dashes) in zip(runs, RUN_STYLES, strict=False)
    ]
    if floors:
        handles.append(
            Line2D([], [], color=GREY, linestyle=FLOOR_LINE["linestyle"], linewidth=1.1, label="floor of the run with that mark")
        )
    fig.legend(handles=handles, loc="outside upper center", ncols=min(len(runs), 2))
