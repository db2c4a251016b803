from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_output
from notebooks_for_tests import write_notebook
from PIL import Image

from pbb_helpers import markup
from pbb_helpers.running.run_record import RunResult, all_runs, seal
from pbb_helpers.sharing import report
from pbb_helpers.sharing.report_index import render_all

PNG = base64.b64encode(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
).decode()
FIGURES = sorted((Path(__file__).parent.parent / "figures").glob("*/*.png"))
EVIL = "<script>alert(1)</script>\x1b[31mred\x1b[0m\u202eevil\x07"


def make_run(tmp_path: Path, *outputs, cells=("1 + 1",), status="completed", headline="a headline", **changes) -> RunResult:
    """Returns a run as the runner would have left it, with these outputs on its last cell; nothing is executed."""
    folder = tmp_path / "runs" / "tiny" / changes.pop("key", "abc123")
    path = write_notebook(folder / "tiny.ipynb", *cells)
    node = nbformat.read(path, 4)
    if outputs:
        node.cells[-1].outputs = list(outputs)
    nbformat.write(node, path)
    record = {
        "notebook": "tiny",
        "title": "A <b>title</b>",
        "question": "?",
        "key": folder.name,
        "status": status,
        "seconds": 3.0,
        "package": "0",
    }
    record |= {
        "started": "2026-01-02T03:04:05+00:00",
        "parameters": {"profile": "quick", "n": 5},
        "changed": ["n"],
        "hardware": {"cpu": "X", "cores": 2},
    } | changes
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "headline.txt").write_text(headline)
    return RunResult(folder, record)


def display(data: dict, metadata: dict | None = None):
    return new_output("display_data", data=data, metadata=metadata or {})


@pytest.mark.parametrize(
    "output",
    [
        new_output("stream", name="stdout", text=EVIL),
        new_output("stream", name="stderr", text=EVIL),
        new_output("execute_result", data={"text/plain": EVIL}),
        display({"text/html": f"<div onclick='alert(1)'>{EVIL}<a href='javascript:alert(1)'>x</a></div>"}),
        display({"text/markdown": f"**bold** {EVIL} [x](javascript:alert(1))"}),
        display({"text/latex": "$\\href{javascript:alert(1)}{x}$"}),
        display({"image/png": PNG}, {"image/png": {"alt": '"><script>alert(1)</script>'}}),
        new_output("error", ename="E", evalue=EVIL, traceback=[EVIL]),
    ],
    ids=lambda o: o.output_type + "-" + next(iter(o.get("data", {"": ""}))),
)
def test_generated_text_runs_nothing_and_hides_nothing(tmp_path, output):
    html = report.page(make_run(tmp_path, output, headline=EVIL, question=EVIL, error={"index": 1, "name": "E", "value": EVIL}))
    body = html.split("</style>", 1)[1].rsplit("<script>", 1)[0]  # our own style and script stand before and after
    assert "<script" not in body
    assert not re.search(r"""<[^>]*\s(on\w+=|href=["']?javascript)""", body)
    assert not any(c in html for c in "\x1b\u202e\x07")


def test_page_is_offline_and_says_what_it_is(tmp_path):
    run = make_run(
        tmp_path, display({"text/html": "<a href='https://x.org'>a link is no load</a>"}), cells=("## One", "## Two", "## Three", "1")
    )
    html = report.page(run)
    assert markup.external_loads(html) == []
    for wanted in (
        "completed",
        "A &lt;b&gt;title",
        "a headline",
        "n = 5",
        "2026-01-02 03:04",
        "X, 2 cores",
        "prefers-color-scheme: dark",
        'href="#two"',
    ):
        assert wanted in html
    assert '<details class="source">' in html and "MathJax" not in html and "require.js" not in html
    assert len(html) < 60_000


def test_figure_without_alt_text_names_the_cell(tmp_path):
    with pytest.raises(report.ReportError, match=r"cell 3 \(id .*without alt text"):
        report.page(make_run(tmp_path, display({"image/png": PNG})))
    assert 'alt="three bars"' in report.page(make_run(tmp_path, display({"image/png": PNG}, {"image/png": {"alt": "three bars"}})))
    with pytest.raises(report.ReportError, match="cell 3 .*image without alt"):
        report.page(make_run(tmp_path, cells=("![](data:image/png;base64,AAAA)",)))


@pytest.mark.parametrize(
    "load",
    [
        "<img src='https://x.org/a.png'>",
        "<img src='//x.org/a.png'>",
        "<link rel=stylesheet href='https://x.org/a.css'>",
        "<style>@import 'https://x.org/a.css'</style>",
        "<p style='background: url(https://x.org/a.png)'>x</p>",
        "<script src='https://x.org/a.js'></script>",
        "<iframe src='https://x.org'></iframe>",
        "<img srcset='https://x.org/a.png 2x'>",
    ],
)
def test_external_load_names_the_cell(tmp_path, load):
    with pytest.raises(report.ReportError, match="cell 3 .*would load .*x.org"):
        report.page(make_run(tmp_path, display({"text/html": load})))
    with pytest.raises(report.ReportError, match="cell 3 .*would load"):
        report.page(make_run(tmp_path, cells=("text: " + load,)))


def test_failed_run_is_rendered_whatever_it_holds(tmp_path):
    run = make_run(
        tmp_path,
        display({"image/png": PNG}),
        status="failed",
        error={"index": 2, "heading": "Train", "name": "ValueError", "value": "no\nluck"},
    )
    html = report.page(run)
    assert "This run failed." in html and "cell 3 (Train): ValueError: no luck" in html and 'href="#cell-2"' in html


def test_run_without_a_notebook_is_rendered(tmp_path):
    run = make_run(tmp_path, status="killed")
    run.notebook.unlink()
    assert "was stopped before its end" in report.page(run)


def test_math_is_mathml_and_code_is_not_math(tmp_path):
    html = report.page(make_run(tmp_path, cells=("## Loss\n\n$L = \\log p$ and `$x$`\n\n$$\\frac{1}{2}$$\n\n$\\frac{$",)))
    assert html.count("<math") == 2 and 'display="block"' in html
    assert "<code>$x$</code>" in html


def test_progress_lines_and_bars_are_kept_out_of_the_text(tmp_path):
    stream = new_output("stream", name="stdout", text="progress: a: 1 of 2\nkept\n 10%|#\r 50%|##\r100%|###\n")
    html = report.page(make_run(tmp_path, stream))
    assert "kept" in html and "a: 1 of 2" not in html and "50%" not in html and "100%|###" in html


def test_rendering_twice_writes_once(tmp_path):
    make_run(tmp_path, display({"image/png": PNG}, {"image/png": {"alt": "x"}}))
    make_run(tmp_path, key="def456", status="failed")
    paths, problems = render_all(tmp_path / "runs", tmp_path / "reports")
    assert not problems and [p.name for p in paths] == ["tiny.html", "index.html"]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "reports").rglob("[!i]*.html")}
    render_all(tmp_path / "runs", tmp_path / "reports")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "reports").rglob("[!i]*.html")}
    assert 'href="index.html"' in (tmp_path / "reports" / "tiny.html").read_text()


def test_index_lists_every_run_safely(tmp_path):
    make_run(tmp_path, display({"image/png": PNG}, {"image/png": {"alt": "x"}}), headline=EVIL)
    make_run(tmp_path, key="def456", status="killed", parameters={"n": EVIL}, changed=["n"])
    folder = tmp_path / "runs" / "tiny" / "damaged"
    folder.mkdir()
    (folder / "run.json").write_text("{")
    render_all(tmp_path / "runs", tmp_path / "reports")
    html = (tmp_path / "reports" / "index.html").read_text()
    assert html.count('<tr><td class="thumb">') == 3 and html.count("data:image/png") == 1
    assert "<script>alert" not in html and "\u202e" not in html
    assert all(status in html for status in ("completed", "killed", "damaged"))
    assert len(all_runs(tmp_path / "runs")) == 3


WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "1", "version_major": 2, "version_minor": 0}}


@pytest.mark.parametrize(
    "data",
    [
        WIDGET | {"text/plain": "IntSlider(value=3)"},
        {"application/vnd.plotly.v1+json": {}, "text/html": "<div></div><SCRIPT>draw()</SCRIPT>"},
        {"application/vnd.vegalite.v5+json": {}, "text/plain": "alt.Chart(...)"},
        {"application/javascript": "draw()"},
    ],
    ids=["ipywidgets", "plotly", "vega", "script"],
)
def test_widget_that_a_page_cannot_show_names_the_cell(tmp_path, data):
    with pytest.raises(report.ReportError, match=r"cell 3 \(id .*has a widget that a page can't show"):
        report.page(make_run(tmp_path, display(data)))
    assert "This run failed." in report.page(make_run(tmp_path, display(data), status="failed"))


def test_widget_with_a_form_that_stands_still_is_shown_so(tmp_path):
    html = report.page(make_run(tmp_path, display(WIDGET | {"text/html": "<p>the last state</p>", "text/plain": "Panel()"})))
    assert "<p>the last state</p>" in html and "Panel()" not in html


def test_a_bar_of_tqdm_is_progress_and_no_result(tmp_path):
    html = report.page(make_run(tmp_path, display(WIDGET | {"text/plain": "Loading:   0%|          | 0/4 [00:00<?, ?it/s]"})))
    assert "Loading:" not in html


@pytest.mark.parametrize("data", [{"image/png": "AAAA"}, {"image/png": PNG[:40]}, {"image/jpeg": PNG[:8]}, {"image/svg+xml": "gone"}])
def test_a_broken_figure_names_the_cell(tmp_path, data):
    (kind,) = data
    with pytest.raises(report.ReportError, match=r"cell 3 \(id .*figure that can't be drawn"):
        report.page(make_run(tmp_path, display(data, {kind: {"alt": "three bars"}})))
    assert "<pre>three bars</pre>" in report.page(make_run(tmp_path, display(data, {kind: {"alt": "three bars"}}), status="failed"))


def test_an_image_in_html_needs_alt_text_too(tmp_path):
    image = f"<p>so: <img src='data:image/png;base64,{PNG}'{{}}></p>"
    with pytest.raises(report.ReportError, match="cell 3 .*image without alt"):
        report.page(make_run(tmp_path, display({"text/html": image.format("")})))
    with pytest.raises(report.ReportError, match="cell 3 .*image without alt"):
        report.page(make_run(tmp_path, cells=("text: " + image.format(" alt=' '"),)))
    assert 'alt="bars"' in report.page(make_run(tmp_path, display({"text/html": image.format(" alt=bars")})))


def test_an_image_that_is_not_attached_names_the_cell(tmp_path):
    cells = ("text: ![three bars](attachment:gone.png)",)
    with pytest.raises(report.ReportError, match="cell 3 .*not attached.*gone.png"):
        report.page(make_run(tmp_path, cells=cells))
    assert "three bars" in report.page(make_run(tmp_path, cells=cells, status="failed"))


def test_a_figure_is_embedded_once_and_small(tmp_path):
    png = (Path(__file__).parent.parent / "figures/01_proactive/accuracy.png").read_bytes()
    output = display({"image/png": base64.b64encode(png).decode()}, {"image/png": {"alt": "accuracy", "width": 896}})
    html = report.page(make_run(tmp_path, output))
    assert html.count("data:image/") == 1 and len(html) < len(png) and 'width="896"' in html


def test_a_page_too_heavy_to_send_names_the_heaviest_cell(tmp_path):
    noise = encoded_noise(900)
    figure = display({"image/png": noise}, {"image/png": {"alt": "noise"}})
    table = display({"text/html": "<p>" + "word " * 100_000 + "</p>"})
    cells = ("## One", "1", "2")
    run = make_run(tmp_path, figure, cells=cells)
    node = nbformat.read(run.notebook, 4)
    node.cells[-2].outputs = [table]
    nbformat.write(node, run.notebook)
    with pytest.raises(report.ReportError) as refused:
        report.render(run, tmp_path / "reports")
    said = str(refused.value)
    assert re.match(r"the report of tiny has [2-9]\.\d MB, more than the 2 MB", said) and "\n" not in said
    assert "cell 5 (id " in said and f"alone has {len(noise) / 1e6:.1f} MB" in said
    assert not list((tmp_path / "reports").rglob("*.html"))
    assert len(report.page(make_run(tmp_path, figure, cells=cells, status="failed"))) > report.HEAVIEST, "what failed must be readable"


def test_numbers_that_changed_on_the_disk_are_not_shown(tmp_path):
    run = make_run(tmp_path, display({"text/plain": "accuracy 12 %"}))
    seal(run)
    page = report.render(run, tmp_path / "reports").read_text(encoding="utf-8")
    run.notebook.write_text(run.notebook.read_text(encoding="utf-8").replace("12 %", "99 %"), encoding="utf-8")
    with pytest.raises(report.ReportError, match=r"is damaged: .*\.ipynb .*; the same pbb run makes it again from the store"):
        report.render(run, tmp_path / "reports")
    assert "12 %" in page and "99 %" not in "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "reports").rglob("*.html"))


def test_a_page_just_below_the_limit_is_rendered(tmp_path, monkeypatch):
    run = make_run(tmp_path, display({"text/html": "<p>é</p>"}))
    size = len(report.page(run).encode())
    monkeypatch.setattr(report, "HEAVIEST", size)
    report.page(run)
    monkeypatch.setattr(report, "HEAVIEST", size - 1)
    with pytest.raises(report.ReportError, match="alone has"):
        report.page(run)


@pytest.mark.parametrize("folder", sorted({path.parent for path in FIGURES}), ids=lambda path: path.name)
def test_a_page_with_the_figures_of_a_recorded_run_is_light(folder, tmp_path):
    outputs = [
        display({"image/png": base64.b64encode(path.read_bytes()).decode()}, {"image/png": {"alt": "x"}})
        for path in FIGURES
        if path.parent == folder
    ]
    assert len(report.page(make_run(tmp_path, *outputs)).encode()) < report.HEAVIEST / 2, "half is left for tables and text"


def encoded_noise(width: int) -> str:
    """Returns a PNG that no palette makes small, as a notebook holds it."""
    buffer = io.BytesIO()
    parts = [Image.effect_noise((width, width), 200) for _ in range(3)]
    Image.merge("RGB", parts).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
