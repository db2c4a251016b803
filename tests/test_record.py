"""What the repository shows comes from a recorded run: its pages say what figures/ holds, and only a completed run is recorded."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pbb_helpers import notebook
from pbb_helpers.programs import UsageError
from pbb_helpers.running.run_record import RunResult
from pbb_helpers.sharing import claims, record
from pbb_helpers.training.model_files import shipped
from pbb_helpers.training.recipes import NOTES

ROOT = Path(__file__).parents[1]
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "figures" / "README.md")}
RECORDED = sorted(path.parent for path in (ROOT / "figures").glob("*/run.json"))


WITHOUT_RECORD = {
    "explore",  # it has no question of its own: what it shows are the runs that lie on this machine
}


def test_notebooks_have_recorded_figures() -> None:
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} - WITHOUT_RECORD
    assert notebooks <= {path.name for path in RECORDED}
    for path in RECORDED:
        name = json.loads((path / "run.json").read_text(encoding="utf-8"))["notebook"]
        assert name in notebooks and (path.name == name or path.name.startswith(f"{name}_"))


@pytest.mark.parametrize("folder", RECORDED, ids=lambda path: path.name)
def test_a_page_shows_the_recorded_run(folder: Path) -> None:
    text = PAGES[record.page_of(folder.name, PAGES)]
    assert record.with_block(text, folder.name, record.block(folder)) == text, f"run: pbb record notebooks/{folder.name}.ipynb"


@pytest.mark.parametrize("folder", RECORDED, ids=lambda path: path.name)
def test_each_recorded_figure_has_its_csv_alt_text_and_provenance(folder: Path) -> None:
    figures = sorted(folder.glob("*.png"))
    assert figures
    for figure in figures:
        assert len(pd.read_csv(figure.with_suffix(".csv")))
        facts = json.loads(figure.with_suffix(".json").read_text(encoding="utf-8"))
        assert facts["alt"].strip() and facts["provenance"]["commit"]


def test_readme_shows_the_recorded_claims_and_the_cards() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = {"claims": claims.markdown(ROOT / "figures"), "tally": claims.tally(ROOT / "figures"), "models": record.models_table()}
    for mark, table in tables.items():
        assert record.with_block(text, mark, table) == text, "run: pbb record on any finished run"


def test_every_shipped_model_has_a_line() -> None:
    head, *lines = [line for line in record.models_table().splitlines() if line.startswith(("| model", "| `"))]
    assert [line.split("`")[1] for line in lines] == list(shipped()) and {line.count("|") for line in lines} == {head.count("|")}


def test_a_card_says_what_its_recipe_has_to_say() -> None:
    said = {name: card.facts["note"] for name, card in shipped().items() if "note" in card.facts}
    assert said == {name: note for name, note in NOTES.items() if name in shipped()} and "What changed" in said["pbb-ciphers"]


def finished(folder: Path, status: str = "completed") -> RunResult:
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "accuracy.png").write_bytes(b"png")
    lines = [
        {"condition": c, "mode": m, "group": g, "seed": s, "n": 4, "n_programs": 2, "accuracy": 0.5, "low": low, "high": 0.75}
        for c in ("base", "proactive") for m in ("direct", "cot") for g in ("without_io", "with_io") for s in ("0", "all")
        for low in [0.25 if c == "base" else None]
    ]  # fmt: skip
    pd.DataFrame(lines).to_csv(folder / "results.csv", index=False)
    (folder / "headline.txt").write_text("[quick] it works\n")
    hardware = {"cpu": "a processor", "cores": 2, "memory_gb": 8, "gpus": [], "system": "Linux"}
    facts = {"notebook": "01_x", "status": status, "parameters": {"profile": "quick", "lr": None}, "seconds": 90.0, "hardware": hardware}
    return RunResult(folder, facts)


def test_record_writes_figures_and_the_block(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- 01_x: begin -->\n<!-- 01_x: end -->\nafter\n")
    record.record(finished(tmp_path / "run"), tmp_path / "figures", readme)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "> [quick] it works" in text and "| untuned | 50 (25 to 75) | 50 (25 to 75) |" in text
    assert "| proactive | 50 (no interval) |" in text and "1.5 minutes on a processor" in text
    assert (tmp_path / "figures" / "01_x" / "accuracy.png").read_bytes() == b"png"
    assert "from the store" not in text
    again = finished(tmp_path / "quick")
    (again.folder / "reused.txt").write_text("0.7512\n")
    record.record(again, tmp_path / "figures", readme)
    assert (
        "1.5 minutes on a processor, 2 cores, 8 GB; 75 % of the work was read from the store, so that this is no measure of speed."
        in readme.read_text()
    )
    record.record(finished(tmp_path / "again"), tmp_path / "figures", readme)
    assert readme.read_text() == text


def test_who_trained_is_recorded_beside_who_rendered(tmp_path: Path) -> None:
    readme, run = tmp_path / "README.md", finished(tmp_path / "run")
    readme.write_text("<!-- 01_x: begin -->\n<!-- 01_x: end -->\n")
    run.record.update(commit="new", trained_by=[{"commit": "old", "versions": {}, "stages": 2}])
    record.record(run, tmp_path / "figures", readme)
    facts = json.loads((tmp_path / "figures" / "01_x" / "run.json").read_text())
    assert (facts["commit"], facts["trained_by"]) == ("new", run.record["trained_by"])


def test_tables_and_floors_are_recorded_with_the_figures(tmp_path: Path) -> None:
    readme, run = tmp_path / "README.md", finished(tmp_path / "run")
    readme.write_text("<!-- 01_x: begin -->\n<!-- 01_x: end -->\n")
    floors = pd.DataFrame(
        [{"seed": s, "floor": f, "n": 4, "accuracy": a} for s in ("0", "all") for f, a in (("identity", 0.02), ("best constant", 0.041))]
    )
    notebook.record(floors=floors, tables={"worth": pd.DataFrame([{"pairs": 12.5, "said": "12"}])}, folder=run.folder)
    written = record.record(run, tmp_path / "figures", readme)
    recorded = tmp_path / "figures" / "01_x"
    assert {recorded / "floors.csv", recorded / "tables" / "worth.csv"} <= set(written)
    assert pd.read_csv(recorded / "tables" / "worth.csv").to_dict("records") == [{"pairs": 12.5, "said": 12}]
    assert "per cell of w/o IO, floor 4 % (best constant), 1.5 minutes" in readme.read_text()


def test_a_page_without_a_block_costs_no_recorded_figure(tmp_path: Path) -> None:
    readme, folder = tmp_path / "README.md", tmp_path / "figures" / "01_x"
    readme.write_text("no block")
    run = finished(tmp_path / "run")
    folder.mkdir(parents=True)
    (folder / "old.png").write_bytes(b"recorded")
    with pytest.raises(UsageError, match="01_x"):
        record.record(run, tmp_path / "figures", readme)
    assert [path.name for path in folder.iterdir()] == ["old.png"]


@pytest.mark.parametrize("wrong", ["no figures", "a full disk"])
def test_what_was_recorded_stays_until_the_new_record_is_whole(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme, folder = tmp_path / "README.md", tmp_path / "figures" / "01_x"
    readme.write_text("<!-- 01_x: begin -->\n<!-- 01_x: end -->\n")
    run = finished(tmp_path / "run")
    record.record(run, tmp_path / "figures", readme)
    (folder / "old.png").write_bytes(b"recorded")
    if wrong == "no figures":
        shutil.rmtree(run.folder / "figures")
    else:

        def full(source: Path, target: Path) -> None:
            Path(target).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(record.shutil, "copy", full)
    with pytest.raises(UsageError, match="has no figures" if wrong == "no figures" else "no space left on the disk"):
        record.record(run, tmp_path / "figures", readme)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["01_x"] and (folder / "old.png").is_file()
    monkeypatch.undo()
    record.record(finished(tmp_path / "again"), tmp_path / "figures", readme)
    assert not (folder / "old.png").exists() and (folder / "accuracy.png").is_file()


def test_the_claims_of_all_notebooks_stand_in_one_table(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "<!-- 01_x: begin -->\n<!-- 01_x: end -->\n<!-- claims: begin -->\n<!-- claims: end -->\n<!-- tally: begin -->\n<!-- tally: end -->\n"
    )
    line = {
        "claim": "more",
        "expected": "above",
        "verdict": "above",
        "effect": 0.08,
        "low": 0.041,
        "high": 0.12,
        "n": 60,
        "n_programs": 30,
        "n_seeds": 1,
    }
    other = {"claim": "never run", "expected": "above", "verdict": "not run", "came_true": "-"}
    run = finished(tmp_path / "run")
    pd.DataFrame([line | {"came_true": "yes"}]).to_csv(run.folder / "claims.csv", index=False)
    elsewhere = tmp_path / "figures" / "02_y"
    elsewhere.mkdir(parents=True)
    pd.DataFrame(
        [
            line | {"claim": "m: more", "came_true": "no", "low": None, "high": None, "seed_low": -0.02, "seed_high": 0.001, "n_seeds": 2},
            other,
        ]
    ).to_csv(elsewhere / "claims.csv", index=False)
    record.record(run, tmp_path / "figures", readme)
    text = readme.read_text()
    assert "| more | 01_x | +8 | +4 to +12 | – | 60, 30 programs, 1 seed | above | yes |" in text
    assert "| m: more | 02_y | +8 | – | −2 to 0 | 60, 30 programs, 2 seeds | above | no |" in text and "never run" not in text
    assert "Of 2 predictions in 2 recorded runs 1 came true, 1 did not, 0 are open, and 0 could not have failed" in text
    assert (tmp_path / "figures" / "01_x" / "claims.csv").is_file()


@pytest.mark.parametrize("where", ["its own", "another's"])
def test_claims_that_are_none_are_refused_before_anything_is_replaced(where: str, tmp_path: Path) -> None:
    readme, run = tmp_path / "README.md", finished(tmp_path / "run")
    readme.write_text("<!-- 01_x: begin -->\n<!-- 01_x: end -->\n<!-- claims: begin -->\n<!-- claims: end -->\n")
    record.record(run, tmp_path / "figures", readme)
    before, old = readme.read_text(), tmp_path / "figures" / "01_x" / "old.png"
    old.write_bytes(b"recorded")
    path = (run.folder if where == "its own" else tmp_path / "figures" / "02_y") / "claims.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("claim,effect,low,high,n,n_programs,n_seeds,verdict,came_true\nmore,0.1,0,0.2,,30,1,above,yes\n")
    with pytest.raises(UsageError, match="the claim 'more' does not say of how many answers, programs and seeds"):
        record.record(run, tmp_path / "figures", readme)
    assert readme.read_text() == before and old.is_file()


def test_a_line_for_each_value_of_what_a_notebook_varies(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    table = pd.read_csv(run.folder / "results.csv", dtype={"seed": str})
    two = [table.assign(model=model, accuracy=value) for model, value in (("one", 0.5), ("two", 0.25))]
    pd.concat(two)[["model", *table.columns]].to_csv(run.folder / "results.csv", index=False)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- 01_x: begin -->\n<!-- 01_x: end -->\n")
    record.record(run, tmp_path / "figures", readme)
    assert "| model | condition | direct | chain of thought |" in readme.read_text()
    assert "| one | untuned | 50 (25 to 75) |" in readme.read_text() and "| two | untuned | 25 (25 to 75) |" in readme.read_text()


def test_a_table_that_is_not_of_accuracies_is_shown_as_it_is(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    table = pd.DataFrame(
        {"measure": ["ours over theirs"], "n": [5], "median": [3.14159], "goal": [3.0], "verdict": ["met"], "note": [None]}
    )
    table.to_csv(run.folder / "results.csv", index=False)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- 01_x: begin -->\n<!-- 01_x: end -->\n")
    record.record(run, tmp_path / "figures", readme)
    assert "| ours over theirs | 5 | 3.14 | 3 | met | – |" in readme.read_text()
    assert "`pbb run notebooks/01_x.ipynb -p profile quick`, 1.5 minutes on a processor" in readme.read_text()


def test_the_command_names_what_was_changed(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    run.record["parameters"] |= {"seeds": [0, 1], "processes": 2, "model": "pbb-m"}
    run.record["changed"] = ["seeds", "processes", "profile"]
    readme = tmp_path / "README.md"
    readme.write_text("<!-- 01_x: begin -->\n<!-- 01_x: end -->\n")
    record.record(run, tmp_path / "figures", readme)
    assert "`pbb run notebooks/01_x.ipynb -p profile quick -p seeds 0,1`," in readme.read_text()


def test_a_variant_is_recorded_beside_the_notebooks_own_run(tmp_path: Path) -> None:
    readme, figures = tmp_path / "README.md", tmp_path / "figures"
    readme.write_text("<!-- 01_x: begin -->\n<!-- 01_x: end -->\n<!-- 01_x_large: begin -->\n<!-- 01_x_large: end -->\n")
    record.record(finished(tmp_path / "run"), figures, readme)
    large = finished(tmp_path / "large")
    large.record["changed"], large.record["parameters"]["model"] = ["model"], "pbb-xl"
    assert figures / "01_x_large" / "accuracy.png" in record.record(large, figures, readme, "large")
    assert sorted(path.name for path in figures.iterdir()) == ["01_x", "01_x_large"]
    own, beside = readme.read_text().split("<!-- 01_x: end -->")
    assert "`pbb run notebooks/01_x.ipynb -p profile quick`," in own and "pbb-xl" not in own
    assert "`pbb run notebooks/01_x.ipynb -p profile quick -p model pbb-xl`," in beside
    for name in ("../out", "Large", "a b", "_", "a__b", "x/y"):
        with pytest.raises(UsageError, match=re.escape(f"variant {name!r}; give small letters")):
            record.record(large, figures, readme, name)
    with pytest.raises(UsageError, match="no page has a block <!-- 01_x_other: begin -->"):
        record.record(large, figures, readme, "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "figures", "large", "run"]


def test_numbers_go_to_the_page_that_has_their_block(tmp_path: Path) -> None:
    readme, page = tmp_path / "README.md", tmp_path / "figures" / "README.md"
    page.parent.mkdir()
    readme.write_text("one\n<!-- claims: begin -->\n<!-- claims: end -->\n")
    page.write_text("two\n<!-- 01_x: begin -->\n<!-- 01_x: end -->\n")
    assert {readme, page} < set(record.record(finished(tmp_path / "run"), page.parent, readme))
    assert "it works" in page.read_text() and "it works" not in readme.read_text() and "| claim |" in readme.read_text()
    readme.write_text(page.read_text())
    with pytest.raises(UsageError, match="more than one page has the block <!-- 01_x: begin -->"):
        record.record(finished(tmp_path / "again"), page.parent, readme)


def links(text: str) -> list[str]:
    """Returns where the links and images of a page of Markdown lead to, but for those elsewhere on the web."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith("http")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_images_of_the_pages_lead_somewhere(page: Path) -> None:
    found = links(PAGES[page])
    assert found
    for target in found:
        path, _, place = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not place or place in anchors(linked.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """Returns the addresses of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_an_unfinished_run_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is killed; only a completed run can be recorded"):
        record.record(finished(tmp_path / "run", "killed"), tmp_path / "figures", tmp_path / "README.md")


def test_a_readme_without_the_marks_is_refused() -> None:
    with pytest.raises(UsageError, match="no single block <!-- 02_y: begin -->"):
        record.with_block("nothing here", "02_y", "x")
