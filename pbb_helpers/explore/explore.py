"""Panels to look at runs while they run and after: which there are, how two to four compare, what they answered, and talking to one.

Each panel is a widget: controls above, what they show below. They share a `Session`; none trains anything or writes into a run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd

from pbb_helpers.analysis import reading
from pbb_helpers.analysis.labels import in_order, label, parted
from pbb_helpers.analysis.statistics import UNTRAINED
from pbb_helpers.explore import explore_html as html
from pbb_helpers.explore import past_runs
from pbb_helpers.explore.explore_answers import AnswersPanel
from pbb_helpers.explore.explore_session import ANY, Panel, Session, address, dropdown, offer, output, row, search, show
from pbb_helpers.explore.explore_talk import TalkPanel
from pbb_helpers.figures import plots_runs
from pbb_helpers.figures.plots_runs import MOST
from pbb_helpers.programs import UsageError
from pbb_helpers.running.run_logs import log_lines
from pbb_helpers.running.run_record import RunResult
from pbb_helpers.running.run_table import Status, summary
from pbb_helpers.sharing import report

__all__ = ["AnswersPanel", "ComparePanel", "RunsPanel", "Session", "TalkPanel"]

log = logging.getLogger(__name__)

SHOWN = 40  # runs in the table
LOG_LINES = 12
MODES = ("direct", "cot", "recall", "source")
FLOORED = MODES[:3]
LISTED = {"smoke": 20, "quick": 200, "full": 2_000}
"""Answers in the list of answers, by profile."""


class RunsPanel(Panel):
    """The table of runs, filtered; the stages in training; one run in detail, with its report.

    Args:
        session: Whose runs.
        every: Seconds between refreshes by itself, where there is an event loop to do so (in a notebook); 0: only by the button.
    """

    def __init__(self, session: Session, *, every: float = 0.0) -> None:
        self.text, self.state, self.notebook = search("Find"), dropdown("State"), dropdown("Notebook")
        self.refresh = widgets.Button(description="Refresh", icon="refresh", tooltip="Read the runs as they are now")
        self.run, self.report = dropdown("Look at"), widgets.Button(description="Report", tooltip="Render the report of this run")
        self.table, self.training, self.detail, self.link = (output(role) for role in ("runs", "training", "detail", "link"))
        choices, one = row(self.text, self.state, self.notebook, self.refresh), row(self.run, self.report)
        super().__init__(session, choices, self.table, self.training, one, self.detail, self.link)
        self.on_change(self.update, self.text, self.state, self.notebook)
        self.on_change(self._show_run, self.run)
        self.refresh.on_click(lambda _: session.refresh())
        self.report.on_click(lambda _: self.attempt(self._render))
        self.attempt(self.update)
        self._task = _follow(session, every)

    def update(self) -> None:
        runs = self.session.runs
        offer(self.state, [("any", ANY), *((name, name) for name in dict.fromkeys(run.status for run in runs))])
        offer(self.notebook, [("any", ANY), *((name, name) for name in sorted({run.record["notebook"] for run in runs}))])
        some = past_runs.chosen(runs, text=self.text.value, state=self.state.value, notebook=self.notebook.value)
        offer(self.run, [(past_runs.name(run), past_runs.name(run)) for run in some])
        self.report.disabled = self.run.value is None
        if not runs:
            self.table.value = self.session.nothing
        elif not some:
            show(self.table, html.text(f"none of {len(runs)} runs is so; clear a filter"))
        else:
            lines = past_runs.table(some, self.session.queue)
            counts = summary(Status(state) for state in lines["state"])
            show(self.table, html.runs(lines, _shares(some), most=SHOWN), html.text(counts))
        stages = past_runs.in_training(self.session.folder / "store")
        show(self.training, *([html.text("In training now:"), html.table(stages)] if len(stages) else []))
        self._show_run()

    def _show_run(self) -> None:
        run = self.session.find(self.run.value)
        lines = log_lines(run.folder, LOG_LINES) if run and run.status in ("failed", "killed", "running") else []
        show(self.detail, *([html.details(run, lines)] if run else []))
        path = self.session.reports / run.record["notebook"] / f"{run.folder.name}.html" if run else None
        show(self.link, *([_link(path)] if path and path.is_file() else []))

    def _render(self) -> None:
        run = self.session.find(self.run.value)
        if run:
            show(self.link, html.text("rendering …"))
            show(self.link, _link(report.render(run, self.session.reports)))


class ComparePanel(Panel):
    """Two to four runs over each other: parameters that differ, accuracies with intervals, training curves."""

    def __init__(self, session: Session) -> None:
        self.runs = [dropdown(f"Run {letter}") for letter in "ABCD"[:MOST]]
        self.group = dropdown("Programs", [(label(name), name) for name in ("without_io", "with_io")])
        self.condition = dropdown("Curves of")
        self.differences, self.accuracy, self.loss = (output(role) for role in ("differences", "accuracy", "loss"))
        self._drawn: Any = None
        super().__init__(session, row(*self.runs), row(self.group, self.condition), self.differences, self.accuracy, self.loss)
        self.on_change(self._draw, *self.runs, self.group, self.condition)
        self.attempt(self.update)

    def update(self) -> None:
        names = [(past_runs.name(run), past_runs.name(run)) for run in self.session.runs if past_runs.has_answers(run)]
        for place, choice in enumerate(self.runs):
            first = names[place][1] if place < min(2, len(names)) else ANY
            offer(choice, names if place == 0 else [("none", ANY), *names], first=first)
        self._draw()

    def _draw(self) -> None:
        """Redraws what has changed since: a figure takes a second."""
        runs = [run for run in map(self.session.find, dict.fromkeys(choice.value for choice in self.runs)) if run]
        # What differs within one run is said of each, so that the same experiment has the same name in all.
        columns = [name for name in past_runs.EXPERIMENT if any(name in past_runs.differing(past_runs.answers(run).rows) for run in runs)]
        tables = [past_runs.accuracies(run, columns).assign(of_run=past_runs.name(run)) for run in runs]
        trained = in_order(name for table in tables for name in table["condition"] if parted(name)[1] not in UNTRAINED)
        first = next((name for name in trained if parted(name)[1] == "proactive"), None)
        offer(self.condition, [("all conditions", ANY), *((label(name), name) for name in trained)], first=first)
        state = ([(run.folder, run.record.get("finished")) for run in runs], self.group.value, self.condition.value)
        if state == self._drawn:
            return
        if not runs:
            self.differences.value = self.session.nothing if not self.session.runs else html.page(html.text("No run has left answers yet."))
            self.accuracy.value = self.loss.value = ""
        else:
            self._show(runs, pd.concat(tables), columns)
        self._drawn = state

    def _show(self, runs: Sequence[RunResult], table: pd.DataFrame, columns: Sequence[str]) -> None:
        differ = past_runs.differences(runs)
        same = "equal in every parameter, code and commit" if len(runs) > 1 else "choose a second run to compare with"
        show(self.differences, html.text("What differs:"), html.table(differ) if len(differ) else html.text(same))
        group = self.group.value
        floors = pd.concat(
            [past_runs.highest_floors(run, FLOORED if group == "without_io" else ()).assign(of_run=past_runs.name(run)) for run in runs]
        )
        figure = plots_runs.accuracy_by_run(table, modes=MODES, group=group, floors=floors)
        some = table[(table["seed"] == "all") & (table["group"] == group) & table["mode"].isin(MODES)]
        alt = reading.in_words(
            f"Accuracy on {label(group)} programs by run, condition and way of answering:",
            some,
            "accuracy",
            ["of_run", "condition", "mode"],
        )
        if len(floors):
            alt += reading.in_words(
                " Highest score that needs no knowledge of the program:", floors, "accuracy", ["of_run", "mode", "floor"]
            )
        show(self.accuracy, html.image(figure, alt))
        store = self.session.folder / "store"
        logs = pd.concat([past_runs.training_log(run, store, columns).assign(of_run=past_runs.name(run)) for run in runs])
        if self.condition.value:
            logs = logs[logs["condition"] == self.condition.value]
        if logs.empty:
            show(self.loss, html.text("no training log: nothing was trained, or the store has gone"))
            return
        last = logs.groupby(["of_run", "folder"], sort=False).tail(1)
        alt = reading.in_words("Training loss by step, in nats per token. At the end, by run and stage:", last, "loss", ["of_run", "stage"])
        show(self.loss, html.image(plots_runs.loss_by_run(logs), alt))


def headline(session: Session) -> str:
    """Returns in one line how many runs there are in which state."""
    runs = session.runs
    return summary(Status(run.status) for run in runs) if runs else f"no runs in {session.folder} yet"


def _shares(runs: Sequence[RunResult]) -> dict[str, float]:
    found = {}
    for run in runs:
        progress = run.record.get("progress") or {}
        if run.status == "running" and progress.get("total"):
            found[run.folder.name] = min(progress["done"] / progress["total"], 1.0)
    return found


def _link(path: Path) -> str:
    at = address(path)
    return (html.link(at, "Open the report") if at else html.text("The report:")) + html.text(path)


def _follow(session: Session, every: float) -> asyncio.Task | None:
    """Returns the task that refreshes the session every so many seconds, or None where no event loop runs (outside a notebook)."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop.create_task(_refresh(session, every)) if every > 0 else None


async def _refresh(session: Session, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        try:
            session.refresh()
        except (OSError, UsageError) as error:  # a run is deleted while it is read; the next refresh finds it gone
            log.warning("refresh: %s", error)
