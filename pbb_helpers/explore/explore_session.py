"""What the panels of Explore share: the runs as they are now, and how a panel is made, kept up to date and shown in a saved page."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import ipywidgets as widgets

from pbb_helpers import notebook
from pbb_helpers.explore import explore_html as html
from pbb_helpers.explore.past_runs import name
from pbb_helpers.programs import UsageError
from pbb_helpers.running.run_record import RunResult, all_runs
from pbb_helpers.running.slurm import queued_runs

ANY = ""  # the value of an option that stands for no choice; to ipywidgets None is no value
NO_RUNS = "No runs in {folder} yet. Make one in a terminal: pbb run notebooks/01_proactive.ipynb -p profile smoke; then press Refresh."


class Session:
    """The runs of a folder, read anew at every `refresh`.

    Args:
        runs: The folder of all runs; by default that of the project.
        reports: The folder of all reports; by default reports/ beside it.
        own: A run that is left out: the one that looks.

    Attributes:
        runs: The runs, the newest first.
        queue: The state in Slurm's queue by "notebook/key".
    """

    def __init__(self, runs: Path | str | None = None, reports: Path | str | None = None, *, own: Path | None = None) -> None:
        self.folder = Path(runs).absolute() if runs else notebook.runs_root().absolute()
        self.reports = Path(reports).absolute() if reports else self.folder.parent / "reports"
        self._own, self._listeners = own, []  # type: ignore[var-annotated]
        self.runs: list[RunResult] = []
        self.queue: dict[str, str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Reads the runs as they are now, and tells the panels."""
        self.runs = [run for run in all_runs(self.folder) if run.folder != self._own]
        self.queue = queued_runs(self.folder)
        for listener in self._listeners:
            listener()

    def on_refresh(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after every refresh."""
        self._listeners.append(listener)

    def find(self, wanted: str | None) -> RunResult | None:
        """Returns the run that `past_runs.name` calls so, or None."""
        return next((run for run in self.runs if name(run) == wanted), None)

    @property
    def nothing(self) -> str:
        """Returns what to say where there are no runs."""
        return html.page(html.text(NO_RUNS.format(folder=self.folder)))


class Panel(widgets.VBox):
    """A part of Explore: controls above what they show. In a saved page, where no control works, the HTML that it last showed stands.

    Args:
        session: Whose runs.
        parts: Rows of controls, and HTML that shows something, in order; the first HTML also says what went wrong.
    """

    def __init__(self, session: Session, *parts: widgets.Widget) -> None:
        style = widgets.HTML(html.STYLE, layout=widgets.Layout(display="none"))
        super().__init__([style, *parts])
        self.session, self.outputs = session, [part for part in parts if isinstance(part, widgets.HTML)]
        self._busy = False
        session.on_refresh(lambda: self.attempt(self.update))

    def update(self) -> None:
        """Offers what the session has now, and redraws what has changed."""
        raise NotImplementedError

    def on_change(self, what: Callable[[], None], *controls: Any) -> None:
        """Calls `what` when the value of one of these controls changes by the user's hand."""
        for control in controls:
            control.observe(lambda _: self.attempt(what), "value")

    def attempt(self, what: Callable[[], None]) -> None:
        """Calls `what`, unless the panel is being changed by itself; what a user got wrong is said in the panel, in one line."""
        if self._busy:
            return
        self._busy = True
        try:
            what()
        except UsageError as error:
            show(self.outputs[0], html.text(error, bad=True))
        finally:
            self._busy = False

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        # A report and a page on the web have no kernel: there the last state is read as HTML.
        static = html.page(*(output.value for output in self.outputs))
        return super()._repr_mimebundle_(**kwargs) | {"text/html": static, "text/plain": f"[{type(self).__name__}: open in JupyterLab]"}


def address(path: Path) -> str | None:
    """Returns where on its own site the Jupyter server of this kernel serves a file; None outside Jupyter, or outside the server's folder."""
    from jupyter_server.serverapp import list_running_servers

    for server in list_running_servers():
        if str(server["pid"]) == os.environ.get("JPY_PARENT_PID") and path.is_relative_to(server["root_dir"]):
            return f"{server['base_url']}files/{quote(path.relative_to(server['root_dir']).as_posix())}"
    return None


def show(output: widgets.HTML, *parts: str) -> None:
    """Puts parts into an output; the same parts again change nothing on the page, so nothing flickers."""
    output.value = html.page(*parts)


def offer(choice: Any, options: Sequence[tuple[str, Any]], *, first: Any = None) -> None:
    """Gives a choice its options; what was chosen stays chosen where it is still there, else it is `first`, or the first option."""
    if tuple(choice.options) == tuple(options):
        return
    chosen, kept, values = bool(choice.options), choice.value, [value for _, value in options]
    choice.options = tuple(options)
    choice.value = kept if chosen and kept in values else first if first in values else values[0] if values else None


def dropdown(words: str, options: Sequence[tuple[str, Any]] = (), **layout: str) -> widgets.Dropdown:
    """Returns a labelled choice of one."""
    return widgets.Dropdown(description=words, options=tuple(options), style={"description_width": "initial"}, layout=_layout(layout))


def search(words: str) -> widgets.Text:
    """Returns a labelled line to type in, which counts when it is left or Enter is pressed."""
    return widgets.Text(description=words, continuous_update=False, style={"description_width": "initial"}, layout=_layout({}))


def row(*children: Any) -> widgets.HBox:
    """Returns a row of controls that wraps on a narrow page."""
    return widgets.HBox(children, layout=widgets.Layout(flex_flow="row wrap", grid_gap="2px 10px"))


def output(role: str) -> widgets.HTML:
    """Returns an empty part of a panel.

    Args:
        role: A class for it, pbb-<role>, by which tests and styles find it.
    """
    made = widgets.HTML()
    made.add_class(f"pbb-{role}")
    return made


def _layout(given: dict[str, str]) -> widgets.Layout:
    return widgets.Layout(**({"width": "auto", "min_width": "180px", "max_width": "440px"} | given))
