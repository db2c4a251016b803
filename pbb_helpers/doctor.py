"""What this machine, the store and the runs are like: one line per check, in plain words, with what to do.

Nothing that is finished is ever deleted: `fix` sets damaged things aside, removes temporary files of dead processes, and brings
records and reports up to date.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from pbb_helpers import provenance
from pbb_helpers.disk import Damage, held, lock, write_text
from pbb_helpers.programs import UsageError
from pbb_helpers.running.run_record import RunResult, all_runs, damage_of
from pbb_helpers.sharing import report
from pbb_helpers.sharing.report_index import render_all
from pbb_helpers.training.model_files import check_folder, hash_files, shipped
from pbb_helpers.training.store import NOTES, Store, left_over, note_damage, set_aside, sweep

DISTRIBUTION = "pbb-helpers"
ROOM = 500e6  # bytes; a quick run leaves about 60 MB
MEMORY = 2.1e9  # bytes per process that trains the shipped model: half of what two took
LISTED = 3  # names in a line
OLD = 3600.0  # seconds after which a temporary file is no running process's: writing one takes less, wherever it runs


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        state: "ok", "note" (nothing to do) or "problem" (something needs the user).
        check: What was looked at.
        text: What was found, and what to do.
        fix: Puts it right safely; None where only the user can.
    """

    state: str
    check: str
    text: str
    fix: Callable[[], object] | None = None

    def line(self, state: str | None = None) -> str:
        """Returns it as a line."""
        return f"{state or self.state:<8} {self.check}: {self.text}"


def diagnose(out: Path, reports: Path) -> Iterator[Finding]:
    """Yields what was found on this machine, in the store below `out`, in its runs and in their reports."""
    yield from _libraries()
    yield _machine()
    for folder in (out, reports):
        yield _folder(folder)
    yield from _models()
    if (out / "store").is_dir():
        yield from _store(Store(out / "store"))
    yield from _runs(all_runs(out), out, reports)


# ---------------------------------------------------------------- the machine


def _libraries() -> Iterator[Finding]:
    """Python and the libraries against what the package asks for, and against what it was tested with."""
    try:
        asked = importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "problem", "installation", "the package is not installed; in its folder: make test, or pip install -c constraints.txt -e ."
        )
        return
    python = platform.python_version()
    good = python in SpecifierSet(asked["Requires-Python"] or "")
    yield Finding("ok" if good else "problem", "python", python if good else f"{python}; this project needs {asked['Requires-Python']}")
    needed = [Requirement(text) for text in asked.get_all("Requires-Dist") or []]
    found = {each.name: _version(each.name) for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})}
    wrong = [f"{each.name} {found[each.name] or 'missing'} (needs {each.specifier})" for each in needed
             if each.name in found and not ((version := found[each.name]) and each.specifier.contains(version, prereleases=True))]  # fmt: skip
    if wrong:
        yield Finding("problem", "libraries", f"{'; '.join(wrong)}; in the project's folder: pip install -c constraints.txt -e .")
        return
    other = [f"{name} {found[name]} (tested with {pin})" for name, pin in _pins().items() if name in found and not _same(found[name], pin)]
    main = ", ".join(f"{name} {found[name]}" for name in provenance.LIBRARIES if name in found)
    yield Finding(
        "note" if other else "ok", "libraries", f"allowed, though not those it was tested with: {'; '.join(other)}" if other else main
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _same(found: str | None, pin: str) -> bool:
    return found is not None and Version(found).public == Version(pin).public  # 2.13.0+cpu is 2.13.0


def _pins() -> dict[str, str]:
    """Returns the tested versions by name; only a checkout has them."""
    path = provenance.PACKAGE.parent / "constraints.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))


def _machine() -> Finding:
    hardware, free = provenance.hardware(), psutil.virtual_memory().available
    text = f"{provenance.hardware_line(hardware)}; {free / 1e9:.1f} GB of memory free" + ("" if hardware["gpus"] else ", no GPU")
    processes = max(int(free // MEMORY), 1)
    if hardware["gpus"] or processes >= hardware["cores"]:
        return Finding("ok", "machine", text)
    return Finding("note", "machine", f"{text}: short for {hardware['cores']} trainings at once; give -p processes {processes}")


def _folder(folder: Path) -> Finding:
    """Whether a folder, or the nearest one above that exists, can be written to and has room."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(
            "problem",
            f"{folder}/",
            f"can't be written to ({error.strerror}); change its permissions, or choose another with --runs or --reports",
        )
    if free < ROOM:
        return Finding("problem", f"{folder}/", f"only {free / 1e6:.0f} MB are free; free some, at least {ROOM / 1e6:.0f} MB")
    return Finding("ok", f"{folder}/", f"can be written to, {free / 1e9:.0f} GB free")


def _models() -> Iterator[Finding]:
    """The shipped models against the checksums in their cards."""
    again = "get its files again: git checkout -- pbb_helpers/shipped, or install the package anew"
    try:
        cards = shipped()
        for name, card in cards.items():
            check_folder(card.folder)
            if card.facts.get("sha256") != hash_files(card.folder):
                yield Finding("problem", f"model {name}", f"its files are not those it was shipped with; {again}")
            else:
                yield Finding("ok", f"model {name}", "whole")
    except UsageError as error:
        yield Finding("problem", "shipped model", f"{error}; {again}")
        return
    if not cards:
        yield Finding("problem", "shipped model", "there is none; make one with: pbb pretrain")


# ---------------------------------------------------------------- the store


def _store(store: Store) -> Iterator[Finding]:
    """Finished stages and answers against their checksums; what killed processes left."""
    folders = [path for path in sorted(store.root.iterdir()) if path.is_dir() and _counts(path)]
    busy = [path for path in folders if held(path / ".lock")]
    still = [path for path in folders if path not in busy]
    stages = [path for path in still if (path / "manifest.json").exists()]
    answers = [path for folder in still for path in sorted(folder.glob("rows/*")) if path.is_dir() and _counts(path)]
    checkpoints = [path for folder in still for path in folder.glob("checkpoint-*") if _counts(path)]
    for kind, paths in (("finished stages", stages), ("sets of answers", answers), ("checkpoints", checkpoints)):
        damaged = [(path, damage) for path in paths if (damage := store.damage(path))]
        for path, damage in damaged:
            file = damage.path.relative_to(store.root)
            text = f"{path.relative_to(store.root)} is damaged: {file} {damage.why}; --fix sets it aside, the next run makes it again"
            yield Finding("problem", "store", text, functools.partial(_set_aside, store, path, damage))
        yield Finding("ok", "store", f"{len(paths) - len(damaged)} of {len(paths)} {kind} are whole")
    for damage in filter(None, map(note_damage, sorted((store.root / NOTES).glob("*.json")))):
        text = f"{damage.path.relative_to(store.root)} is damaged: it {damage.why}; --fix sets it aside, the next run draws its documents again"
        yield Finding("problem", "store", text, functools.partial(set_aside, damage.path, damage.why, "its documents are drawn again"))
    unfinished = [path.name for path in still if path not in stages and list(path.glob("checkpoint-*"))]
    if busy:
        yield Finding("note", "store", f"{_names(busy)} in use by a running process, and not looked at")
    if unfinished:
        yield Finding(
            "note", "store", f"{len(unfinished)} unfinished stages ({_names(unfinished)}); the command that began them goes on with them"
        )
    if left := [(path, each) for path in still for each in left_over(path)]:
        text = f"{len(left)} temporary files of killed processes ({_names(each for _, each in left)}); --fix removes them"
        yield Finding("problem", "store", text, functools.partial(_sweep, {path for path, _ in left}))
    if aside := [path for path in store.root.rglob("*.damaged*")]:
        yield Finding(
            "note", "store", f"{len(aside)} damaged things stand aside ({_names(aside)}); nothing reads them, delete them when you like"
        )


def _counts(folder: Path) -> bool:
    return ".damaged" not in folder.name and not folder.name.startswith(".")


def _set_aside(store: Store, path: Path, damage: Damage) -> None:
    key = path.relative_to(store.root).parts[0]
    with lock(store.root / key / ".lock", _refuse):
        if store.damage(path) is None:  # made anew since it was looked at
            return
        if (path / "manifest.json").exists() and path.parent == store.root:
            store.set_stage_aside(path, damage)
        else:
            set_aside(path, damage.why, rebuilt="the next run makes it again")


def _sweep(folders: Iterable[Path]) -> None:
    for folder in folders:
        with lock(folder / ".lock", _refuse) as alone:
            if not alone:
                raise UsageError(
                    f"the disk of {folder} has no locks, so another process may be at work there; remove them by hand if none is"
                )
            sweep(folder)


def _refuse(holder: str) -> None:
    raise UsageError(f"{holder} began to work on it; run pbb doctor again when it is done")


# ---------------------------------------------------------------- runs and reports


def _runs(runs: list[RunResult], out: Path, reports: Path) -> Iterator[Finding]:
    """What the records say against what is so; reports that are missing or old."""
    looked = [run for run in runs if ".damaged" not in run.folder.name]
    yield Finding("ok", "runs", f"{sum(run.status == 'completed' for run in looked)} of {len(looked)} in {out}/ completed")
    if ended := [run for run in looked if run.status in ("failed", "killed") and not _says_running(run)]:
        names = _names(f"{run.folder.parent.name}/{run.folder.name} {run.status}" for run in ended)
        yield Finding("note", "runs", f"{len(ended)} came to no end ({names}); the same pbb run goes on from what they finished")
    for run in looked:
        name = f"{run.folder.parent.name}/{run.folder.name}"
        damage = Damage(run.folder / "run.json", run.record["error"]["value"]) if run.status == "damaged" else damage_of(run)
        if damage:
            text = (
                f"{name} is damaged: {damage.path.name} {damage.why}; --fix sets it aside, the same pbb run makes it again from the store"
            )
            yield Finding("problem", "run", text, functools.partial(set_aside, run.folder, damage.why, "the same pbb run makes it again"))
        elif run.status == "killed" and _says_running(run):
            text = f"{name} says it is running, but its process is gone; the same pbb run goes on with it, --fix corrects the record"
            yield Finding("problem", "run", text, functools.partial(_correct, run))
    shown = [run for run in looked if run.status != "damaged"]
    if missing := [
        run for run in shown if not report.is_current(reports / run.record["notebook"] / f"{run.folder.name}.html", report.source_of(run))
    ]:
        names = _names(f"{run.record['notebook']}/{run.folder.name}" for run in missing)
        text = f"{len(missing)} of {len(shown)} are missing or older than their run ({names}); --fix or pbb report renders them"
        yield Finding("problem", "reports", text, functools.partial(render_all, out, reports))
    else:
        yield Finding("ok", "reports", f"{len(shown)} up to date in {reports}/")
    stages = [path for path in (out / "store").glob("*") if path.name != NOTES]  # these were looked at with the store
    found = {path for folder in (out, reports) for path in folder.rglob(".*.tmp") if _orphan(path)}
    if left := sorted(path for path in found if not any(map(path.is_relative_to, stages))):
        text = f"{len(left)} temporary files of killed processes ({_names(left)}); --fix removes them"
        yield Finding("problem", "runs and reports", text, functools.partial(_remove, left))


def _says_running(run: RunResult) -> bool:
    return json.loads((run.folder / "run.json").read_text(encoding="utf-8"))["status"] == "running"


def _correct(run: RunResult) -> None:
    write_text(run.folder / "run.json", json.dumps(run.record, indent=1) + "\n")


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)  # another process may tidy up as well


def _orphan(path: Path) -> bool:
    """Returns whether this is a temporary file of `write_text` whose process is gone, on this machine or, by its age, on another that shares the disk."""
    pid = re.fullmatch(r"\..+\.(\d+)\.tmp", path.name)
    try:
        return pid is not None and path.is_file() and not psutil.pid_exists(int(pid[1])) and time.time() - path.stat().st_mtime > OLD
    except FileNotFoundError:
        return False


def _names(things) -> str:
    """Returns the first few names, and how many more there are."""
    names = [thing.name if isinstance(thing, Path) else str(thing) for thing in things]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
