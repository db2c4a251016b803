"""Accuracy against the number of a condition with one: how the curriculum, the replay and the templates matter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pbb_helpers.analysis import statistics
from pbb_helpers.analysis.labels import KNOBS, MODE_COLOURS, label
from pbb_helpers.figures.plots import GROUPS, INTERVAL
from pbb_helpers.figures.theme import FLOOR_LINE, PERCENT, counts_text, footnote, themed
from pbb_helpers.programs import UsageError

MODES = ("direct", "cot", "recall", "source")
MODE_MARKERS = {"direct": "s", "cot": "o", "recall": "P", "source": "v"}


@themed
def accuracy_by_knob(table: pd.DataFrame, settings: Sequence[tuple[str, float, str]], floors: pd.DataFrame | None = None, *,
                     modes: Iterable[str] = MODES, reference: str = "mixture") -> Figure:  # fmt: skip
    """Returns accuracy against each knob: a column of panels per knob, a row per group, a line per mode; one small dot per seed.

    Args:
        table: From `statistics.results`.
        settings: (knob, value, condition), of `knobs.knob_settings`.
        floors: The highest of those that hold in every mode is drawn in the panels of the w/o IO programs.
        modes: What to show.
        reference: A condition that is drawn as a dotted level in each mode's colour in the panels of the knob "early".
    """
    modes, names = list(modes), list(dict.fromkeys(name for name, _, _ in settings))
    if not names:
        raise UsageError("no condition with a number was run; add one, for example early(0.5)")
    fig = Figure(figsize=(max(2.6 * len(names) + 1.2, 6.6), 5.6), layout="constrained")
    axes = fig.subplots(len(GROUPS), len(names), sharey=True, sharex="col", squeeze=False)
    for ax, (group, name) in zip(axes.flat, [(g, n) for g in GROUPS for n in names], strict=True):
        points = pd.DataFrame([(value, condition) for knob, value, condition in settings if knob == name], columns=["value", "condition"])
        panel = table[table["group"] == group].assign(seed=table["seed"].astype(str))
        for mode, shift in zip(modes, _shifts(points["value"], len(modes)), strict=True):
            _line(ax, panel[panel["mode"] == mode], points, mode, shift)
            if name == "early":
                _level(ax, panel, reference, mode)
        if floors is not None and group == GROUPS[0]:
            ax.axhline(statistics.highest_floor(floors)[1], **FLOOR_LINE, zorder=1.5)
        ax.set_ylim(-0.02, 1.02)
        ax.set_yticks(*PERCENT)
        ax.set_xticks(sorted(set(points["value"])), [f"{value:g}" for value in sorted(set(points["value"]))])
        ax.grid(axis="y")
    for row, group in enumerate(GROUPS):
        axes[row, 0].set_ylabel(f"exactly right, {label(group)} programs")
    for ax, name in zip(axes[-1], names, strict=True):
        ax.set_xlabel(KNOBS[name])
    handles = [Line2D([], [], color=MODE_COLOURS[m], marker=MODE_MARKERS[m], markersize=5, label=label(m)) for m in modes]
    handles.append(Line2D([], [], color="black", linestyle=":", label=f"{label(reference)}"))
    if floors is not None:
        handles.append(Line2D([], [], **FLOOR_LINE, label=f"floor: {statistics.highest_floor(floors)[0]}"))
    fig.legend(handles=handles, loc="outside upper center", ncols=3)
    drawn = table[table["condition"].isin([condition for _, _, condition in settings]) & (table["seed"].astype(str) == "all")]
    footnote(fig, f"Each point: {counts_text(drawn[drawn['mode'].isin(modes)])}; small dots: one seed each. {INTERVAL}.")
    return fig


def _shifts(values: pd.Series, count: int) -> np.ndarray:
    span = float(values.max() - values.min()) or 1.0
    return np.linspace(-0.02, 0.02, count) * span


def _line(ax: Axes, lines: pd.DataFrame, points: pd.DataFrame, mode: str, shift: float) -> None:
    overall = points.merge(lines[lines["seed"] == "all"], on="condition").sort_values("value")
    if overall.empty:
        return
    spread = np.abs(overall[["low", "high"]].to_numpy(float).T - overall["accuracy"].to_numpy(float))
    ax.errorbar(overall["value"] + shift, overall["accuracy"], yerr=spread, color=MODE_COLOURS[mode], marker=MODE_MARKERS[mode], markersize=4.5,
                linewidth=1.2, elinewidth=1.2, clip_on=False, zorder=3)  # fmt: skip
    seeds = points.merge(lines[lines["seed"] != "all"], on="condition")
    ax.plot(
        seeds["value"] + shift, seeds["accuracy"], linestyle="", marker="o", markersize=2.2, color=MODE_COLOURS[mode], alpha=0.6, zorder=2
    )


def _level(ax: Axes, panel: pd.DataFrame, reference: str, mode: str) -> None:
    level = panel[(panel["condition"] == reference) & (panel["mode"] == mode) & (panel["seed"] == "all")]["accuracy"]
    if len(level):
        ax.axhline(float(level.iloc[0]), color=MODE_COLOURS[mode], linestyle=":", linewidth=1.1, zorder=1)
