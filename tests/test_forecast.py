"""How long a notebook will take: what it counts, what a trial is, and that the command tells it."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from pbb_helpers.cli import main
from pbb_helpers.data.conditions import condition
from pbb_helpers.data.plan import QUICK
from pbb_helpers.experiments import composition_plan, experiment, forecast, profiles
from pbb_helpers.experiments.jobs import jobs


class Bar:
    done = total = 0

    def update(self, done: int, *, total: int, note: str) -> None:
        self.done, self.total = done, total


def test_a_part_takes_its_documents_and_questions_at_the_rate_of_its_model(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(forecast, "measure", lambda plan, processes, tell: asked.append((plan.model, processes)) or 100.0)
    planned = replace(QUICK, conditions=("in_context", "proactive"))
    other = replace(planned, model="pbb-xs")
    one, two, three = forecast.forecast({"one": planned, "two": other, "three": planned}, processes=2)
    assert asked == [("pbb-small", 2), ("pbb-xs", 2)] and one[1:] == three[1:] == two[1:]
    stages = condition("proactive").stages
    assert one.documents == 2 * sum(map(planned.budget.documents, stages)) and one.questions > 0
    assert one.seconds == pytest.approx((one.documents + one.questions) / 100)
    (alone,) = forecast.forecast({"alone": replace(planned, seeds=(0,), conditions=("proactive",))}, processes=2)
    assert alone.seconds == pytest.approx((alone.documents + alone.questions) / 50), "one job keeps one of two processes busy"


@pytest.mark.parametrize("planned", [profiles.PROFILES["quick"], profiles.PROFILES["smoke"], composition_plan.PROFILES["quick"]])
def test_a_trial_is_short_and_keeps_every_process_busy(planned) -> None:
    piece = forecast.trial(planned, 3)
    assert piece.conditions == ("proactive",) and len(jobs(piece)) == 3
    assert (piece.budget.stage1_steps, piece.budget.stage2_steps) == forecast.STEPS
    assert piece.budget.stage1 == planned.budget.stage1 and piece.model == planned.model


def test_the_clock_runs_between_the_first_note_and_the_last() -> None:
    clock = forecast.Clock([(10.0, 40), (12.0, 100), (14.0, 240)])
    assert clock.rate == 50


def test_what_is_forecast_is_what_a_run_counts(tmp_path, plan, monkeypatch) -> None:
    bar = Bar()
    experiment.run(plan, tmp_path, processes=1, progress=bar)
    monkeypatch.setattr(forecast, "measure", lambda *_: 1.0)
    (part,) = forecast.forecast({"it": plan}, processes=1)
    assert bar.done == bar.total == part.documents + part.questions == part.seconds


def test_the_command_tells_how_long_it_takes(monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        sys, "argv", ["pbb", "estimate", "01_proactive", "--profile", "smoke", "-p", "model", "pbb-xs", "-p", "processes", "1"]
    )
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code
    out, err = capsys.readouterr()
    table = out.splitlines()
    assert table[0].split() == ["experiment", "documents", "questions", "about"] and table[1].startswith("pbb-xs ")
    assert table[-1].startswith("about ") and table[-1].endswith("with processes = 1, where nothing else runs beside it")
    assert "trial of pbb-xs: 60 steps of 16 documents\n" in err
