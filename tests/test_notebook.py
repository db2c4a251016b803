from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pydantic
import pytest

from pbb_helpers import notebook
from pbb_helpers.markup import table_html, visible
from pbb_helpers.programs import UsageError
from pbb_helpers.progress import Progress, duration

EVIL = "<script>alert(1)</script> \x1b[31mred \u202eevil \u200b"


@pytest.fixture
def shown(monkeypatch) -> list[tuple[dict, dict]]:
    """Returns a list that collects what would be displayed: (data, metadata)."""
    collected = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata=None: collected.append((data, metadata or {})))
    return collected


class Settings(pydantic.BaseModel):
    profile: str
    n: int | None = None


def test_parameters_by_model_and_by_dict():
    assert notebook.parameters(Settings, {"profile": "quick", "n": 3, "other": 1}).n == 3
    assert notebook.parameters({"profile": ("smoke", "quick"), "n": int | None}, {"profile": "smoke", "n": None}).profile == "smoke"


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        (Settings, {"profile": 3}),
        (Settings, {}),
        ({"n": int}, {"n": "3"}),
        ({"n": int}, {}),
        ({"profile": ("smoke", "quick")}, {"profile": "smok"}),
    ],
)
def test_parameters_refuses_in_one_line(schema, values):
    with pytest.raises(UsageError) as error:
        notebook.parameters(schema, values)
    assert "\n" not in str(error.value)


def test_show_escapes_text_and_tables(shown):
    notebook.show(EVIL)
    notebook.show(pd.DataFrame({"generated": [EVIL, None], "accuracy": [0.123456, float("nan")]}), caption=EVIL)
    for data, _ in shown:
        assert "<script" not in data["text/html"]
        assert not any(c in data["text/html"] + data["text/plain"] for c in "\x1b\u202e\u200b")
        assert "alert(1)" in data["text/plain"]
    assert ">0.123<" in shown[1][0]["text/html"] and "–" in shown[1][0]["text/html"]


def test_show_wants_alt_text_for_a_figure(shown, tmp_path: Path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    with pytest.raises(UsageError, match="alt"):
        notebook.show(figure)
    notebook.show(figure, alt="An empty figure")
    assert shown[0][1]["image/png"]["alt"] == "An empty figure"
    figure.savefig(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps({"alt": "From the file"}))
    notebook.show(tmp_path / "a.png")
    assert shown[1][1]["image/png"]["alt"] == "From the file"
    with pytest.raises(UsageError, match="no figure at"):
        notebook.show(tmp_path / "b.png")


def test_table_says_how_many_rows_there_are():
    html = table_html(pd.DataFrame({"a": range(60)}), rows=5)
    assert html.count("<tr>") == 6 and "5 of 60 rows" in html


def test_record_writes_whole_files(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PBB_RUN_DIR", str(tmp_path / "run"))
    folder = notebook.record(rows=pd.DataFrame({"a": [1, 2]}), results=pd.DataFrame({"n": [1]}), headline="two\nlines \u202e")
    assert [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()] == [{"a": 1}, {"a": 2}]
    assert (folder / "headline.txt").read_text() == "two lines \\u202e\n"
    assert sorted(p.name for p in folder.iterdir()) == ["headline.txt", "results.csv", "rows.jsonl"]


def test_interactive_runs_go_to_the_project(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("PBB_RUN_DIR", raising=False)
    monkeypatch.delenv("PBB_RUNS", raising=False)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert notebook.run_folder("01_proactive") == tmp_path / "runs" / "01_proactive" / "interactive"


def test_visible_leaves_ordinary_text_alone():
    text = "x = 5 + 3\n\treturn 8 — Ünïcödé 中文 🙂"
    assert visible(text) == text


def test_progress_says_what_how_far_and_how_long(monkeypatch):
    clock = iter([0.0, *[float(i) for i in range(1, 50)]])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress("stage 1", total=100, unit="steps")
    for _ in range(10):
        progress.advance(note="loss 0.5")
    line = progress.line()
    assert line.startswith("stage 1: 10 of 100 steps (10 %), ") and line.endswith(" left; loss 0.5")


def test_progress_prints_seldom_and_at_the_end(capsys):
    with Progress("evaluate", total=500) as progress:
        for _ in range(500):
            progress.advance()
    assert capsys.readouterr().out.splitlines() == ["progress: evaluate: 500 of 500, done in 0 s"]
    with pytest.raises(ZeroDivisionError), Progress("evaluate", total=5):
        _ = 1 / 0
    assert "failed after" in capsys.readouterr().out


def test_duration_reads_well():
    assert [duration(s) for s in (0, 59.6, 3599, 3600)] == ["0 s", "1 min 0 s", "59 min 59 s", "1 h 0 min"]


def test_live_curves_are_redrawn_in_place_and_leave_nothing(monkeypatch):
    shown = []

    def display(data, raw, metadata, display_id, update):
        shown.append((data, metadata, display_id, update))

    class Shell:
        kernel = object()

    monkeypatch.setattr("IPython.get_ipython", Shell)
    monkeypatch.setattr("IPython.display.display", display)
    line = {"condition": "proactive", "seed": 0, "stage": "stage1", "loss": 1.0}
    with notebook.LiveCurves(every=0) as curves:
        curves.add(line | {"step": 20})
        curves.add(line | {"step": 40, "loss": 0.5})
    first, second, last = shown
    assert "image/png" in first[0] and first[1]["image/png"]["alt"] and not first[3]
    assert second[3] and second[2] == first[2] and last[2] == first[2] and last[0]["text/html"] == ""
    assert [kept["step"] for kept in curves.lines] == [20, 40]


def test_live_curves_outside_a_notebook_only_collect(monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    with notebook.LiveCurves(every=0) as curves:
        curves.add({"condition": "proactive", "seed": 0, "stage": "stage1", "step": 1, "loss": 1.0})
    assert len(curves.lines) == 1
