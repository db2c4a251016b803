"""The panels of Explore by their values: what is chosen, what they then show, and that nothing of a run is run but what its family holds."""

from __future__ import annotations

import asyncio
import dataclasses
import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from runs_for_tests import CONDITIONS, make_runs, write_run

from pbb_helpers import markup
from pbb_helpers.data.documents import MODES, N_TEMPLATES, chain_of_thought
from pbb_helpers.data.typed_programs import CIPHER_EXAMPLE, EXAMPLE, read
from pbb_helpers.experiments import experiment
from pbb_helpers.experiments.demonstration_plan import SMOKE
from pbb_helpers.explore import explore, past_runs, talk
from pbb_helpers.explore.explore import AnswersPanel, ComparePanel, RunsPanel, Session, TalkPanel
from pbb_helpers.explore.explore_html import marked
from pbb_helpers.families.arithmetic import Arithmetic
from pbb_helpers.figures import plots_runs
from pbb_helpers.programs import UsageError, from_cell, written
from pbb_helpers.running.run_record import all_runs
from pbb_helpers.training import evaluate, models
from pbb_helpers.training.store import Store

A, B, FAILED = "01_tiny/aaaa00000000", "01_tiny/bbbb00000000", "02_other/cccc00000000"
EVIL = "<script>document.title='OWNED'</script>\u202e\x1b[31m"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of two runs that answered and one that failed: read-only."""
    folder = tmp_path_factory.mktemp("explored") / "runs"
    make_runs(folder)
    return folder


@pytest.fixture
def copy(runs: Path, tmp_path: Path) -> Path:
    """Returns a copy of the runs that a test may change."""
    return shutil.copytree(runs, tmp_path / "runs")


def words(shown: str) -> str:
    """Returns what a reader sees of some HTML."""
    return html.unescape(re.sub(r"<[^>]+>", " ", shown))


def seen(panel) -> str:
    """Returns all that a panel shows, as text."""
    return " ".join(words(output.value) for output in panel.outputs)


def rows_of(folder: Path, name: str) -> pd.DataFrame:
    """Returns the answers that lie in a run's folder, read apart from the code under test."""
    return pd.DataFrame([json.loads(line) for line in (folder / name / "rows.jsonl").read_text().splitlines()])


# ---------------------------------------------------------------- runs


def test_the_table_shows_every_run_and_its_state(runs: Path) -> None:
    panel = RunsPanel(Session(runs))
    text = words(panel.table.value)
    assert "3 runs: 1 failed, 2 completed" in text and "lr=0.003" in text and "headline of aaaa00000000" in text
    assert [name for name, _ in panel.run.options] == [FAILED, B, A], "the newest first"


@pytest.mark.parametrize(("text", "state", "notebook", "expected"), [
    ("", "failed", "", [FAILED]), ("", "", "01_tiny", [B, A]), ("LR=0.003", "", "", [B]), ("tiny headline aaaa", "", "", [A]),
    ("tiny", "failed", "", []), ("", "completed", "02_other", []),
])  # fmt: skip
def test_filters_narrow_the_table(runs: Path, text: str, state: str, notebook: str, expected: list[str]) -> None:
    panel = RunsPanel(Session(runs))
    panel.text.value, panel.state.value, panel.notebook.value = text, state, notebook
    assert [name for name, _ in panel.run.options] == expected
    keys = {"aaaa00000000", "bbbb00000000", "cccc00000000"}
    assert {key for key in keys if key in panel.table.value} == {name.split("/")[1] for name in expected}
    assert expected or "clear a filter" in seen(panel)


def test_a_failed_run_says_what_went_wrong_as_text(runs: Path) -> None:
    panel = RunsPanel(Session(runs))
    panel.run.value = FAILED
    assert "cell 3 (Training): ValueError: it <b>broke</b>" in words(panel.detail.value) and "<b>broke" not in panel.detail.value


def test_the_report_is_linked_once_it_is_there(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = RunsPanel(Session(copy))
    panel.run.value = A
    assert "href" not in panel.link.value
    panel.report.click()
    target = copy.parent / "reports" / f"{A}.html"
    assert target.is_file()
    assert str(target) in words(panel.link.value) and "href" not in panel.link.value, "no Jupyter server serves it here"
    monkeypatch.setenv("JPY_PARENT_PID", "7")
    servers = [{"pid": 6, "root_dir": "/", "base_url": "/other/"}, {"pid": 7, "root_dir": str(copy.parent), "base_url": "/user/x/"}]
    monkeypatch.setattr("jupyter_server.serverapp.list_running_servers", lambda: servers)
    panel.run.value = B
    assert panel.link.value == '<div class="pbb-x"></div>'
    panel.run.value = A
    assert f'href="/user/x/files/reports/{A}.html"' in panel.link.value
    servers[1]["root_dir"] = str(copy)
    panel.session.refresh()
    assert "href" not in panel.link.value, "not below the folder that is served"


def test_a_refresh_shows_what_is_new_and_keeps_what_was_chosen(copy: Path) -> None:
    session = Session(copy)
    panel, compare = RunsPanel(session), ComparePanel(session)
    panel.run.value, panel.state.value = A, "completed"
    chosen = [choice.value for choice in compare.runs]
    progress = {"done": 30, "total": 120, "left": 75.0, "line": "training: loss 0.5"}
    write_run(copy, "dddd00000000", status="running", progress=progress)
    panel.refresh.click()
    assert (panel.run.value, panel.state.value, [choice.value for choice in compare.runs]) == (A, "completed", chosen)
    assert "dddd" not in panel.table.value
    panel.state.value = ""
    assert (
        "running" in panel.table.value
        and "25 %" in panel.table.value
        and "1 min 15 s" in panel.table.value
        and "loss 0.5" in panel.table.value
    )
    record = copy / "01_tiny/dddd00000000/run.json"
    record.write_text(record.read_text().replace('"running"', '"failed"'))
    session.refresh()
    assert "2 failed" in words(panel.table.value)


def test_where_nothing_changed_nothing_is_sent(runs: Path) -> None:
    session, changes = Session(runs), []
    for panel in (RunsPanel(session), ComparePanel(session), AnswersPanel(session), TalkPanel(session)):
        for part in [*panel.children, *(inner for child in panel.children for inner in getattr(child, "children", ()))]:
            part.observe(changes.append)
    session.refresh()
    assert changes == []


def test_a_panel_follows_the_runs_by_itself(copy: Path) -> None:
    async def follow() -> str:
        panel = RunsPanel(Session(copy), every=0.01)
        write_run(copy, "dddd00000000", name="03_new", status="failed")
        while "03_new" not in panel.table.value:
            await asyncio.sleep(0.01)
        return panel.table.value

    assert "dddd00000000" in asyncio.run(asyncio.wait_for(follow(), 60))


def test_what_is_being_trained_is_listed(copy: Path) -> None:
    folder = copy / "store" / ("e" * 16)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"key": "e" * 64, "name": "stage2", "steps": 40, "base": {"name": "pbb-small"}}))
    (folder / "metrics.jsonl").write_text('{"step": 20, "loss": 1.25}\n{"step": 4')
    panel = RunsPanel(Session(copy))
    assert "stage2" not in panel.training.value, "killed: nobody holds its lock"
    with Store(copy / "store").locked("e" * 64):
        panel.session.refresh()
        assert re.search(r"stage2\s+pbb-small\s+20\s+40\s+1\.250", words(panel.training.value))


@pytest.mark.parametrize("panel", [RunsPanel, ComparePanel, AnswersPanel, TalkPanel])
def test_without_runs_each_panel_says_what_to_do(panel, tmp_path: Path) -> None:
    assert "No runs in" in seen(panel(Session(tmp_path / "none"))) and not (tmp_path / "none").exists()
    write_run(tmp_path / "runs", "cccc00000000", status="failed")
    shown = seen(panel(Session(tmp_path / "runs")))
    assert "No run has left answers yet." in shown or panel is RunsPanel
    assert "cell" not in explore.headline(Session(tmp_path / "none")) and "no runs in" in explore.headline(Session(tmp_path / "none"))


def test_the_one_that_looks_is_not_listed(runs: Path) -> None:
    assert A not in [past_runs.name(run) for run in Session(runs, own=runs / A).runs]


@pytest.mark.parametrize("panel", [RunsPanel, ComparePanel, AnswersPanel])
def test_a_saved_page_holds_what_was_shown(panel, runs: Path) -> None:
    bundle = panel(Session(runs))._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert markup.external_loads(bundle["text/html"]) == []
    assert words(markup.sanitise(bundle["text/html"])).split() == words(bundle["text/html"]).split(), "a report shows all of it"


# ---------------------------------------------------------------- comparing


def test_two_runs_lie_over_each_other(runs: Path) -> None:
    panel = ComparePanel(Session(runs))
    assert [choice.value for choice in panel.runs] == [B, A, "", ""]
    differ = words(panel.differences.value)
    assert re.search(r"lr\s+0\.003\s+None", differ) and "seeds" in differ and "profile" not in differ
    for output, kind in ((panel.accuracy, "Accuracy on w/o IO programs"), (panel.loss, "Training loss")):
        alt = html.unescape(re.search(r'alt="([^"]+)"', output.value)[1])
        assert alt.startswith(kind) and A in alt and B in alt and 'src="data:image/png;base64,' in output.value
    before = panel.accuracy.value
    panel.group.value = "with_io"
    assert "Accuracy on w/ IO programs" in panel.accuracy.value and panel.accuracy.value != before
    panel.runs[1].value = ""
    assert "choose a second run" in seen(panel) and A not in panel.accuracy.value
    panel.runs[1].value = B
    assert "choose a second run" in seen(panel), "the same run twice is one run"


def test_the_alt_text_says_the_accuracy_in_the_rows(runs: Path) -> None:
    rows = rows_of(runs, A)
    cell = rows[(rows["condition"] == "in_context") & (rows["group"] == "without_io") & (rows["mode"] == "cot")]
    panel = ComparePanel(Session(runs))
    assert f"{A} in_context cot {100 * cell['correct'].mean():.0f} %" in panel.accuracy.value


def test_the_highest_floor_of_a_run_is_drawn_and_said(runs: Path) -> None:
    left = pd.read_csv(runs / A / "floors.csv", dtype={"seed": str})
    best = left[left["seed"] == "all"].sort_values("accuracy").iloc[-1]
    panel = ComparePanel(Session(runs))
    alt = html.unescape(re.search(r'alt="([^"]+)"', panel.accuracy.value)[1]).split("no knowledge of the program:")
    assert len(alt) == 2 and alt[1].count(A) == 3 and B not in alt[1], "B left no floors"
    assert all(re.search(rf"{A} {mode} [a-z ]+ {100 * best['accuracy']:.0f} %", alt[1]) for mode in ("direct", "cot", "recall"))
    panel.group.value = "with_io"
    assert "no knowledge of the program" not in panel.accuracy.value


def test_a_floor_stands_at_its_accuracy_in_the_colour_of_its_run(runs: Path) -> None:
    session = Session(runs)
    table = pd.concat([past_runs.accuracies(session.find(name)).assign(of_run=name) for name in (B, A)])
    floors = pd.DataFrame({"of_run": [A, B, A], "mode": ["cot", "cot", "direct"], "accuracy": [0.31, 0.12, 0.05]})
    figure = plots_runs.accuracy_by_run(table, modes=["cot", "recall"], floors=floors)
    cot, recall = figure.axes
    lines = {
        line.get_color(): line.get_xdata()[0]
        for line in cot.lines
        if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2 and line.get_ydata()[1] == 1
    }
    assert lines == {plots_runs.RUN_STYLES[0][0]: 0.12, plots_runs.RUN_STYLES[1][0]: 0.31}
    assert not [line for line in recall.lines if line.get_linestyle() == "--" and list(line.get_ydata()) == [0, 1]]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [B, A, "floor of the run with that mark"]
    bare = plots_runs.accuracy_by_run(table, modes=["cot"])
    assert [text.get_text() for text in bare.legends[0].get_texts()] == [B, A]


def test_curves_are_those_of_the_condition(runs: Path) -> None:
    run = Session(runs).find(A)
    log = past_runs.training_log(run, runs / "store")
    assert set(log["condition"]) == {"stage1_only", "proactive"} and set(log[log["condition"] == "proactive"]["stage"]) == {
        "stage1",
        "stage2",
    }
    assert log[log["stage"] == "stage1"]["folder"].nunique() == 1, "shared"
    panel = ComparePanel(Session(runs))
    assert panel.condition.value == "proactive" and "stage2" in panel.loss.value
    panel.condition.value = "stage1_only"
    assert "stage2" not in panel.loss.value and "stage1" in panel.loss.value


def test_without_a_store_accuracy_is_still_shown(copy: Path) -> None:
    shutil.rmtree(copy / "store")
    panel = ComparePanel(Session(copy))
    assert "no training log" in seen(panel) and "<img" in panel.accuracy.value and not (copy / "store").exists()


# ---------------------------------------------------------------- runs of several experiments


def pooled(folder: Path, name: str, key: str, **values: tuple) -> None:
    """Writes a run with the answers of another one twice: the first time all right, the second all wrong, with these values in columns."""
    rows = rows_of(folder, name)
    both = [
        rows.assign(correct=right, **{column: pair[place] for column, pair in values.items()}) for place, right in enumerate((True, False))
    ]
    write_run(folder, key, rows=pd.concat(both, ignore_index=True))


@pytest.mark.parametrize(("values", "fronts"), [
    ({"model": ("pbb-small", "pbb-s")}, ("pbb-small", "pbb-s")),
    ({"arm": ("mixes", "sizes"), "model": ("pbb-small", "pbb-s")}, ("mixes, pbb-small", "sizes, pbb-s")),
    ({"axis": ("size", "number"), "n_with_io": (None, 1000)}, ("size", "number, 1,000 w/ IO programs")),
    ({"n_with_io": (1000, 200), "model": ("pbb-small", "pbb-small")}, ("1,000 w/ IO programs", "200 w/ IO programs")),
])  # fmt: skip
def test_conditions_of_one_name_are_not_pooled(values: dict, fronts: tuple[str, str], copy: Path) -> None:
    pooled(copy, A, "eeee00000000", **values)
    session = Session(copy)
    table = past_runs.accuracies(session.find("01_tiny/eeee00000000"))
    for front, right in zip(fronts, (1.0, 0.0), strict=True):
        own = table[table["condition"].isin([f"{front}: {name}" for name in CONDITIONS])]
        assert set(own["accuracy"]) == {right} and len(own) == len(past_runs.accuracies(session.find(A)))
    assert len(table) == 2 * len(own), "and no other line"
    panel = ComparePanel(session)
    assert [choice.value for choice in panel.runs[:2]] == ["01_tiny/eeee00000000", B]
    alt = html.unescape(re.search(r'alt="([^"]+)"', panel.accuracy.value)[1])
    assert all(f"eeee00000000 {front}: proactive cot {said}" in alt for front, said in zip(fronts, ("100 %", "0 %"), strict=True))
    assert panel.condition.value == f"{fronts[0]}: proactive" and "stage2" in panel.loss.value
    assert [name for name, _ in panel.condition.options[1:]][:2] == [
        f"{fronts[0]}: stage 1 only (no w/o IO source)",
        f"{fronts[0]}: proactive",
    ]


def test_an_experiment_has_one_name_in_all_runs_that_are_compared(copy: Path) -> None:
    pooled(copy, A, "eeee00000000", model=("pbb-small", "pbb-s"))
    alt = ComparePanel(Session(copy)).accuracy.value
    assert f"{B} pbb-small: proactive cot" in alt and f"{B} proactive cot" not in alt
    panel = ComparePanel(Session(copy))
    panel.runs[0].value = A
    assert f"{B} proactive cot" in panel.accuracy.value, "where each holds one experiment none is named"


def test_the_share_that_is_right_may_be_that_of_one_experiment(copy: Path) -> None:
    pooled(copy, A, "eeee00000000", model=("pbb-small", "pbb-s"), n_with_io=(None, 1000))
    panel = AnswersPanel(Session(copy), most=1000)
    n = len(rows_of(copy, A))
    assert panel.run.value == "01_tiny/eeee00000000"
    panel.verdict.value = "all"
    assert f"{2 * n} of {2 * n} answers, 50 % of them right" in seen(panel)
    for column, value, said in (("model", "pbb-small", "100 %"), ("model", "pbb-s", "0 %"), ("n_with_io", 1000, "0 %")):
        panel.filters[column].value = value
        assert f"{n} of {2 * n} answers, {said} of them right" in seen(panel)
        panel.filters[column].value = ""
    shown = {column: [name for name, _ in choice.options] for column, choice in panel.filters.items() if choice.layout.display != "none"}
    assert shown["model"] == ["any", "pbb-s", "pbb-small"] and shown["n_with_io"] == ["any", "1000"] and not {"arm", "axis"} & shown.keys()
    assert ", pbb-small: source in context (untuned), seed 0, right" in panel.answer.options[0][0]
    panel.answer.value = panel.answer.options[-1][1]
    assert "pbb-s, 1,000 w/ IO programs: proactive, " in words(panel.card.value)
    panel.filters["model"].value = "pbb-s"
    panel.run.value = A
    assert f"{n} of {n} answers" in seen(panel) and panel.filters["model"].layout.display == "none", "what is not offered filters nothing"


# ---------------------------------------------------------------- answers


def test_the_list_holds_the_answers_that_pass(runs: Path) -> None:
    panel, rows = AnswersPanel(Session(runs), most=1000), rows_of(runs, A)
    panel.run.value = A
    assert len(panel.answer.options) == (~rows["correct"]).sum(), "wrong ones first"
    panel.verdict.value = "all"
    assert len(panel.answer.options) == len(rows)
    for column, value in {"condition": "in_context", "mode": "cot", "length": 1}.items():
        panel.filters[column].value = value
        rows = rows[rows[column] == value]
        assert len(panel.answer.options) == len(rows)
    panel.verdict.value = "right"
    assert len(panel.answer.options) == rows["correct"].sum() > 0 and f"{rows['correct'].sum()} of " in seen(panel)
    panel.filters["length"].value, panel.text.value = "", "nowhere"
    assert panel.answer.options == () and "clear a filter" in seen(panel)
    panel.text.value = rows["program"].iloc[0]
    assert all(rows["program"].iloc[0] in title for title, _ in panel.answer.options)


def test_a_long_list_is_cut_and_counted(runs: Path) -> None:
    panel = AnswersPanel(Session(runs), most=5)
    panel.verdict.value = "all"
    assert len(panel.answer.options) == 5 and "the first 5 in the list" in seen(panel)


def test_an_answer_stands_beside_the_truth_and_its_first_error_is_marked(runs: Path) -> None:
    panel = AnswersPanel(Session(runs), most=1000)
    panel.run.value, panel.filters["mode"].value, panel.filters["condition"].value = A, "cot", "proactive"
    programs = past_runs.answers(Session(runs).find(A)).programs
    assert panel.answer.options
    for _, place in panel.answer.options:
        panel.answer.value = place
        line = rows_of(runs, A).loc[place]
        true = chain_of_thought(programs[line["seed"], line["program"]], int(line["input"])).split("\n")
        said = line["generated"].split("\n")
        first = next(i for i, (a, b) in enumerate(zip([*said, None], [*true, None], strict=False)) if a != b)
        text = words(panel.card.value)
        assert f"{line['program']}({int(line['input'])})" in text and line["gold"] in text and "\n".join(true) in text
        assert marked(line["generated"], first) in panel.card.value and panel.card.value.count('class="wrong"') == 1


def test_the_buttons_go_through_the_list_and_stop_at_its_ends(runs: Path) -> None:
    panel = AnswersPanel(Session(runs))
    places = [place for _, place in panel.answer.options]
    panel.previous.click()
    assert panel.answer.value == places[0]
    panel.next.click()
    panel.next.click()
    assert panel.answer.value == places[2]
    panel.answer.value = places[-1]
    panel.next.click()
    assert panel.answer.value == places[-1]


TRUE = "x = 4 + 3 = 7\nreturn 7"


@pytest.mark.parametrize(("mode", "generated", "expected"), [
    ("cot", TRUE, ("right", None)), ("in_context_cot", TRUE, ("right", None)), ("cot", "x = 4 + 3 = 8\nreturn 8", ("wrong arithmetic", 0)),
    ("cot", "x = 4 + 3 = 7\nreturn 8", ("wrong state", 1)), ("cot", "x = 4 + 3 = 7", ("wrong end", 1)),
    ("recall", f"{EXAMPLE}\n{TRUE}", ("right", None)), ("recall", f"{EXAMPLE}\nx = 4 - 3 = 1\nreturn 1", ("wrong operation", 3)),
    ("recall", EXAMPLE.replace("3", "4") + f"\n{TRUE}", ("source not written first", 1)), ("recall", "", ("source not written first", 0)),
    ("direct", "7", ("right", None)), ("direct", "8", ("wrong answer", 0)), ("source", EXAMPLE, ("right", None)),
    ("source", EXAMPLE.replace("return x", "return 7"), ("wrong source", 2)), ("source", EXAMPLE + "\nreturn x", ("wrong source", 3)),
])  # fmt: skip
def test_the_first_wrong_line(mode: str, generated: str, expected: tuple) -> None:
    gold = EXAMPLE if mode == "source" else "7"
    assert past_runs.first_wrong(read(EXAMPLE), None if mode == "source" else 4, mode, generated, gold) == expected


def change(folder: Path, name: str, **values) -> None:
    """Writes these values into every row of a run, which then has no seal."""
    rows = rows_of(folder, name).assign(**values)
    (folder / name / "manifest.json").unlink()
    (folder / name / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows.astype(object).where(rows.notna(), None).to_dict("records"))
    )


def test_what_a_model_wrote_is_text(copy: Path) -> None:
    change(copy, A, generated=EVIL, prompt=EVIL, gold=EVIL, answer=EVIL, program=EVIL)
    panel = AnswersPanel(Session(copy))
    panel.run.value = A
    for shown in (panel.card.value, panel.count.value):
        assert "<script" not in shown and "\u202e" not in shown and "\x1b" not in shown
    assert "\\u202e\\x1b[31m" in panel.card.value


@pytest.mark.parametrize("source", [
    "def {name}(x):\n    x = [c for c in ().__class__.__base__.__subclasses__()]\n    return x",
    "def {name}(x):\n    for i in range(10 ** 12):\n        x = x + 3\n    return x",
])  # fmt: skip
def test_a_source_in_a_runs_files_is_run_only_if_it_is_of_the_family(source: str, copy: Path) -> None:
    rows = rows_of(copy, A)
    change(copy, A, gold=[source.format(name=p) if m == "source" else g for p, m, g in zip(rows["program"], rows["mode"], rows["gold"], strict=True)],
           prompt="?")  # fmt: skip
    assert past_runs.answers(Session(copy).find(A)).programs == {}
    panel = AnswersPanel(Session(copy), most=1000)
    panel.run.value, panel.filters["mode"].value = A, "cot"
    assert "gold" in seen(panel) and "right would be" not in seen(panel)
    other = TalkPanel(Session(copy))
    other.run.value = A
    assert other.program.options == () and "draw another one" in seen(other)


def test_every_program_that_was_asked_can_be_read_from_the_answers(runs: Path) -> None:
    rows, programs = rows_of(runs, A), past_runs.answers(Session(runs).find(A)).programs
    assert {name for _, name in programs} == set(rows["program"])
    for line in rows[rows["mode"] != "source"].itertuples():
        assert str(programs[line.seed, line.program].run(int(line.input))) == line.gold


def test_a_changed_number_is_not_shown(copy: Path) -> None:
    path = copy / A / "rows.jsonl"
    path.write_text(path.read_text().replace('"correct": false', '"correct": true ', 1))
    panel = AnswersPanel(Session(copy))
    panel.run.value = A
    assert f"{A} is damaged: rows.jsonl" in seen(panel)


def test_rows_of_something_else_are_told_in_one_line(copy: Path) -> None:
    for text, expected in (("[]\nnot json", "is no table of answers"), ('{"measure": 3}\n', "are no answers: 'run' is missing")):
        (copy / A / "manifest.json").unlink(missing_ok=True)
        (copy / A / "rows.jsonl").write_text(text)
        with pytest.raises(UsageError, match=expected):
            past_runs.answers(Session(copy).find(A))


# ---------------------------------------------------------------- ciphers


@pytest.fixture(scope="module")
def ciphers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with one run on ciphers, of a model that knows none."""
    folder = tmp_path_factory.mktemp("ciphers") / "runs"
    plan = dataclasses.replace(SMOKE["ciphers"], conditions=("in_context",))
    write_run(folder, "aaaa00000000", rows=experiment.run(plan, folder / "store", processes=1).rows)
    return folder


def test_answers_about_ciphers_stand_beside_the_truth(ciphers: Path) -> None:
    panel = AnswersPanel(Session(ciphers), most=1000)
    panel.filters["mode"].value = "cot"
    programs = past_runs.answers(Session(ciphers).find(A)).programs
    rows = rows_of(ciphers, A)
    for _, place in panel.answer.options:
        panel.answer.value = place
        line, text = rows.loc[place], words(panel.card.value)
        program = programs[line["seed"], line["program"]]
        assert f"{line['program']}({line['input']})" in text and chain_of_thought(program, from_cell(line["input"])) in text
        assert ("wrong line" in text) == (not line["correct"]) and program.run(from_cell(line["input"])) == line["gold"]
    true = chain_of_thought(program, from_cell(line["input"])).split("\n")
    off = "\n".join([*true[:1], true[1] + "!", *true[2:]])
    for mode, before in (("cot", []), ("recall", program.source.split("\n"))):
        for said, expected in ((true, ("right", None)), (off.split("\n"), ("wrong line", len(before) + 1))):
            found = past_runs.first_wrong(program, from_cell(line["input"]), mode, "\n".join([*before, *said]), line["gold"])
            assert found == expected


def test_a_cipher_may_be_typed_and_drawn(ciphers: Path) -> None:
    panel = TalkPanel(Session(ciphers))
    panel.source.value, panel.input.value = CIPHER_EXAMPLE, panel.input.options[5][1]
    for mode, box in panel.modes.items():
        box.value = mode == "in_context_cot"
    panel.ask.click()
    program = read(CIPHER_EXAMPLE, "ciphers")
    assert chain_of_thought(program, panel.input.value) in words(panel.replies.value) and f"zibble({written(panel.input.value)})" in seen(
        panel
    )
    panel.another.click()
    assert read(panel.source.value, "ciphers").name != "zibble"
    panel.source.value = EXAMPLE
    panel.ask.click()
    assert 'class="bad"' in panel.status.value and "give one function of t and k" in seen(panel)


@pytest.mark.parametrize("cell", ["[1, 2]", "__import__('os')", "'A', 'B'", "(" * 900])
def test_an_input_that_is_none_is_told_in_one_line(cell: object, copy: Path) -> None:
    change(copy, A, input=cell)
    with pytest.raises(UsageError, match="the inputs in the answers of 01_tiny/aaaa00000000 are none of a program's"):
        past_runs.answers(Session(copy).find(A))


# ---------------------------------------------------------------- talking


def test_a_model_answers_as_it_did_in_the_run(runs: Path) -> None:
    """The same weights, asked the same question, write the same text, whether in the run's batch or alone here; rambling is cut off later."""
    found = past_runs.answers(Session(runs).find(A))
    talker = talk.Talker(Store(runs / "store"))
    asked = found.rows[found.rows["condition"].isin(["in_context", "proactive"])].groupby(["condition", "mode"], sort=False).head(2)
    for line in asked.to_dict("records"):
        talker.load(line["run"], line["model"])
        modes = [line["mode"], f"in_context_{line['mode']}"]  # rows of the ceiling have the plain name
        program = found.programs[line["seed"], line["program"]]
        questions = [talk.question(program, line["input"], mode, template=i) for mode in modes if mode in MODES for i in range(N_TEMPLATES)]
        (example,) = [example for example in questions if example.prompt == line["prompt"]]
        reply = talker.ask(example)
        assert reply.row["generated"].startswith(line["generated"])
        if line["answer"] is not None:
            assert {key: reply.row[key] for key in ("generated", "answer", "gold", "correct")}.items() <= line.items()


def test_probabilities_are_those_of_the_whole_text_read_at_once(runs: Path) -> None:
    found = past_runs.answers(Session(runs).find(A))
    base = models.load("pbb-small")
    talker = talk.Talker(Store(runs / "store"))
    talker.load(found.rows[found.rows["condition"] == "in_context"]["run"].iloc[0], "pbb-small")
    program = next(iter(found.programs.values()))
    reply = talker.ask(talk.question(program, 7, "in_context_cot"))
    prompt, _ = models.encode(base.tokenizer, reply.example)
    assert "".join(token.text for token in reply.tokens) == reply.row["generated"] + base.tokenizer.eos_token
    ids = [base.tokenizer.encode(token.text, add_special_tokens=False)[0] for token in reply.tokens]
    with torch.no_grad():
        logits = base.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    expected = logits.softmax(-1)[range(len(ids)), ids]
    np.testing.assert_allclose([token.probability for token in reply.tokens], expected.numpy(), atol=1e-4)
    for token in reply.tokens:
        assert all(p <= token.probability for _, p in token.others) and token.probability + sum(p for _, p in token.others) <= 1 + 1e-5
    assert reply.row["generated"] == evaluate.generate(base.model, base.tokenizer, [prompt], max_new_tokens=60)[0]


def talking(runs: Path, condition: str = "proactive") -> TalkPanel:
    panel = TalkPanel(Session(runs))
    panel.run.value = A
    panel.weights.value = next(value for _, value in panel.weights.options if value[:2] == (condition, 0))
    return panel


def test_the_model_that_is_chosen_is_the_one_that_is_asked(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(copy, A).query("condition == 'in_context'")
    store, loaded = Store(copy / "store"), []
    other = rows.assign(model="pbb-xs", run=store.folder(models.load("pbb-xs").key).name, group="with_io")
    write_run(copy, "eeee00000000", rows=pd.concat([rows, other], ignore_index=True))
    load = talk.Talker.load
    monkeypatch.setattr(talk.Talker, "load", lambda self, folder, base: (loaded.append((folder, base)), load(self, folder, base)))
    panel = TalkPanel(Session(copy))
    assert panel.run.value == "01_tiny/eeee00000000"
    names = [name for name, _ in panel.weights.options]
    assert names == [f"{model}: source in context (untuned), seed 0 (untuned)" for model in ("pbb-small", "pbb-xs")]
    for (_, value), model, group in zip(panel.weights.options, ("pbb-small", "pbb-xs"), ("w/o IO", "w/ IO"), strict=True):
        panel.weights.value = value
        assert f"({group}, " in panel.program.options[0][0], "as these weights know it"
        for mode, box in panel.modes.items():
            box.value = mode == "in_context_direct"
        panel.ask.click()
        assert f"{model}: in_context, seed 0, about" in seen(panel) and "1 answers in" in seen(panel)
    assert loaded == [(some["run"].iloc[0], some["model"].iloc[0]) for some in (rows, other)]


def test_source_truth_and_answer_stand_side_by_side(runs: Path) -> None:
    panel = talking(runs, "in_context")
    assert {value[0] for _, value in panel.weights.options} == set(CONDITIONS) and "(w/o IO" in panel.program.options[0][0]
    program = panel.program.options[1][1]
    panel.program.value, panel.input.value = program, 9
    assert panel.source.value == program.source
    for mode, box in panel.modes.items():
        box.value = mode in ("direct", "in_context_cot")
    panel.ask.click()
    text = words(panel.replies.value)
    assert text.count(program.source) == 2 and chain_of_thought(program, 9) in text
    assert "chain of thought, source in context:" in text and "2 answers in" in seen(panel)
    assert not panel.ask.disabled


def test_a_program_may_be_typed_and_drawn(runs: Path) -> None:
    panel = talking(runs)
    panel.source.value = "def zibble(x):\n  x = x+3  # three\n  return x"
    for mode, box in panel.modes.items():
        box.value = mode == "in_context_direct"
    panel.ask.click()
    assert EXAMPLE in words(panel.replies.value) and "was not asked about this name" in seen(panel)
    panel.another.click()
    drawn = read(panel.source.value)
    assert drawn.name not in rows_of(runs, A)["program"].tolist() and Arithmetic().in_range(drawn, 0)
    panel.source.value = EXAMPLE.replace("zibble", panel.program.value.name)
    panel.ask.click()
    assert "not the source that this name has in the run" in seen(panel)


@pytest.mark.parametrize("text", ["", "import os", "def f(x):\n    open('owned', 'w')\n    return x", "def f(x):\n    x = x * 4\n    x = x * 4\n    return x"])  # fmt: skip
def test_what_is_no_program_of_the_family_is_not_run(text: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    panel = talking(runs)
    panel.source.value = text
    panel.ask.click()
    assert 'class="bad"' in panel.status.value and words(panel.replies.value).strip() == "" and list(tmp_path.iterdir()) == []


def test_what_cannot_be_asked_says_why(copy: Path) -> None:
    panel = talking(copy)
    for box in panel.modes.values():
        box.value = False
    panel.ask.click()
    assert "tick one" in seen(panel)
    panel.modes["direct"].value = True
    shutil.rmtree(copy / "store" / past_runs.answers(Session(copy).find(A)).rows.query("condition == 'proactive'")["run"].iloc[0])
    panel.ask.click()
    assert "are no longer in" in seen(panel) and not panel.ask.disabled


def test_weights_of_another_base_model_are_refused(copy: Path) -> None:
    folder = copy / "store" / past_runs.answers(Session(copy).find(A)).rows.query("condition == 'proactive'")["run"].iloc[0]
    config = json.loads((folder / "config.json").read_text())
    config["base"]["key"] = "f" * 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="trained on another model than what is called 'pbb-small' now"):
        talk.Talker(Store(copy / "store")).load(folder.name, "pbb-small")


def test_stages_are_followed_to_the_first_and_never_out_of_the_store(copy: Path) -> None:
    store = copy / "store"
    last = past_runs.answers(Session(copy).find(A)).rows.query("condition == 'proactive'")["run"].iloc[0]
    assert [config["name"] for _, config in past_runs.stages_behind(store, last)] == ["stage1", "stage2"]
    config = json.loads((store / last / "config.json").read_text())
    for parent in (config["key"], "../../" + last, None, 7):
        (store / last / "config.json").write_text(json.dumps(config | {"parent": parent}))
        assert [path.name for path, _ in past_runs.stages_behind(store, last)] == [last]
    assert past_runs.stages_behind(store, "../store") == []


def test_runs_are_told_apart_by_what_differs(runs: Path) -> None:
    found = [run for run in all_runs(runs) if past_runs.has_answers(run)]
    table = past_runs.differences(found).set_index("")
    assert table.to_dict("index") == {"lr": {B: "0.003", A: "None"}, "seeds": {B: "[1]", A: "[0]"}}
    assert past_runs.differences([found[0], found[0]]).empty
