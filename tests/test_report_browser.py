"""The pages as a browser shows them: on a phone, in the dark, on paper, with the keyboard, to a screen reader (axe-core), offline."""

from __future__ import annotations

import base64
import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from nbformat.v4 import new_output
from test_generated_text import BROWSER
from test_report import PNG, display, make_run
from test_share import CLAIM, write_claims

from pbb_helpers.markup import table_html
from pbb_helpers.running.run_record import all_runs
from pbb_helpers.sharing import share
from pbb_helpers.sharing.report_index import render_all

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[test]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed: pip install -e '.[test]'")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: what a browser does with the page is not seen")

PAGES = ("tiny/abc123.html", "tiny/def456.html", "index.html")
CODE = (
    "from math import *\n\n@cache\ndef f(x: int = 3) -> str:\n    # a comment\n    return f'{x!r:>20} {1.5e3} ' + \"text\" * len([None, True])  "
    + "# long " * 30
)
FORMULA = (
    "## Loss\n\nA formula $x^2$ and\n\n$$"
    + "+".join(f"x_{{{i}}}" for i in range(60))
    + "$$\n\n> quoted, and `code`\n\n[a link](https://example.org)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a published folder: a run with every kind of output, a failed and a killed one, and claims."""
    folder = tmp_path_factory.mktemp("pages")
    figure = (Path(__file__).parent.parent / "figures/01_proactive/accuracy.png").read_bytes()
    wide = pd.DataFrame({f"a long name of column {i}": [i / 7, None] for i in range(12)}, index=["first", "second"])
    text = pd.DataFrame({"generated": ["x = 1\n" * 30 + "y" * 300], "correct": [True]})
    outputs = [
        display({"image/png": base64.b64encode(figure).decode()}, {"image/png": {"alt": "accuracy by condition", "width": 896}}),
        display({"text/html": table_html(wide)}),
        display({"text/html": table_html(text)}),
        display({"text/html": f'<pre class="pbb-text">{"step by step " * 400}</pre>'}),
        display({"text/markdown": "**bold** and a list\n\n* one\n* two"}),
        new_output("stream", name="stdout", text="word " * 900),
        new_output("stream", name="stderr", text="a warning"),
    ]
    cells = (FORMULA, "## Two", "## Three", CODE)
    make_run(folder, *outputs, cells=cells, title="Can it run a program_with_a_very_long_name_that_has_no_place_to_break?")
    error = {"index": 5, "heading": "Train", "name": "ValueError", "value": "no luck"}
    failed = new_output("error", ename="ValueError", evalue="no luck", traceback=["\x1b[31mValueError\x1b[0m: no luck " * 30])
    model = "/a/path/of/a/model/" + "that_is_long_" * 9
    make_run(folder, failed, cells=cells, key="def456", status="failed", error=error, started="2026-03-02T03:04:05+00:00", seconds=7.0,
             headline="", parameters={"profile": "smoke", "model": model}, changed=["model"])  # fmt: skip
    make_run(folder, key="ghi789", status="killed", started="2025-03-02T03:04:05+00:00", seconds=4000.0, commit="0123456789", title="Zebra")
    write_claims(folder / "figures" / "tiny" / "claims.csv", CLAIM, CLAIM | {"verdict": "not shown", "claim": "long " * 60})
    assert render_all(folder / "runs", folder / "reports", figures=folder / "figures")[1] == []
    return share.publish(share.pages(all_runs(folder / "runs"), folder / "reports", folder / "figures"), folder / "site")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Returns the browser of this machine."""
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, site: Path) -> Iterator[Callable]:
    """Returns a function that opens a page of the site: its name, the width in CSS pixels, "light" or "dark", "screen" or "print"."""
    contexts = []

    def open_(name: str, width: int = 1280, scheme: str = "light", media: str = "screen"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.emulate_media(media=media, color_scheme=scheme)
        page.goto((site / name).as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()


def unfold(page) -> None:
    """Opens everything that is folded: what is hidden, axe does not look at."""
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    page.wait_for_timeout(50)  # `toggle` is told a moment later


def violations(page) -> list[str]:
    """Returns what axe-core finds to be serious or critical."""
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found if one["impact"] in ("serious", "critical") for node in one["nodes"]]


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(opened: Callable, name: str, width: int, scheme: str):
    page = opened(name, width, scheme)
    unfold(page)
    assert violations(page) == []


def test_axe_would_find_an_image_without_words_and_pale_text(opened: Callable):
    page = opened(PAGES[0])
    page.evaluate("document.querySelector('.figure img').removeAttribute('alt')")
    page.evaluate("document.querySelector('.headline').style.color = '#ddd'")
    assert {one.split(":")[0] for one in violations(page)} == {"image-alt", "color-contrast"}


@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_the_screen(opened: Callable, name: str):
    page = opened(name)
    unfold(page)
    for width in (320, 400, 901, 1001):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.querySelectorAll('body *')].every(one => one.getBoundingClientRect().left > -1)")


def test_a_wide_figure_can_be_read_on_a_phone(opened: Callable):
    page = opened(PAGES[0], 360)
    figure = page.locator(".figure").first
    assert figure.locator("img").bounding_box()["width"] > 600
    assert figure.evaluate("one => one.scrollWidth > one.clientWidth && one.tabIndex === 0")


def test_dark_and_light_differ_and_paper_is_always_white(opened: Callable):
    shade = "getComputedStyle(document.body).backgroundColor"
    seen = [opened(PAGES[0], scheme=scheme).evaluate(shade) for scheme in ("light", "dark")]
    assert seen[0] != seen[1]
    for name in PAGES:
        assert opened(name, 794, "dark", "print").evaluate(shade) == "rgb(255, 255, 255)"


def test_paper_shows_all_of_it_and_no_controls(opened: Callable):
    page = opened(PAGES[0], 794, media="print")
    assert not page.locator("nav").is_visible() and not page.locator("#unfold").is_visible()
    assert page.evaluate("[...document.querySelectorAll('.output pre')].every(one => one.scrollHeight <= one.clientHeight + 1)")
    assert not opened("index.html", 794, media="print").locator(".find").is_visible()


def test_finding_and_sorting(opened: Callable):
    page = opened("index.html")

    def rows() -> list[str]:
        return [row.get_attribute("data-key") for row in page.locator("#runs tbody tr:visible td:nth-child(5)").all()]

    assert rows() == ["7.0", "3.0", "4000.0"]
    page.get_by_role("button", name="took").click()
    assert rows() == ["3.0", "7.0", "4000.0"] and page.locator("[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="took").click()
    assert rows() == ["4000.0", "7.0", "3.0"] and page.locator("[aria-sort]").count() == 1
    page.get_by_label("Sort by").select_option("newest first")
    assert rows() == ["7.0", "3.0", "4000.0"]
    page.get_by_label("Find").fill("KILLED zebra")
    assert rows() == ["4000.0"] and page.get_by_role("status").text_content() == "1 of 3 shown"
    page.get_by_label("Find").fill("nothing has this")
    assert rows() == []
    page.get_by_label("Find").fill("")
    page.get_by_role("button", name="profile=smoke").click()
    assert rows() == ["7.0"]


def test_all_code_is_shown_and_folded_again(opened: Callable):
    page = opened(PAGES[0])
    code = page.locator("details.source .highlight").last
    assert not code.is_visible()
    page.get_by_role("button", name="Show all code").click()
    assert code.is_visible()
    page.get_by_role("button", name="Fold all code").click()
    assert not code.is_visible()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder as GitHub Pages does, below a path of its own; gives the address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{folder.name}/"
    server.shutdown()
    server.server_close()


def test_served_below_a_path_every_report_is_a_click_away_and_nothing_else_is_asked_for(browser, site: Path):
    with served(site) as address:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        for i in range(3):
            page.goto(address)
            page.locator("#runs .name a").nth(i).click()
            page.get_by_role("link", name="Programming by Backprop").click()
            page.wait_for_url("**/index.html")  # a click waits for the next page to begin, not for its title
            assert page.title() == "Reports: Programming by Backprop" and page.locator("#runs tbody tr").count() == 3
        page.close()
    asked = [url.removeprefix(address) for url in asked if not url.startswith("data:") and not url.endswith("favicon.ico")]
    assert set(asked) == {"", "index.html", *PAGES[:2], "tiny/ghi789.html"}


def test_without_scripts_everything_is_there_to_read(browser, site: Path):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    assert page.locator("#runs tbody tr:visible").count() == 3 and not page.locator(".find").is_visible()
    page.goto((site / PAGES[0]).as_uri())
    assert page.get_by_role("img", name="accuracy by condition").is_visible() and not page.locator("#unfold").is_visible()
    context.close()


def test_the_page_holds_its_figure(opened: Callable):
    """A picture that can't be decoded has no size, whatever its tag says."""
    natural = opened(PAGES[0]).evaluate("[...document.images].map(one => one.naturalWidth)")
    assert natural == [1792]
    assert PNG not in opened(PAGES[0]).content()
