"""Reports handed on: links that lead somewhere, nothing of others overwritten, and claims on top."""

from __future__ import annotations

import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_cli import pbb
from test_report import EVIL, PNG, display, make_run

from pbb_helpers.programs import UsageError
from pbb_helpers.running.run_record import all_runs
from pbb_helpers.sharing import claims, share
from pbb_helpers.sharing.report_index import render_all

CLAIM = {"claim": "proactive beats no exposure", "effect": "0.79", "low": "0.74", "high": "0.8449", "n": "1320", "n_programs": "160"}
CLAIM |= {"n_seeds": "2", "verdict": "shown", "came_true": "yes"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Returns a folder with three runs of two notebooks, claims, and rendered reports."""
    make_run(tmp_path, display({"image/png": PNG}, {"image/png": {"alt": "three bars"}}))
    make_run(tmp_path, key="def456", status="failed", started="2026-03-02T03:04:05+00:00")
    make_run(tmp_path, key="aaa111", started="2026-02-02T03:04:05+00:00", headline="the newest")
    write_claims(tmp_path / "figures" / "tiny" / "claims.csv", CLAIM)
    assert render_all(tmp_path / "runs", tmp_path / "reports", figures=tmp_path / "figures")[1] == []
    return tmp_path


def write_claims(path: Path, *rows: dict[str, str]) -> None:
    """Writes a table of claims."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(rows[0]), *(",".join('"' + value.replace('"', '""') + '"' for value in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def pages(project: Path) -> dict[str, str]:
    """Returns the pages to share."""
    return share.pages(all_runs(project / "runs"), project / "reports", project / "figures")


class Links(HTMLParser):
    """Collects where a page leads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value and not value.startswith("#")]


def broken_links(folder: Path) -> list[str]:
    """Returns every link between the pages of a folder that leads nowhere, or out of it."""
    broken = []
    for page in folder.rglob("*.html"):
        for link in Links(page.read_text(encoding="utf-8")).found:
            target = (page.parent / link).resolve()
            if not link.startswith("https://") and not (target.is_file() and target.is_relative_to(folder.resolve())):
                broken.append(f"{page.relative_to(folder)} → {link}")
    return broken


def files(folder: Path) -> dict[str, bytes]:
    """Returns every file below a folder, by its name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_published_pages_lead_to_each_other_and_nowhere_else(project: Path):
    site = share.publish(share.with_latest(pages(project), all_runs(project / "runs")), project / "site")
    assert sorted(files(site)) == [
        ".nojekyll", ".pbb-site.json", "index.html", "tiny.html", "tiny/aaa111.html", "tiny/abc123.html", "tiny/def456.html",
    ]  # fmt: skip
    assert broken_links(site) == [] and len(Links((site / "index.html").read_text()).found) == 4  # three runs, one claim
    assert "the newest" in (site / "tiny.html").read_text()
    assert not any(str(project) in text.decode() for text in files(site).values()), "no path of this machine"


def test_publishing_again_replaces_what_it_made_and_nothing_else(project: Path):
    site = share.publish(pages(project), project / "site")
    before = files(site)
    (site / "CNAME").write_text("pbb.example.org")
    (site / ".git").mkdir()
    share.publish(pages(project), site)
    assert files(site) == {**before, "CNAME": b"pbb.example.org"} and (site / ".git").is_dir()
    share.publish({"index.html": "new"}, site)
    assert sorted(files(site)) == [".nojekyll", ".pbb-site.json", "CNAME", "index.html"] and not (site / "tiny").exists()


@pytest.mark.parametrize(
    "mark", [None, "{", "[]", '{"files": "all"}', '{"files": [3]}', '{"files": ["../outside.html"]}', '{"files": ["index.html/.."]}']
)
def test_a_folder_of_others_is_not_touched(project: Path, mark: str | None):
    site = project / "site"
    site.mkdir()
    (site / "index.html").write_text("mine")
    (project / "outside.html").write_text("mine")
    if mark:
        (site / share.MARK).write_text(mark)
    before = files(project)
    with pytest.raises(UsageError, match="publish into a new or empty folder"):
        share.publish(pages(project), site)
    assert files(project) == before


def test_a_file_of_others_in_a_published_folder_stops_it_before_anything_is_written(project: Path):
    site = share.publish({"index.html": "old"}, project / "site")
    (site / "tiny").mkdir()
    (site / "tiny" / "abc123.html").write_text("mine")
    before = files(site)
    with pytest.raises(UsageError, match="abc123.html is there, and pbb report did not make it"):
        share.publish(pages(project), site)
    assert files(site) == before


def test_no_page_goes_through_a_link_out_of_the_folder(project: Path):
    site = share.publish({"index.html": "old"}, project / "site")
    (project / "elsewhere").mkdir()
    (site / "tiny").symlink_to(project / "elsewhere")
    with pytest.raises(UsageError, match="not a file inside it"):
        share.publish(pages(project), site)
    assert list((project / "elsewhere").iterdir()) == []


def test_a_publish_that_was_killed_is_repeated(project: Path, monkeypatch):
    def full(path: Path, text: str) -> None:
        if path.name == "def456.html":
            raise KeyboardInterrupt
        path.write_text(text, encoding="utf-8")

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(share, "write_text", full)
        share.publish(pages(project), project / "site")
    share.publish(pages(project), project / "site")
    assert broken_links(project / "site") == [] and (project / "site/tiny/def456.html").is_file()


def test_one_file_to_mail_holds_every_page_and_is_the_same_each_time(project: Path):
    path = share.zipped(pages(project), project / "mail.zip")
    first = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        file.extractall(project / "unpacked")
    assert broken_links(project / "unpacked") == []
    assert files(project / "unpacked/mail") == {name: text.encode() for name, text in pages(project).items()}
    assert share.zipped(pages(project), path).read_bytes() == first


@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), lambda path: path.mkdir(), lambda path: path.symlink_to("gone")])
def test_a_file_of_others_is_no_zip_of_ours(project: Path, make):
    make(project / "mail.zip")
    with pytest.raises(UsageError, match="did not make it"):
        share.zipped(pages(project), project / "mail.zip")
    with zipfile.ZipFile(project / "other.zip", "w") as file:
        file.writestr("letter.txt", "mine")
    with pytest.raises(UsageError, match="did not make it"):
        share.zipped(pages(project), project / "other.zip")


# ---------------------------------------------------------------- claims


def test_claims_stand_on_top_of_the_index(project: Path):
    index = pages(project)["index.html"]
    assert "+79 (+74 to +84)" in index and "1,320" in index
    assert index.index("proactive beats no exposure") < index.index('id="runs"')
    assert 'href="tiny/aaa111.html">tiny</a>' in index, "leads to the newest completed run"
    (project / "figures/tiny/claims.csv").unlink()
    assert "Claims" not in pages(project)["index.html"]


def test_a_claim_that_was_not_run_is_left_out(tmp_path: Path):
    write_claims(tmp_path / "tiny" / "claims.csv", CLAIM, CLAIM | {"claim": "never", "verdict": "not run", "effect": ""})
    assert [row["claim"] for row in claims.read(tmp_path)[0][0].rows] == [CLAIM["claim"]]


def test_claims_are_text(tmp_path: Path):
    write_claims(tmp_path / "tiny" / "claims.csv", {key: EVIL for key in claims.COLUMNS})
    found, problems = claims.read(tmp_path)
    html = claims.html(found, {"tiny": '"><script>'})
    assert not problems and "<script" not in html and "\u202e" not in html and "&lt;script&gt;alert(1)" in html


def test_the_origin_of_claims_is_said(tmp_path: Path):
    write_claims(tmp_path / "tiny" / "claims.csv", CLAIM)
    (tmp_path / "tiny" / "run.json").write_text(json.dumps({"parameters": {"profile": "quick"}, "commit": "abc1234567"}))
    assert "tiny (quick, abc1234567)" in claims.html(claims.read(tmp_path)[0], {})


def test_a_table_that_is_none_is_told_and_the_index_is_there_all_the_same(project: Path):
    (project / "figures" / "tiny" / "claims.csv").write_text("claim,effect\nx,1\n")
    paths, problems = render_all(project / "runs", project / "reports", figures=project / "figures")
    assert paths[-1].name == "index.html" and len(problems) == 1
    assert re.search(
        r"claims.csv has no column low, high, n, n_programs, n_seeds, verdict, came_true; a table of claims has", str(problems[0])
    )


# ---------------------------------------------------------------- the command


def test_the_command_publishes_and_zips(project: Path):
    done = pbb("report", "--publish", "site", "--zip", cwd=project)
    assert done.returncode == 0, done.stderr
    assert broken_links(project / "site") == [] and (project / "pbb-reports.zip").is_file()
    assert pbb("report", "--zip", "a b.zip", cwd=project).returncode == 0 and (project / "a b.zip").is_file()


def test_the_command_refuses_in_one_line(project: Path):
    before = files(project / "reports")
    for folder in ("reports", ".", "figures/tiny/claims.csv"):
        done = pbb("report", "--publish", folder, cwd=project)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "publish into a new or empty" in done.stderr
    assert files(project / "reports") == before


def test_what_could_not_be_rendered_is_not_shared(project: Path):
    make_run(project, display({"image/png": PNG}), key="noalt1")
    done = pbb("report", "--publish", "site", "--zip", "x.zip", cwd=project)
    assert done.returncode == 1 and "without alt text" in done.stderr and "nothing was shared" in done.stderr
    assert not (project / "site").exists() and not (project / "x.zip").exists()
