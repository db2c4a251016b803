"""Reports to hand on: a folder that any static server serves, or one file to mail. Nothing of others is overwritten."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pbb_helpers.disk import plain_errors, write_text
from pbb_helpers.programs import UsageError
from pbb_helpers.running.run_record import RunResult
from pbb_helpers.sharing import claims, report
from pbb_helpers.sharing.report_index import address, index_page

MARK = ".pbb-site.json"  # lists what `publish` wrote, so that the next one knows what it may replace
_COMMENT = b"pbb report --zip"


def pages(runs: Sequence[RunResult], reports: Path, figures: Path) -> dict[str, str]:
    """Returns name → HTML of the index and of every report that it links to; the links between them are relative.

    Args:
        runs: Which to share, newest first.
        reports: Where their reports are.
        figures: The folder of recorded figures, for the claims on top of the index.
    """
    found = {"index.html": index_page(runs, reports, claims.read(figures)[0])}
    for run in runs:
        path = reports / address(run)
        if path.is_file():
            found[address(run)] = path.read_text(encoding="utf-8")
    return found


def publish(site: Mapping[str, str], folder: Path) -> Path:
    """Returns `folder` after putting the pages there, and away those that an earlier `publish` put there and are no more.

    What else lies there (CNAME, .git) stays as it is.

    Raises:
        UsageError: The folder holds what `publish` did not put there under a name that it needs, or it is no folder.
    """
    written = {**site, ".nojekyll": ""}  # GitHub Pages serves the files as they are
    with plain_errors(folder):
        before = _made_by_publish(folder)
        for name in [*written, *before]:
            path = folder / name
            if not path.parent.resolve().is_relative_to(folder.resolve()) or path.is_dir():
                raise UsageError(f"{folder}: {name} is not a file inside it; publish into a new or empty folder")
            if name in written and name not in before and path.exists():
                raise UsageError(f"{path} is there, and pbb report did not make it; publish into a new or empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        _mark(folder, {*before, *written})  # before the first page: a publish that was killed can be repeated
        for name, text in written.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_text(folder / name, text)
        for name in set(before) - set(written):
            (folder / name).unlink(missing_ok=True)
            if not any((folder / name).parent.iterdir()):
                (folder / name).parent.rmdir()
        _mark(folder, set(written))
    return folder


def _made_by_publish(folder: Path) -> list[str]:
    """Returns the names that an earlier `publish` wrote into the folder; none where it is new or empty."""
    if folder.is_symlink() and not folder.exists() or folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; publish into a new or empty one")
    if not folder.exists() or not any(folder.iterdir()):
        return []
    try:
        names = json.loads((folder / MARK).read_text(encoding="utf-8"))["files"]
        if isinstance(names, list) and all(isinstance(name, str) and name for name in names):
            return names
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UsageError(f"{folder} holds files that pbb report did not put there; publish into a new or empty folder")


def _mark(folder: Path, names: set[str]) -> None:
    write_text(folder / MARK, json.dumps({"by": "pbb report --publish", "files": sorted(names)}, indent=1) + "\n")


def zipped(site: Mapping[str, str], path: Path) -> Path:
    """Returns `path` after writing the pages into one ZIP file; the same pages give the same bytes.

    Raises:
        UsageError: Something is there that `zipped` did not make.
    """
    if path.is_symlink() or (path.exists() and not _made_by_zipped(path)):
        raise UsageError(f"{path} is there, and pbb report did not make it; give another name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with plain_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
                file.comment = _COMMENT
                for name, text in sorted(site.items()):
                    entry = zipfile.ZipInfo(f"{path.stem}/{name}")  # with the time of 1980, not of now
                    entry.external_attr = 0o644 << 16
                    file.writestr(entry, text, zipfile.ZIP_DEFLATED)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _made_by_zipped(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return file.comment == _COMMENT
    except (OSError, zipfile.BadZipFile):
        return False


def with_latest(site: Mapping[str, str], runs: Sequence[RunResult]) -> dict[str, str]:
    """Returns the pages and, as <notebook>.html, a copy of the newest completed report of each: an address that lasts."""
    newest = {str(run.record["notebook"]): run for run in reversed(runs) if run.status == "completed" and address(run) in site}
    return {f"{name}.html": report.at_top(site[address(run)]) for name, run in newest.items()} | dict(site)
