"""Distributions over inputs, as they are stated and as they were drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from pbb_helpers.data.distributions import Distribution
from pbb_helpers.figures.theme import footnote, themed

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#595959")


@themed
def probabilities(
    distributions: Sequence[Distribution], drawn: Mapping[str, Sequence[int]] | None = None, *, axis: str = "shift"
) -> Figure:
    """Returns a panel per distribution: bars are its probabilities, points the shares of what was drawn from it.

    Args:
        distributions: What to show.
        drawn: Values drawn, by the name of their distribution; those that are not there have no points.
        axis: What the values are, for the axis.
    """
    drawn = drawn or {}
    fig = Figure(figsize=(6.8, 1.5 * len(distributions) + 0.9), layout="constrained")
    axes = fig.subplots(len(distributions), 1, sharex=True, squeeze=False)[:, 0]
    for ax, one, colour in zip(axes, distributions, COLOURS * len(distributions), strict=False):
        sns.barplot(one.table(), x="value", y="probability", color=colour, native_scale=True, width=0.85, ax=ax)
        if one.name in drawn:
            shares = pd.Series(drawn[one.name]).value_counts(normalize=True).reindex(one.values, fill_value=0.0)
            sns.scatterplot(x=list(one.values), y=shares.to_numpy(), color="black", marker="_", s=60, zorder=3, legend=False, ax=ax)
        ax.set(title=one.name, xlabel=axis, ylabel="probability", ylim=(0, None))
    points = ", ".join(f"{len(values):,} from {name}" for name, values in drawn.items())
    footnote(fig, f"Bars: the stated probabilities. {f'Dashes: shares of what was drawn, {points}.' if points else ''}")
    return fig
