"""The page of Explore as a person has it: JupyterLab in a real browser, run, clicked, typed into, in both of its themes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_for_tests import lab
from runs_for_tests import make_runs, write_run

from pbb_helpers.data.typed_programs import EXAMPLE

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no playwright: pip install -e '.[test]'; the page in the browser is not tested"
)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None, reason="no chromium on this machine (apt-get install chromium): the page in the browser is not tested"
    ),
]
A, B, FAILED = "01_tiny/aaaa00000000", "01_tiny/bbbb00000000", "02_other/cccc00000000"
PATIENCE = 120_000  # milliseconds: for a machine busy with trainings; where something is wrong, a test waits as long
NOT_OURS = re.compile(
    r"favicon|ERR_INTERNET_DISCONNECTED|ERR_NAME_NOT_RESOLVED"  # a machine without a network
    r"|/api/contents/[^ ]*\.jupyter|404 \(Not Found\).*/api/workspaces"  # Lab asks for files of its own that a first start lacks
)
CONTRAST = """element => {
    const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = rgb => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
    const numbers = text => text.match(/[0-9.]+/g).map(Number);
    const over = (top, under) => top.slice(0, 3).map((v, i) => (top[3] ?? 1) * v + (1 - (top[3] ?? 1)) * under[i]);
    let layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(numbers(getComputedStyle(at).backgroundColor));
    const under = layers.reduceRight((ground, layer) => over(layer, ground), [255, 255, 255]);
    const [a, b] = [light(over(numbers(getComputedStyle(element).color), under)), light(under)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of two runs that answered and one that failed, where Lab finds the reports beside it."""
    folder = tmp_path_factory.mktemp("explored") / "lab" / "runs"
    make_runs(folder)
    return folder


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    """Returns the address of the notebook in a running Lab."""
    with lab(runs.parent, runs) as found:
        yield found


@pytest.fixture(scope="module")
def errors() -> list[str]:
    """Returns what the browser's console called an error, and exceptions that nothing caught."""
    return []


@pytest.fixture(scope="module")
def page(address: str, errors: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Returns the page after Run All Cells."""
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: errors.append(f"{message.text} {message.location['url']}") if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.locator(".jp-StatusBar-TextItem", has_text="| Idle").wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator("[data-command='runmenu:run-all']").click()
        page.locator(".jp-OutputArea-output", has_text="3 runs: ").last.wait_for()
        page.shots = tmp_path_factory.mktemp("screenshots")
        yield page
        browser.close()


def panel(page, role: str):
    """Returns the cell's output that holds a part of this role."""
    return page.locator(".jp-OutputArea-output", has=page.locator(f".pbb-{role}"))


def choose(page, role: str, words: str, option: str) -> None:
    """Chooses an option of a labelled list by its words."""
    panel(page, role).get_by_label(words, exact=True).select_option(label=option)


def shot(page, name: str, role: str) -> None:
    """Leaves a picture of a part, to look at."""
    page.locator(f".pbb-{role}").scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    page.screenshot(path=page.shots / f"{name}.png")


def test_runs_are_filtered_and_one_is_looked_at(page) -> None:
    table = page.locator(".pbb-runs")
    assert table.locator("tbody tr").count() == 3
    choose(page, "runs", "State", "failed")
    playwright.expect(table.locator("tbody tr")).to_have_count(1)
    playwright.expect(page.locator(".pbb-detail")).to_contain_text("it <b>broke</b>")
    choose(page, "runs", "State", "any")
    field = panel(page, "runs").get_by_label("Find", exact=True)
    field.fill("lr=0.003")
    field.press("Enter")
    playwright.expect(table.locator("tbody tr")).to_have_count(1)
    field.fill("")
    field.press("Enter")
    playwright.expect(table.locator("tbody tr")).to_have_count(3)
    shot(page, "runs", "runs")


def test_a_report_opens_in_a_tab_of_its_own(page) -> None:
    choose(page, "runs", "Look at", A)
    panel(page, "runs").get_by_role("button", name="Report").click()
    link = page.locator(".pbb-link a")
    link.wait_for()
    with page.context.expect_page() as opened:
        link.click()
    report = opened.value
    report.get_by_text("headline of aaaa00000000").first.wait_for()
    report.close()
    assert link.get_attribute("href").endswith(f"/files/reports/{A}.html")


def test_a_run_that_starts_appears_by_itself(page, runs: Path) -> None:
    progress = {"done": 30, "total": 120, "left": 75.0, "line": "training: loss 0.5"}
    run = write_run(runs, "dddd00000000", status="running", progress=progress)
    playwright.expect(page.locator(".pbb-runs")).to_contain_text("loss 0.5")
    shot(page, "live", "runs")
    shutil.rmtree(run.folder)
    playwright.expect(page.locator(".pbb-runs tbody tr")).to_have_count(3)


def test_runs_lie_over_each_other(page) -> None:
    figure = page.locator(".pbb-accuracy img")
    figure.wait_for()
    assert A in figure.get_attribute("alt") and B in figure.get_attribute("alt")
    assert figure.evaluate("image => image.complete && image.naturalWidth > 0")
    choose(page, "accuracy", "Programs", "w/ IO")
    playwright.expect(figure).to_have_attribute("alt", re.compile("w/ IO programs"))
    shot(page, "compare", "differences")
    shot(page, "curves", "loss")


def test_answers_are_read_with_the_keyboard_alone(page) -> None:
    choose(page, "card", "Mode", "chain of thought")
    choose(page, "card", "Condition", "proactive")
    answers = panel(page, "card").get_by_label("Answer", exact=True)
    playwright.expect(answers.locator("option").first).to_contain_text("chain of thought, proactive")
    card, count = page.locator(".pbb-card"), answers.locator("option").count()
    playwright.expect(card).to_contain_text("first wrong line")
    answers.focus()
    for place in range(1, min(count, 3)):
        before = card.inner_text()
        for key in ("Space", "ArrowDown", "Enter"):  # an arrow key on a closed menu goes to the next cell: that is Lab's
            page.keyboard.press(key)
        playwright.expect(card).not_to_have_text(before, use_inner_text=True)
        assert answers.evaluate("list => list.selectedIndex") == place
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText").strip() == "Previous"
    before = card.inner_text()
    page.keyboard.press("Space")
    playwright.expect(card).not_to_have_text(before, use_inner_text=True)
    assert answers.evaluate("list => list.selectedIndex") == min(count, 3) - 2
    shot(page, "answers", "card")


def test_a_model_is_asked(page) -> None:
    choose(page, "replies", "Run", A)
    choose(page, "replies", "Trained as", "source in context (untuned), seed 0 (untuned)")
    box = panel(page, "replies")
    for words, on in {"source reproduced": False, "recall, then step through": False, "chain of thought, source in context": True}.items():
        box.get_by_label(words, exact=True).set_checked(on)
    box.get_by_label("Source", exact=True).fill(EXAMPLE)
    choose(page, "replies", "Input", "9")
    box.get_by_role("button", name="Ask").click()
    playwright.expect(page.locator(".pbb-replies h4")).to_have_count(3)
    playwright.expect(page.locator(".pbb-replies")).to_contain_text("x = 9 + 3 = 12")
    shot(page, "talk", "replies")
    box.get_by_label("Source", exact=True).fill("import os")
    box.get_by_role("button", name="Ask").click()
    playwright.expect(page.locator(".pbb-status")).to_contain_text("give one function of x")


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_both_themes_can_be_read(theme: str, page) -> None:
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.locator(f"body[data-jp-theme-name='{theme}']").wait_for(state="attached")
    for role in ("runs", "detail", "differences", "card", "replies"):
        for element in page.locator(f".pbb-{role} .pbb-x").locator("td, th, p, pre, h4, strong, .soft, .wrong, .tokens span").all()[:40]:
            assert element.evaluate(CONTRAST) >= 4.5, (role, element.inner_text())
        shot(page, f"{role}_{theme.split()[1]}", role)


def test_the_console_holds_no_error(page, errors: list[str]) -> None:
    assert [error for error in errors if not NOT_OURS.search(error)] == []
