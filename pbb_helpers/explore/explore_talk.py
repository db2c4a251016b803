"""The panel in which a trained model is asked: pick or type a program, choose an input and the ways of answering, see what it says."""

from __future__ import annotations

import time
from typing import Any

import ipywidgets as widgets
import numpy as np

from pbb_helpers.analysis.labels import label, parted
from pbb_helpers.data.documents import MODES, N_TEMPLATES
from pbb_helpers.data.typed_programs import READERS, typed
from pbb_helpers.explore import explore_html as html
from pbb_helpers.explore import past_runs
from pbb_helpers.explore.explore_session import Panel, Session, dropdown, offer, output, row, show
from pbb_helpers.explore.past_runs import Answers
from pbb_helpers.families.names import draw_names
from pbb_helpers.programs import Program, UsageError, family, written
from pbb_helpers.training.store import Store

ASKED = ("direct", "cot", "recall", "source")  # ticked at first; the others put the source into the prompt


class TalkPanel(Panel):
    """A model of a run, asked about a program."""

    def __init__(self, session: Session) -> None:
        self.run, self.weights, self.program = dropdown("Run"), dropdown("Trained as"), dropdown("Program")
        self.another = widgets.Button(
            description="Draw another", tooltip="A new program of the family, under a name that no question of the run used"
        )
        self.source = widgets.Textarea(
            description="Source", rows=7, style={"description_width": "initial"}, layout=widgets.Layout(width="98%", max_width="620px")
        )
        self.input = dropdown("Input")
        self.phrasing = dropdown("Phrasing", [(str(i + 1), i) for i in range(N_TEMPLATES)])
        self.modes = {
            mode: widgets.Checkbox(value=mode in ASKED, description=label(mode), indent=False, layout=widgets.Layout(width="auto"))
            for mode in MODES
        }
        self.ask = widgets.Button(description="Ask", icon="comment", button_style="primary", tooltip="Load the weights and ask")
        self.status, self.replies = output("status"), output("replies")
        self._talker: Any = None
        about, modes = row(self.input, self.phrasing), row(*self.modes.values())
        choices = (row(self.run, self.weights), row(self.program, self.another), self.source, about, modes, self.ask)
        super().__init__(session, *choices, self.status, self.replies)
        self.on_change(self.update, self.run)
        self.on_change(self._offer_programs, self.weights)
        self.on_change(self._pick, self.program)
        self.another.on_click(lambda _: self.attempt(self._draw_another))
        self.ask.on_click(lambda _: self.attempt(self._ask))
        self.attempt(self.update)

    def update(self) -> None:
        runs = [run for run in self.session.runs if past_runs.has_answers(run)]
        offer(self.run, [(past_runs.name(run), past_runs.name(run)) for run in runs])
        self.ask.disabled = self.another.disabled = not runs
        if not runs:
            self.status.value = self.session.nothing if not self.session.runs else html.page(html.text("No run has left answers yet."))
            return
        found = past_runs.checkpoints(past_runs.named(self._answers.rows))
        weights = [
            (f"{label(line.condition)}, seed {line.seed} ({label(line.stage)})", (line.condition, line.seed, line.run))
            # The same weights stand under each condition that asks them otherwise: here they are asked anew.
            for line in found.drop_duplicates(["seed", "run"]).itertuples()
        ]
        offer(self.weights, weights, first=next((value for _, value in weights if parted(value[0])[1] == "proactive"), None))
        self._offer_programs()

    @property
    def _answers(self) -> Answers:
        run = self.session.find(self.run.value)
        if run is None:
            raise UsageError("choose a run first")
        return past_runs.answers(run)

    def _offer_programs(self) -> None:
        """Offers the programs that the weights were asked about in their seed, w/o IO first."""
        _, seed, folder = self.weights.value
        rows = self._answers.rows
        groups = rows[(rows["seed"] == seed) & (rows["run"] == folder)].drop_duplicates("program").set_index("program")["group"]
        found = [(groups[name], program) for (of, name), program in self._answers.programs.items() if of == seed and name in groups]
        found.sort(key=lambda pair: (pair[0] != "without_io", pair[1].name))
        before = self.program.value
        offer(self.program, [(f"{program.name} ({label(group)}, {_statements(program)})", program) for group, program in found])
        if self.program.value != before or not self.source.value:
            self._pick()

    def _pick(self) -> None:
        program = self.program.value
        if program is None:
            show(
                self.status,
                html.text(
                    "The sources of this run's programs are not in its answers, or of a family that cannot be read: draw another one."
                ),
            )
            return
        self.source.value = program.source
        self._offer_inputs(program.family)

    def _offer_inputs(self, name: str) -> None:
        offer(self.input, [(written(x), x) for x in family(name).inputs()])

    def _draw_another(self) -> None:
        name = self._family
        drawn = np.random.default_rng()
        used = {known for _, known in self._answers.programs}
        new = next(word for word in draw_names(len(used) + 1, drawn) if word not in used)
        self.source.value = family(name).sketch(new, drawn).source
        self._offer_inputs(name)

    @property
    def _family(self) -> str:
        name = str(self._answers.rows["family"].iloc[0])
        if name not in READERS:
            raise UsageError(
                f"programs of the family {name!r} cannot be read from text yet, so none is run here; take a run of {', '.join(READERS)}"
            )
        return name

    def _ask(self) -> None:
        from pbb_helpers.explore.talk import Talker, question  # torch: only who asks waits for it

        show(self.replies)  # what was said before belongs to another question
        wanted = [mode for mode, box in self.modes.items() if box.value]
        if not wanted:
            raise UsageError("no way of answering is ticked; tick one")
        program = typed(self.source.value, self._family)
        condition, seed, folder = self.weights.value
        rows = self._answers.rows
        model = rows[rows["run"] == folder]["model"].iloc[0]
        self.ask.disabled = True
        try:
            show(self.status, html.text("loading the weights …"))
            self._talker = self._talker or Talker(Store(self.session.folder / "store"))
            self._talker.load(folder, model)
            started, parts = time.monotonic(), []
            for number, mode in enumerate(wanted):
                show(self.status, html.text(f"asking {number + 1} of {len(wanted)}: {label(mode)} …"))
                reply = self._talker.ask(question(program, self.input.value, mode, template=self.phrasing.value))
                kind, wrong = past_runs.first_wrong(program, reply.example.input, mode, reply.row["generated"], reply.row["gold"])
                parts.append(html.reply(reply, program.source, kind, wrong))
            show(self.replies, *parts)
        finally:
            self.ask.disabled = False
        took = time.monotonic() - started
        show(
            self.status,
            html.text(
                f"{condition}, seed {seed}, about {program.name}({written(self.input.value)}): {len(wanted)} answers in {took:.1f} s. {self._known(program)}"
            ),
        )

    def _known(self, program: Program) -> str:
        """Returns what the model could know of a program: its name may be new, or stand for another source."""
        known = self._answers.programs.get((self.weights.value[1], program.name))
        if known is None:
            return "The run was not asked about this name: unless it is one of the others that it was trained on, only the ways with the source in the prompt can work."
        return (
            ""
            if known == program
            else "This is not the source that this name has in the run: without the source in the prompt, the other one is asked for."
        )


def _statements(program: Program) -> str:
    return f"{program.length} statement{'' if program.length == 1 else 's'}"
