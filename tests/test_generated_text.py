"""What a model wrote is text in a report, whatever it wrote: nothing runs, nothing is hidden, nothing is fetched, the page stays small."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_output
from test_report import make_run

from pbb_helpers import markup, notebook
from pbb_helpers.analysis import reading
from pbb_helpers.sharing import report
from pbb_helpers.sharing.report_index import index_page
from pbb_helpers.training import evaluate
from pbb_helpers.training.store import Store

OWN = "document.title='OWNED'"
WRITTEN = {
    "script": f"<script>{OWN}</script>",
    "handler": f'<img src=x onerror="{OWN}"><svg/onload={OWN}><details open ontoggle={OWN}><body onload={OWN}>',
    "breaking out": f"</pre></td></tr></table></div></section></style></title></script><script>{OWN}</script>",
    "links": f'[click](javascript:{OWN}) <a href="javascript:{OWN}">click</a> <iframe src="javascript:{OWN}"></iframe>',
    "quotes": f'"\' onmouseover={OWN} autofocus onfocus={OWN} x="',
    "entities": f"&lt;script&gt; &#60script>{OWN}</script> &#x202e;abc &rlm; &zwnj;",
    "mutation": f'<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror={OWN}&gt;">',
    "templates": f"{{{{ 7*7 }}}} {{% raw %}} ${{7*7}} <!-- <![CDATA[ <![x[ ]]> $\\href{{javascript:{OWN}}}{{x}}$ $$\\frac{{$$",
    "terminal": "\x1b[31mred\x1b[0m \x1b]0;OWNED\x07 \x9b2J \x08\x08",
    "controls": "".join(map(chr, [*range(32), *range(127, 160)])),
    "trojan source": "return 8 \u202e\u2066# 7\u2069 \u2066\u2069 \u200e\u200f\u061c",
    "invisible": "7\u200b7 \u200c\u200d\u2060\ufeff\u00ad\u034f\u115f\u3164\ufe0f\U000e0041\U000e0100 \u2028\u2029",
    "right to left": "שלום return 8 مرحبا",
    "half a character": "\ud83d return 8 \udcff",
    "long line": "<b>" + "A" * 100_000,
    "megabyte": "<script>" + "7 " * 500_000 + "the end",
}
ANSWERS = [text.encode(errors="backslashreplace").decode() for text in WRITTEN.values()]  # as `evaluate` gives them
STYLES = [
    "URL(//{at})",
    "u\\72l(http://{at})",
    "url&#40;http://{at})",
    "image-set('http://{at}' 1x)",
    "-webkit-image-set(url(http://{at}) 1x)",
]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: what a browser does with the page is not seen")


def rows() -> pd.DataFrame:
    """Returns a row per hostile answer, and what was asked is hostile as well."""
    return pd.DataFrame([
        {"condition": "proactive", "group": "without_io", "mode": mode, "prompt": f"{text[:300]}(3)", "generated": text, "answer": None, "gold": "8", "correct": False}
        for mode in ("direct", "recall") for text in ANSWERS
    ])  # fmt: skip


@pytest.fixture
def shown(monkeypatch) -> list:
    """Returns a list of the outputs that a notebook would hold."""
    outputs: list = []
    monkeypatch.setattr(
        "IPython.display.display",
        lambda data, raw, metadata=None: outputs.append(new_output("display_data", data=data, metadata=metadata or {})),
    )
    return outputs


@pytest.fixture
def everywhere(tmp_path: Path, shown: list) -> Callable[..., Path]:
    """Returns a function that writes a report with hostile text in every place that text can come to."""

    def write(**changes: object) -> Path:
        notebook.show(reading.answers(rows(), n=32), caption=WRITTEN["script"])
        for text in WRITTEN.values():
            notebook.show(text)
            shown.append(new_output("stream", name="stdout", text=text))
            shown.append(new_output("error", ename=text[:200], evalue=text, traceback=[text]))
            shown.extend(
                new_output("display_data", data={kind: text}) for kind in ("text/plain", "text/html", "text/markdown", "text/latex")
            )
        text = "".join(value for value in WRITTEN.values() if len(value) < 1000)
        facts = {"title": text, "question": text, "error": {"index": 1, "heading": text, "name": text, "value": text * 100}, "commit": text,
                 "parameters": {"profile": text, "model": text * 100}, "changed": ["model"], "hardware": {"cpu": text}, "versions": {text: text}}  # fmt: skip
        run = make_run(tmp_path, headline=text.encode(errors="replace").decode(), **facts | {"status": "failed"} | changes)
        node = nbformat.read(run.notebook, 4)
        node.cells[-1].outputs = shown
        run.notebook.write_text(nbformat.writes(node).encode(errors="backslashreplace").decode(), encoding="utf-8")
        path = tmp_path / "report.html"
        path.write_text(report.page(run), encoding="utf-8")
        (tmp_path / "index.html").write_text(index_page([run], tmp_path), encoding="utf-8")
        return path

    return write


def hidden(text: str) -> set[str]:
    """Returns the characters in a text that do not show."""
    return {c for c in text if c not in "\n\t" and markup.visible(c) != c}


def test_the_page_is_small_and_shows_what_was_written(everywhere: Callable) -> None:
    path = everywhere()
    page = path.read_text(encoding="utf-8")
    assert len(page) < 1_500_000, "thirty megabytes were written"
    assert not hidden(page) and not hidden(path.with_name("index.html").read_text(encoding="utf-8"))
    assert markup.external_loads(page) == []
    for mark in (
        "\\x1b]0;OWNED\\x07",
        "\\x9b2J",
        "\\u202e\\u2066# 7\\u2069",
        "7\\u200b7",
        "\\U000e0041",
        "\\ud83d",
        "\\x00\\x01",
        "שלום",
        "the end",
    ):
        assert mark in page, mark
    assert "characters left out" in page


def test_an_answer_is_shortened_in_the_table_and_whole_in_the_rows(shown: list, tmp_path: Path) -> None:
    notebook.show(reading.answers(rows(), n=32))
    for text in shown[0].data.values():
        assert len(text) < 400_000 and "of 1,000,015 characters left out" in text and "the end" in text
    folder = notebook.record(rows=rows(), folder=tmp_path)
    read = [json.loads(line) for line in (folder / "rows.jsonl").read_text().split("\n") if line]
    assert [row["generated"] for row in read] == ANSWERS * 2 and {row["answer"] for row in read} == {None}


def test_half_a_character_is_spelled_out_where_it_is_written() -> None:
    class Tokenizer:
        def decode(self, ids: list[int], **_: object) -> str:
            return WRITTEN["half a character"]

    assert evaluate.text_of(Tokenizer(), []) == "\\ud83d return 8 \\udcff"


def test_rows_of_the_store_come_back_to_the_character(tmp_path: Path) -> None:
    store, written = Store(tmp_path), [{"generated": text, "answer": None} for text in WRITTEN.values()]
    path = store.save_rows("a" * 64, "b" * 64, written)
    assert store.load_rows("a" * 64, "b" * 64) == written
    assert path.read_text().isascii() and len(path.read_text().splitlines()) == len(written), "also for whoever reads it in a terminal"


@pytest.mark.parametrize("mode", ["direct", "cot", "recall", "source"])
def test_hostile_answers_are_parsed_without_a_word(mode: str) -> None:
    for text in WRITTEN.values():
        found = evaluate.parse_answer(mode, text)
        assert found == text.rstrip() if mode == "source" else found is None


def test_a_text_that_looks_like_our_own_marks_is_text(tmp_path: Path) -> None:
    html = report.markdown("$x$ &#xe000;7&#xe001; \ue0000\ue001 formula0x formula0123456789abcdef0x", "here")
    assert html.count("<math") == 1 and "formula0x" in html


@pytest.mark.parametrize("style", STYLES)
def test_a_style_that_would_load_is_dropped_and_a_plain_one_is_kept(style: str) -> None:
    text = f'<p style="color: rgb(1, 2, 3); background: {style.format(at="x.org/a")}">x</p>'
    assert markup.sanitise(text) == "<p>x</p>"
    assert "rgb(1, 2, 3)" in markup.sanitise('<p style="color: rgb(1, 2, 3)">x</p>')


@pytest.mark.parametrize(
    "load",
    [
        "<p style='background: URL(https://x.org/a)'>",
        "<style>@IMPORT 'https://x.org/a'</style>",
        "<p style='background: image-set(\"https://x.org/a\" 1x)'>",
    ],
)
def test_a_load_is_seen_however_it_is_written(load: str) -> None:
    assert markup.external_loads(load) == ["https://x.org/a"]


# ---------------------------------------------------------------- in a real browser


class Active(HTMLParser):
    """Collects handlers and links that run something."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.active += [
            f"{tag} {name}" for name, value in attrs if name.startswith("on") or (value or "").strip().lower().startswith("javascript:")
        ]
        self.active += [tag] if tag in ("iframe", "object", "embed", "form", "base") else []


def dom(path: Path, tmp_path: Path) -> str:
    """Returns the page as Chromium has it after it ran what it runs."""
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=2000",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
    ]
    return subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True, stdin=subprocess.DEVNULL
    ).stdout


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Returns the address of a server on this machine, and the list of what it was asked for."""
    paths: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", paths
    server.shutdown()


@needs_browser
def test_in_a_browser_no_script_runs_and_nothing_is_fetched(everywhere: Callable, shown: list, asked: tuple, tmp_path: Path) -> None:
    at, paths = asked
    loads = "".join(f'<p style="background: {style.format(at=at)}">x</p>' for style in STYLES)
    shown += [new_output("display_data", data={kind: loads}) for kind in ("text/html", "text/markdown")]
    path = everywhere()
    for page in (path, path.with_name("index.html")):
        found = dom(page, tmp_path)
        title = re.search("<title>(.*?)</title>", found, flags=re.S)
        assert title and title[1] != "OWNED" and found.count("<script") == 1, page.name
        reader = Active()
        reader.feed(found)
        assert reader.active == [] and not hidden(found)
    assert "\\u202e\\u2066# 7\\u2069" in found or "\\u202e\\u2066# 7\\u2069" in dom(path, tmp_path)
    assert paths == []


@needs_browser
def test_the_same_texts_unescaped_would_run_and_fetch(asked: tuple, tmp_path: Path) -> None:
    """What the test above would see, were the page not escaped."""
    at, paths = asked
    path = tmp_path / "page.html"
    path.write_text(
        f"<title>mine</title>{WRITTEN['script']}"
        + "".join(f'<p style="background: {style.format(at=f"{at}/{i}")}">x</p>' for i, style in enumerate(STYLES[1:]))
    )
    assert "<title>OWNED</title>" in dom(path, tmp_path)
    assert {"/0", "/1", "/2"} <= set(paths)
