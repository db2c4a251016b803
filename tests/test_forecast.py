"""How long a notebook will take: what it counts, what a trial is, and that the command tells it."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pbb_helpers.cli import main
from pbb_helpers.data.conditions import condition
from pbb_helpers.data.plan import QUICK
from pbb_helpers.experiments import composition_plan, experiment, forecast, profiles
from pbb_helpers.experiments.jobs import jobs
from pbb_helpers.programs import UsageError

PLANNED = replace(QUICK, conditions=("in_context", "proactive"))


class Bar:
    done = total = 0

    def update(self, done: int, *, total: int, note: str) -> None:
        self.done, self.total = done, total


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, int]]:
    """Returns the models that a trial was made of, each with the number of processes; all get through 100 documents a second."""
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(forecast, "measure", lambda plan, processes, tell: seen.append((plan.model, processes)) or 100.0)
    return seen


def test_a_part_takes_its_documents_and_questions_at_the_rate_of_its_model(asked) -> None:
    other = replace(PLANNED, model="pbb-xs")
    parts, seconds = forecast.forecast([{"one": PLANNED, "two": other}, {"three": PLANNED}], processes=2)
    assert asked == [("pbb-small", 2), ("pbb-xs", 2)] and [part.name for part in parts] == ["one", "two", "three"]
    one, *others = parts
    assert all(part[1:] == one[1:] for part in others)
    assert one.documents == 2 * sum(map(PLANNED.budget.documents, condition("proactive").stages)) and one.questions > 0
    assert one.seconds == pytest.approx((one.documents + one.questions) / 100)
    assert seconds == pytest.approx(3 * one.seconds / 2), "two seeds keep two processes busy to the end"


def test_processes_that_have_no_job_left_save_no_time(asked) -> None:
    alone = replace(PLANNED, seeds=(0,), conditions=("proactive",))
    (part,), seconds = forecast.forecast([{"alone": alone}], processes=8)
    assert seconds == part.seconds and asked == [("pbb-small", 1)]


def test_experiments_at_the_same_time_share_the_processes(asked) -> None:
    pool = {f"{n}": replace(PLANNED, seeds=(0,), conditions=("proactive",), n_with_io=n) for n in (300, 350, 400, 450)}
    parts, seconds = forecast.forecast([pool], processes=4)
    assert seconds == max(part.seconds for part in parts) < sum(part.seconds for part in parts) / 3


@pytest.mark.parametrize("planned", [profiles.PROFILES["quick"], profiles.PROFILES["smoke"], composition_plan.PROFILES["quick"]])
def test_a_trial_is_short_and_keeps_every_process_busy(planned) -> None:
    piece = forecast.trial(planned, 3)
    assert len(jobs(piece)) == 3 and piece.budget.stage1_steps == forecast.STEPS and piece.model == planned.model
    same = {"log_every": planned.budget.stage1.log_every, "checkpoint_every": planned.budget.stage1.checkpoint_every}
    assert replace(piece.budget.stage1, **same) == planned.budget.stage1
    assert piece.n_with_io == planned.n_with_io and forecast.trial(replace(planned, n_without_io=2), 1).n_without_io == 2


def test_the_meter_reads_the_logs_and_stops_when_it_has_seen_enough() -> None:
    meter = forecast.Meter(2)
    for seconds in (1.0, 3.0, 5.0):
        meter.add({"seed": 0, "seconds": seconds, "examples": 100 * seconds})
        meter.add({"seed": 1, "seconds": 2 * seconds, "examples": 100 * seconds})
    assert meter.rate == pytest.approx(100 + 50)
    meter.add({"seed": 0, "seconds": 40.0, "examples": 4000})
    with pytest.raises(forecast._Enough):
        meter.add({"seed": 1, "seconds": 40.0, "examples": 2000})


def test_a_trial_is_over_when_it_has_seen_enough(tmp_path, plan, monkeypatch) -> None:
    monkeypatch.setattr(forecast, "SECONDS", 0.0)
    monkeypatch.setattr(forecast.tempfile, "tempdir", str(tmp_path))
    rates = [forecast.measure(replace(plan, seeds=(0,)), 1, said.append) for said in ([], [])]
    assert min(rates) > 0 and not list(tmp_path.iterdir())


def test_what_is_forecast_is_what_a_run_counts(tmp_path, plan, asked) -> None:
    bar = Bar()
    experiment.run(plan, tmp_path, processes=1, progress=bar)
    (part,), seconds = forecast.forecast([{"it": plan}], processes=1)
    assert bar.done == bar.total == part.documents + part.questions and seconds == pytest.approx(bar.total / 100)


def test_a_model_that_cannot_be_trained_is_one_line(monkeypatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no room on the device")

    monkeypatch.setattr(forecast, "run", fails)
    with pytest.raises(UsageError, match="the trial of pbb-small failed: RuntimeError: no room on the device"):
        forecast.measure(PLANNED, 1, lambda line: None)


def test_the_command_tells_how_long_it_takes(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(forecast.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        sys, "argv", ["pbb", "estimate", "01_proactive", "--profile", "smoke", "-p", "model", "pbb-xs", "-p", "processes", "1"]
    )
    monkeypatch.chdir(Path(__file__).parents[1])
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code and not list(tmp_path.iterdir())
    out, err = capsys.readouterr()
    head, row, last = out.splitlines()
    assert re.split(r"  +", head) == ["experiment", "documents", "questions", "in one process"] and re.split(r"  +", row)[0] == "pbb-xs"
    assert last.startswith("about ") and " with processes = 1, if nothing else runs here" in last
    said = re.search(r"trial of pbb-xs: up to 60 steps of 16 documents\n  ([\d,]+) documents a second and process", err)
    assert said and 5 < int(said[1].replace(",", "")) < 50_000
