"""An experiment gives the same complete table however it is run: in one process or two, at once or killed and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import faults
import pandas as pd
import psutil
import pytest

from pbb_helpers.analysis import statistics
from pbb_helpers.data.conditions import MAIN
from pbb_helpers.data.descriptions import find
from pbb_helpers.data.documents import WORD_MODES
from pbb_helpers.data.plan import Experiment, small
from pbb_helpers.experiments.experiment import reused, run, trainings
from pbb_helpers.experiments.jobs import jobs, run_job
from pbb_helpers.experiments.leak_report import leak_report
from pbb_helpers.experiments.questions import held_out_inputs, modes_of
from pbb_helpers.programs import UsageError
from pbb_helpers.provenance import trained_by
from pbb_helpers.training import evaluate, train
from pbb_helpers.training.store import Store

DRIVER = """
import multiprocessing, os, signal, sys
from pathlib import Path
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.experiments.experiment import run
from pbb_helpers.data.plan import Experiment
from pbb_helpers.programs import UsageError

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored

class Progress:
    def update(self, done, *, total, note):
        print(done, total, note, flush=True)
        if sys.argv[4:] == ["lose a worker"]:
            (worker, *_) = (p for p in multiprocessing.active_children() if "Manager" not in p.name)
            os.kill(worker.pid, signal.SIGKILL)

try:
    run(eval(sys.argv[1]), Path(sys.argv[2]), processes=int(sys.argv[3]), progress=Progress())
except UsageError as error:
    sys.exit(f"usage: {error}")
"""
FORKS = """
import sys
from pathlib import Path

import faults
import torch

torch.set_num_threads(1)
from pbb_helpers.data.budget import Budget
from pbb_helpers.experiments.jobs import jobs, run_job
from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.data.plan import Experiment

plan, root = eval(sys.argv[1]), Path(sys.argv[2])
plan.dataset(0)  # drawn once, before the forks


def everything(kill_at):
    faults.kill_at_write(kill_at)
    for job in jobs(plan, stack=sys.argv[3:] == ["stack"]):
        run_job(job, root)


for kill_at in [20, 56, 150, *[180] * 50]:
    code, _ = faults.forked(lambda: everything(kill_at))
    print(code)
    if code == 0:
        break
"""


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """Returns the results of an uninterrupted run in two processes, and its store."""
    root = tmp_path_factory.mktemp("whole")
    return run(plan, root, processes=2), root


def text(rows: pd.DataFrame | list[dict]) -> str:
    """Returns rows or metrics without the seconds, for comparing bit by bit."""
    return pd.DataFrame(rows).drop(columns="seconds", errors="ignore").to_json(orient="records", double_precision=15, lines=True)


def in_this_process(plan: Experiment, root: Path, *, stack: bool = False) -> tuple[list[dict], list[dict]]:
    parts = [run_job(job, root) for job in jobs(plan, stack=stack)]
    rows, metrics = ([line for part in parts for line in part[i]] for i in (0, 1))
    return rows, metrics


def in_order(rows: list[dict], plan: Experiment) -> list[dict]:
    return sorted(rows, key=lambda row: (row["seed"], plan.conditions.index(row["condition"])))


# ---------------------------------------------------------------- the table


def test_rows_are_complete(plan, whole):
    results, _ = whole
    modes = {name: modes_of(name) for name in plan.conditions}
    statistics.require_complete(results.rows, conditions=plan.conditions, seeds=plan.seeds, modes=modes, groups=["without_io", "with_io"])
    per_mode = {mode: (3 + 2) * (1 if mode == "source" else 2) for mode in ("direct", "cot", "recall", "source")}
    assert len(results.rows) == 2 * sum(per_mode[mode.removeprefix("in_context_")] for name in plan.conditions for mode in modes[name])
    assert list(results.rows["condition"].unique()) == list(plan.conditions) == list(MAIN)
    assert results.rows["parsed_ok"].eq(results.rows["answer"].notna()).all()
    names = {"run", "model", "family", "condition", "seed", "stage", "group", "program", "input", "mode", "length", "prompt", "generated", "answer",
             "gold", "correct", "parsed_ok"}  # fmt: skip
    assert set(results.rows.columns) == names


def test_conditions_in_words_are_asked_in_words_and_may_be_matched_in_tokens(plan, tmp_path):
    names = ("in_context_description", "description", "code_to_description")
    words = replace(plan, conditions=names, seeds=(0,), n_with_io_asked=1, budget=replace(plan.budget, match="tokens"))
    rows, metrics = in_this_process(words, tmp_path)
    frame = pd.DataFrame(rows)
    modes = {name: modes_of(name) for name in names}
    assert modes["in_context_description"] == ("direct", "cot", "recall_description") and modes["description"] == WORD_MODES
    statistics.require_complete(frame, conditions=names, seeds=[0], modes=modes, groups=["without_io", "with_io"])
    programs = {p.name: p for p in (*words.dataset(0).with_io, *words.dataset(0).without_io)}
    for row in frame.itertuples():
        program = programs[row.program]
        assert row.gold == (program.source if row.mode in ("source", "description") else str(program.run(int(row.input))))
        shown = row.condition == "in_context_description" or row.mode.startswith("in_context_description")
        assert (find(row.prompt) == [program.source]) == shown
    steps = pd.DataFrame(metrics).groupby(["condition", "stage"])["step"].max()
    assert steps["code_to_description"]["stage1"] <= 5 and steps["description"]["stage1"] <= 5
    report = leak_report(words).set_index(["condition", "stage"])
    assert report.loc[("description", "stage2"), "without_io description"] > 0 and (report["leaks"] == 0).all()
    assert report["documents"].min() < report.groupby("stage")["documents"].max().min()


def test_where_the_first_line_is_given_the_questions_and_the_training_are_the_same(plan, tmp_path):
    named = replace(plan, conditions=("proactive", "mixture", "proactive_named", "mixture_named"), seeds=(0,))
    rows, _ = in_this_process(named, tmp_path)
    frame = pd.DataFrame(rows)
    modes = {name: modes_of(name) for name in named.conditions}
    assert modes["proactive_named"] == modes["mixture_named"] == ("recall",)
    statistics.require_complete(frame, conditions=named.conditions, seeds=[0], modes=modes, groups=["without_io", "with_io"])
    for name in ("proactive", "mixture"):
        plain = frame[(frame["condition"] == name) & (frame["mode"] == "recall")]
        given = frame[frame["condition"] == f"{name}_named"]
        same = ["run", "program", "input", "prompt", "gold", "stage"]
        pd.testing.assert_frame_equal(plain[same].reset_index(drop=True), given[same].reset_index(drop=True))
        assert all(text.startswith(f"def {program}(x):") for text, program in zip(given["generated"], given["program"], strict=True))
        assert all(f"def {program}(x):" not in prompt for prompt, program in zip(given["prompt"], given["program"], strict=True))
    assert len({row["run"] for row in rows}) == 2  # no training of their own


def test_gold_answers_are_those_of_the_true_program_in_every_condition(plan, whole):
    programs = {(seed, p.name): p for seed in plan.seeds for p in (*plan.dataset(seed).with_io, *plan.dataset(seed).without_io)}
    for row in whole[0].rows.itertuples():
        program = programs[row.seed, row.program]
        assert row.gold == (program.source if row.mode == "source" else str(program.run(int(row.input))))
        in_prompt = program.source in row.prompt
        assert in_prompt == (row.mode.startswith("in_context") or row.condition == "in_context")
        assert row.mode == "source" or row.input in plan.dataset(row.seed).eval_inputs


def test_seeds_are_trained_apart_and_shared_stages_once(plan, whole):
    results, root = whole
    finished = [path.parent for path in root.glob("*/manifest.json")]
    # Per seed: the only stage of source_only, mixture; the first of three conditions; two second ones.
    assert len(finished) == 2 * 5 and not list(root.glob("*/checkpoint-*"))
    stages = results.metrics.groupby(["condition", "seed", "stage"]).size()
    assert stages.groupby("condition").size().to_dict() == {
        "source_only": 2,
        "stage1_only": 2,
        "proactive": 4,
        "shuffled_source": 4,
        "mixture": 4 // 2,
    }
    one, two = (text(results.metrics[results.metrics["seed"] == seed].drop(columns="seed")) for seed in (0, 1))
    assert one != two
    seeds = {json.loads((path / "config.json").read_text())["settings"]["seed"] for path in finished}
    assert len(seeds) == 2, "each seed has initial adapters of its own"
    runs = results.rows.groupby(["condition", "seed"])["run"].nunique()
    assert (runs == 1).all() and set(results.rows["run"]) <= {path.name for path in root.iterdir()}


def test_the_same_questions_are_asked_in_every_condition_and_in_context_has_the_source(plan, whole):
    rows = whole[0].rows
    asked = {
        name: cell[["seed", "group", "program", "input"]].to_json(orient="records")
        for name, cell in rows[rows["mode"] == "cot"].groupby("condition")
    }
    assert len(set(asked.values())) == 1 and len(asked) == len(plan.conditions)
    prompts = {name: list(cell["prompt"]) for name, cell in rows[rows["mode"] == "cot"].groupby("condition")}
    assert prompts["base"] == prompts["proactive"] == prompts["shuffled_source"] and prompts["in_context"] != prompts["base"]


def test_the_floor_is_fitted_on_w_io_programs_at_the_inputs_that_are_asked(plan, whole):
    table = whole[0].floors
    assert set(table["floor"]) == set(statistics.FLOORS) and set(table["seed"]) == {"0", "1", "all"}
    data = plan.dataset(0)
    inputs = held_out_inputs(plan, data, "without_io", 3)
    identity = [str(p.run(x)) == str(x) for p, some in zip(data.without_io, inputs, strict=True) for x in some]
    (got,) = table[(table["seed"] == "0") & (table["floor"] == "identity")]["accuracy"]
    assert got == pytest.approx(sum(identity) / len(identity))


# ---------------------------------------------------------------- the same again


def test_one_process_and_a_fresh_store_give_the_same_bits(plan, whole, tmp_path):
    again, before = run(replace(plan, seeds=(1,)), tmp_path, processes=1), whole[0]
    assert text(again.rows) == text(before.rows[before.rows["seed"] == 1])
    assert text(again.metrics) == text(before.metrics[before.metrics["seed"] == 1])
    assert text(again.floors[again.floors["seed"] == "1"]) == text(before.floors[before.floors["seed"] == "1"])


def test_a_second_run_trains_and_asks_nothing(plan, whole, monkeypatch):
    monkeypatch.setattr(train.Training, "run", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: pytest.fail("asked again"))
    before = {path: path.stat().st_mtime_ns for path in whole[1].rglob("*.safetensors")}
    rows, metrics = in_this_process(plan, whole[1])
    assert text(in_order(rows, plan)) == text(whole[0].rows) and len(metrics) == len(whole[0].metrics)
    assert {path: path.stat().st_mtime_ns for path in whole[1].rglob("*.safetensors")} == before


def test_results_say_who_trained_each_stage_now_or_before(plan, whole, tmp_path, monkeypatch):
    some = replace(plan, conditions=("base", "stage1_only"), seeds=(0,))
    monkeypatch.setattr(train, "provenance", lambda: {"commit": "before", "versions": {"torch": "1"}})
    in_this_process(some, tmp_path)
    monkeypatch.setattr(train, "provenance", lambda: {"commit": "now", "versions": {"torch": "2"}})
    more = replace(some, conditions=("base", "stage1_only", "proactive", "source_only"))
    rows, _ = in_this_process(more, tmp_path)
    found = trained_by(trainings(tmp_path, [row["run"] for row in rows]).values())
    assert [(each["commit"], each["versions"]["torch"], each["stages"]) for each in found] == [("now", "2", 2), ("before", "1", 1)]
    last = [row["run"] for row in rows if row["condition"] == "proactive"]
    assert {its["commit"] for its in trainings(tmp_path, last).values()} == {"before", "now"}, (
        "the stage that it went on from is among them"
    )
    assert trainings(tmp_path, [row["run"] for row in rows if row["condition"] == "base"]) == trainings(tmp_path, ["../x"]) == {}
    its = whole[0].reused.trainings
    assert len(its) == len(list(whole[1].glob("*/config.json"))) and reused(whole[0], whole[0]).trainings == its


def test_a_condition_alone_gives_the_rows_it_has_among_others(plan, whole, tmp_path):
    alone = replace(plan, conditions=("shuffled_source",), seeds=(1,))
    rows, _ = in_this_process(alone, tmp_path)
    every = whole[0].rows
    assert text(rows) == text(every[(every["condition"] == "shuffled_source") & (every["seed"] == 1)])


def test_models_of_one_hub_family_do_not_share_answers(plan, tmp_path, monkeypatch):
    """Their keys, "org/name@commit", begin alike."""
    from pbb_helpers.training import models

    real = models.load(plan.model, device="cpu")
    some = replace(plan, conditions=("base",), seeds=(0,))
    asked = []
    monkeypatch.setattr(
        evaluate, "evaluate", lambda loaded, model, examples: asked.append(loaded.key) or [{"mode": e.kind} for e in examples]
    )
    for key in ("organisation/model-1B@abc", "organisation/model-8B@abc"):
        monkeypatch.setattr(models, "load", lambda spec, key=key, **_: replace(real, key=key))
        in_this_process(some, tmp_path)
    assert set(asked) == {"organisation/model-1B@abc", "organisation/model-8B@abc"}


# ---------------------------------------------------------------- killed


def test_killed_at_many_writes_and_run_again(plan, whole, tmp_path):
    some = replace(plan, conditions=("source_only", "proactive"), seeds=(0,))
    codes = faults.python(FORKS, repr(some), tmp_path).split()
    assert codes[-1] == "0" and set(codes[:-1]) == {"-9"} and len(codes) > 3, codes
    rows, _ = in_this_process(some, tmp_path)
    every = whole[0].rows
    assert text(in_order(rows, some)) == text(every[every["condition"].isin(some.conditions) & (every["seed"] == 0)])


def test_stacked_seeds_give_the_rows_of_seeds_alone_in_their_order_and_resume_to_the_same_bits(plan, whole, tmp_path):
    some = replace(plan, conditions=("source_only", "proactive"))
    stacked = run(some, tmp_path / "whole", processes=1, stack=True)
    one_order = {name: replace(getattr(some.budget, name), order_seed=0) for name in ("stage1", "stage2")}
    alone = run(replace(some, budget=replace(some.budget, **one_order)), tmp_path / "alone", processes=1)
    assert text(stacked.rows.drop(columns="run")) == text(alone.rows.drop(columns="run"))
    by = ["condition", "seed", "stage", "step"]
    losses = [table.set_index(by)["loss"].sort_index() for table in (stacked.metrics, alone.metrics)]
    pd.testing.assert_series_equal(*losses, rtol=1e-5)
    runs = [set(rows["run"]) for rows in (stacked.rows, alone.rows, whole[0].rows)]
    assert not (runs[0] & (runs[1] | runs[2]) or runs[1] & runs[2]), "kept apart in the store"

    killed = tmp_path / "killed"
    codes = faults.python(FORKS, repr(some), killed, "stack").split()
    assert codes[-1] == "0" and set(codes[:-1]) == {"-9"} and len(codes) > 3, codes
    resumed, log = in_this_process(some, killed, stack=True)
    assert text(in_order(resumed, some)) == text(stacked.rows)
    assert text(log) == text(stacked.metrics)


def start(plan: Experiment, root: Path, *options: str) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """Returns a running experiment, in a process group of its own, that has reported some progress, and all its processes."""
    command = [sys.executable, "-c", DRIVER, repr(plan), str(root), "1", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None and process.stderr is not None
    if not process.stdout.readline():
        pytest.fail(process.stderr.read())
    return process, psutil.Process(process.pid).children(recursive=True) if not options else []


def end(process: subprocess.Popen, children: list[psutil.Process]) -> tuple[int, str]:
    """Returns exit status and stderr, once no process is left."""
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, alive
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def finished(root: Path) -> list[Path]:
    """Returns the sets of answers that are finished; one that is being written lies in a folder of a hidden name."""
    return [path for path in root.rglob("rows.jsonl") if not path.parent.name.startswith(".")]


def test_killed_from_outside_in_every_way_and_run_again(plan, whole, tmp_path):
    plan = replace(plan, conditions=("base", "source_only", "proactive", "mixture"))
    process, children = start(plan, tmp_path)
    os.killpg(process.pid, signal.SIGKILL)  # all at once
    assert end(process, children)[0] == -signal.SIGKILL

    process, children = start(plan, tmp_path)
    assert len(children) >= 2
    process.kill()  # the notebook alone: its trainings go too
    assert end(process, children)[0] == -signal.SIGKILL

    process, children = start(plan, tmp_path)
    while not finished(tmp_path):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C in a terminal reaches all of them
    status, err = end(process, children)
    assert status in (-signal.SIGINT, 130) and err.count("Traceback") == 1 and "\nKeyboardInterrupt\n" in err, err

    process, children = start(plan, tmp_path, "lose a worker")
    status, err = end(process, children)
    assert status == 1 and err.startswith("usage: one of 1 processes was killed from outside") and err.count("Traceback") == 0, err

    began = time.time()
    rows, metrics = in_this_process(plan, tmp_path)
    before, logged = (table[table["condition"].isin(plan.conditions)] for table in (whole[0].rows, whole[0].metrics))
    assert text(in_order(rows, plan)) == text(before)
    assert len(metrics) == len(logged)
    assert any(path.stat().st_mtime < began for path in finished(tmp_path)), "what was finished is kept"


# ---------------------------------------------------------------- bad input, other models


def test_what_is_wrong_is_said_in_one_line_before_or_from_within_a_process(plan, tmp_path):
    with pytest.raises(UsageError, match="0 processes; give at least 1"):
        run(plan, tmp_path, processes=0)
    with pytest.raises(UsageError, match="does not exist"):
        run_job(jobs(replace(plan, model="./no-such-model"))[0], tmp_path)
    too_long = replace(plan, conditions=("source_only",), budget=replace(plan.budget, stage2=replace(plan.budget.stage2, max_length=3)))
    with pytest.raises(UsageError, match="more than max_length 3"):
        run(too_long, tmp_path, processes=1)


def test_a_store_that_cannot_be_written_to_is_said_at_once(plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((UsageError, OSError)):
        Store(tmp_path / "file" / "store")


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_a_model_of_others_goes_through_the_same_code(architecture, tiny_folder, tmp_path):
    """Real architectures with a tokenizer file, names of several tokens, and, for Qwen3, a chat template: what a hub model looks like."""
    folder = tiny_folder(architecture, max_position_embeddings=2048)
    plan = replace(small(Experiment(model=str(folder), conditions=("in_context", "proactive"))), n_without_io=2, n_with_io_asked=2)
    rows = pd.DataFrame([row for job in jobs(plan) for row in run_job(job, tmp_path)[0]])
    modes = {name: modes_of(name) for name in plan.conditions}
    statistics.require_complete(rows, conditions=plan.conditions, seeds=[0], modes=modes, groups=["without_io", "with_io"])
    assert set(rows["model"]) == {str(folder)} and not rows["correct"].any()
