"""The panel in which the answers of a run are read: filtered, one after the other, with the first error marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets
import pandas as pd

from pbb_helpers.analysis.labels import in_order, label
from pbb_helpers.analysis.traces import TRACED
from pbb_helpers.data.documents import execution, way_of_answering
from pbb_helpers.explore import explore_html as html
from pbb_helpers.explore import past_runs
from pbb_helpers.explore.explore_session import ANY, Panel, Session, dropdown, offer, output, row, search, show
from pbb_helpers.explore.past_runs import VERDICTS, Answers
from pbb_helpers.running.run_record import RunResult

FILTERS = {
    "condition": "Condition",
    "arm": "Arm",
    "axis": "Axis",
    "model": "Model",
    "n_with_io": "Number of w/ IO programs",
    "group": "Programs",
    "mode": "Mode",
    "seed": "Seed",
    "length": "Statements",
}
"""Columns and their words; those of `past_runs.EXPERIMENT` are offered for a run that differs in them."""


class AnswersPanel(Panel):
    """The answers of a run, wrong ones first to choose.

    Args:
        session: Whose runs.
        most: Answers in the list; the rest is counted.
    """

    def __init__(self, session: Session, *, most: int = 200) -> None:
        self.most = most
        self.run = dropdown("Run")
        self.filters = {column: dropdown(words) for column, words in FILTERS.items()}
        self.verdict, self.text = dropdown("Verdict", [(name, name) for name in VERDICTS]), search("Find")
        # No list of several lines: JupyterLab takes the arrow keys from one, though not from the menu that Space opens.
        self.answer = dropdown("Answer", max_width="98%")
        self.previous, self.next = (
            widgets.Button(description=words, icon=icon) for words, icon in (("Previous", "arrow-up"), ("Next", "arrow-down"))
        )
        self.count, self.card = output("count"), output("card")
        self._offered: Any = None
        self._differing: tuple[str, ...] = ()
        choices = row(self.run, *self.filters.values(), self.verdict, self.text)
        super().__init__(session, choices, self.count, self.answer, row(self.previous, self.next), self.card)
        self.verdict.value = "wrong"
        self.on_change(self.update, self.run)
        self.on_change(self._list, *self.filters.values(), self.verdict, self.text)
        self.on_change(self._show, self.answer)
        self.previous.on_click(lambda _: self._step(-1))
        self.next.on_click(lambda _: self._step(1))
        self.attempt(self.update)

    def update(self) -> None:
        runs = [run for run in self.session.runs if past_runs.has_answers(run)]
        offer(self.run, [(past_runs.name(run), past_runs.name(run)) for run in runs])
        run = self.session.find(self.run.value)
        if run is None:
            self.answer.options = ()
            self.card.value = ""
            self.count.value = self.session.nothing if not self.session.runs else html.page(html.text("No run has left answers yet."))
            return
        state = (run.folder, run.record.get("finished"))
        if state == self._offered:
            return
        rows = past_runs.answers(run).rows
        self._differing = past_runs.differing(rows)
        for column, choice in self.filters.items():
            useful = column in self._differing or column not in past_runs.EXPERIMENT
            offer(choice, [("any", ANY), *((label(str(value)), value) for value in (_values(rows[column]) if useful else ()))])
            choice.layout.display = None if useful else "none"
        self._offered = state
        self._list()

    @property
    def _answers(self) -> Answers:
        return past_runs.answers(self._run)

    @property
    def _run(self) -> RunResult:
        run = self.session.find(self.run.value)
        assert run is not None, "only called with a run"
        return run

    def _list(self) -> None:
        """Offers the answers that pass the filters."""
        if self.session.find(self.run.value) is None:
            return
        chosen = {column: choice.value for column, choice in self.filters.items() if choice.value != ANY}
        found = past_runs.select(self._answers.rows, verdict=self.verdict.value, text=self.text.value, **chosen)
        some = past_runs.named(found.head(self.most), self._differing)
        offer(self.answer, [(_title(line), place) for place, line in some.iterrows()])
        more = f", the first {self.most} in the list" if len(found) > self.most else ""
        right = f", {100 * found['correct'].mean():.0f} % of them right" if len(found) and self.verdict.value == "all" else ""
        show(self.count, html.text(f"{len(found):,} of {len(self._answers.rows):,} answers{right}{more}"))
        self._show()

    def _show(self) -> None:
        if self.answer.value is None:
            show(self.card, html.text("no answer is so; clear a filter"))
            return
        line = past_runs.named(self._answers.rows.loc[[self.answer.value]], self._differing).iloc[0].to_dict()
        program = self._answers.programs.get((line["seed"], line["program"]))
        kind, wrong = past_runs.first_wrong(program, line["input"], line["mode"], line["generated"], line["gold"])
        show(self.card, html.answer(line, _truth(line, program), kind, wrong))

    def _step(self, by: int) -> None:
        """Goes to the answer before or after."""
        values = [value for _, value in self.answer.options]
        if values:
            place = values.index(self.answer.value) if self.answer.value in values else 0
            self.answer.value = values[min(max(place + by, 0), len(values) - 1)]


def _values(column: pd.Series) -> list[Any]:
    """Returns the distinct values of a column, in order. Numbers are whole; of a column with gaps they come as floats."""
    known = column.dropna()
    return sorted(set(known.astype(int).tolist())) if pd.api.types.is_numeric_dtype(known) else in_order(known)


def _title(line: pd.Series) -> str:
    said = "nothing that can be parsed" if line["answer"] is None else line["answer"]
    verdict = "right" if line["correct"] else "wrong"
    told = "" if line["mode"] in ("source", "description") else f": {said}, gold {line['gold']}"
    return f"{html.call(line)}, {label(line['mode'])}, {label(line['condition'])}, seed {line['seed']}, {verdict}{told}"[:160]


def _truth(line: Mapping[str, Any], program: Any) -> str | None:
    """Returns the whole right answer, with its steps where the program may be run."""
    way, _ = way_of_answering(line["mode"])
    if way in ("direct", "source", "description"):
        return line["gold"]
    if program is None or line["input"] is None or way not in TRACED:
        return None
    return execution(program, line["input"], way)
