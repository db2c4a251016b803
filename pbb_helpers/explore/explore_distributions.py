"""The panel of notebook 06 in which a distribution over inputs is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd

from pbb_helpers.analysis.verdicts import Prediction
from pbb_helpers.data.conditions import condition
from pbb_helpers.data.distributions import Distribution, distribution, value
from pbb_helpers.data.plan import Experiment
from pbb_helpers.explore import explore_html as html
from pbb_helpers.explore.explore_session import dropdown, output, row, show
from pbb_helpers.figures.plots_distributions import probabilities
from pbb_helpers.programs import family_of, written

OFFERED = {"text": ("natural", "natural(0.5)", "uniform"), "number": ("zipf", "zipf(2)", "uniform")}
LISTED = 6


class DistributionPanel(widgets.VBox):
    """Choose a distribution: its probabilities beside what is drawn from it, some of the drawn pairs of a program, and what was predicted.

    In a saved page, where no control works, the distribution that was chosen last stands.

    Args:
        plan: Whose training inputs are drawn from.
        predictions: Those that name a condition with the chosen distribution are shown.
        chosen: The distribution that is shown first.
        counts: Numbers of pairs to choose from.
    """

    def __init__(self, plan: Experiment, predictions: Sequence[Prediction], chosen: str, *, counts: Sequence[int] = (8, 64, 512)) -> None:
        self.plan, self.predictions, self.dataset, self.turn = plan, predictions, plan.dataset(plan.seeds[0]), 0
        names = dict.fromkeys([chosen, *OFFERED[family_of(self.dataset.without_io[0]).takes]])
        self.distribution = dropdown("Distribution", [(name, name) for name in names])
        self.count = dropdown("Pairs", [(str(k), k) for k in counts])
        self.again = widgets.Button(description="Draw again", icon="refresh", tooltip="Other pairs from the same distribution")
        self.shown = output("drawn")
        style = widgets.HTML(html.STYLE, layout=widgets.Layout(display="none"))
        super().__init__([style, row(self.distribution, self.count, self.again), self.shown])
        self.count.value = counts[len(counts) // 2]
        for control in (self.distribution, self.count):
            control.observe(lambda _: self.update(), "value")
        self.again.on_click(lambda _: self._draw_again())
        self.update()

    def drawn(self) -> list[Any]:
        """Returns the inputs drawn: those of the first w/o IO program."""
        inputs = self.dataset.train_inputs
        weights = self.stated().over(inputs)
        draws = np.random.default_rng([self.dataset.seed, self.turn])
        return [inputs[i] for i in draws.choice(len(inputs), size=self.count.value, p=weights)]

    def stated(self) -> Distribution:
        """Returns the chosen distribution over the values of all inputs, as training states it; what is held out is then left out of what is drawn."""
        return distribution(self.distribution.value, map(value, self.dataset.train_inputs + self.dataset.eval_inputs))

    def predicted(self) -> pd.DataFrame:
        """Returns what was predicted of conditions with the chosen distribution: columns prediction, expected."""
        about = [p for p in self.predictions if self.distribution.value in {_distribution_of(name) for name in (p.a, p.b)}]
        return pd.DataFrame([(p.text, f"{p.a} {p.expected} {p.b}") for p in about], columns=["prediction", "expected"])

    def update(self) -> None:
        """Shows what is chosen."""
        drawn, stated, program = self.drawn(), self.stated(), self.dataset.without_io[0]
        axis = "shift" if isinstance(drawn[0], tuple) else "input"
        figure = probabilities([stated], {stated.name: [value(x) for x in drawn]}, axis=axis)
        top = max(stated.probabilities)
        likeliest = [v for v, p in zip(stated.values, stated.probabilities, strict=True) if p == top]
        which = (
            f"the likeliest {axis} is {likeliest[0]}"
            if len(likeliest) == 1
            else f"{len(likeliest)} values of the {axis} are likeliest, each"
        )
        alt = f"{stated.name}: {which} with probability {top:.2f}; {len(drawn)} drawn, {len(set(drawn))} different."
        listed = pd.DataFrame([{"I/O pair": f"{program.name}({written(x)}) = {program.run(x)}"} for x in drawn[:LISTED]])
        predicted = self.predicted()
        parts = [
            html.image(figure, alt),
            html.text(f"{len(drawn)} pairs of one program, {len(set(drawn))} different; the first {len(listed)}:"),
            html.table(listed),
        ]
        parts += [html.text("Predicted:"), html.table(predicted)] if len(predicted) else [html.text("Nothing was predicted of it.")]
        show(self.shown, *parts)

    def _draw_again(self) -> None:
        self.turn += 1
        self.update()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        # A report has no kernel: there the last state is read as HTML.
        return super()._repr_mimebundle_(**kwargs) | {
            "text/html": html.page(self.shown.value),
            "text/plain": "[DistributionPanel: open in JupyterLab]",
        }


def _distribution_of(name: str) -> str | None:
    stages = condition(name).stages if name != "floor" else ()
    return stages[-1].distribution if stages and stages[-1].pairs else None
