"""What a run left: run.json tells the truth at every moment, also after a kill; the folders of all runs are found by it."""

from __future__ import annotations

import datetime
import glob
import json
import os
import platform
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pbb_helpers.disk import MANIFEST, Damage, check_manifest, write_manifest, write_text
from pbb_helpers.markup import shortened, visible

Event = dict[str, Any]
PROGRESS_EVERY = 2.0  # seconds: for `pbb status` and sweeps, which read it from run.json
PREVIOUS = ".previous"  # ends the name of a run's folder that is kept until its successor is complete
HEARTBEAT = 15.0  # seconds; a run on another machine that was silent for eight of these is taken for dead


class Stopped(Exception):
    """A signal asked the run to end; the message is its name."""


@dataclass(frozen=True)
class RunResult:
    """What a run left.

    Attributes:
        folder: Holds run.json, <notebook>.ipynb, rows.jsonl, results.csv, headline.txt, figures/.
        record: The contents of run.json, with the status as it truly is: "completed", "failed", "killed" or "running".
        reused: Nothing was run: a finished run with equal parameters, notebook, package, libraries and models was there.
    """

    folder: Path
    record: dict[str, Any] = field(repr=False)
    reused: bool = False

    @property
    def status(self) -> str:
        """Returns "completed", "failed", "killed" or "running"."""
        return self.record["status"]

    @property
    def notebook(self) -> Path:
        """Returns the path of the executed notebook."""
        return self.folder / f"{self.record['notebook']}.ipynb"

    @property
    def headline(self) -> str:
        """Returns the one line that the notebook left, or ""."""
        path = self.folder / "headline.txt"
        return shortened(visible(path.read_text(encoding="utf-8", errors="replace").strip())) if path.is_file() else ""

    @property
    def from_store(self) -> float | None:
        """Returns the share of the work that the store held before, or None where the notebook left none."""
        path = self.folder / "reused.txt"
        try:
            return float(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    @property
    def error(self) -> str:
        """Returns in one line what went wrong, or ""."""
        error = self.record.get("error") or {}
        if not error:
            return "" if self.status == "completed" else self.status
        section = f" ({error['heading']})" if error.get("heading") else ""
        text = " ".join(visible(shortened(error["value"])).split())
        return f"cell {error['index'] + 1}{section}: {error['name']}: {text}"


class Record:
    """run.json: written whole at every change, so that a reader, or a kill at any moment, finds a true one."""

    def __init__(self, folder: Path, data: dict[str, Any]) -> None:
        self.path, self.data = folder / "run.json", data
        self._started = self._written = time.monotonic()
        self.write()

    def write(self) -> None:
        """Writes it now."""
        self._written = time.monotonic()
        self.data["seconds"] = round(self._written - self._started, 1)
        write_text(self.path, json.dumps(self.data, indent=1, ensure_ascii=True) + "\n")

    def event(self, what: Event) -> None:
        """Keeps the current cell, how far it is, the kernel's process id, and the error of a cell."""
        if what["kind"] == "progress" and "done" in what:
            self.data["progress"] = {key: what[key] for key in ("done", "total", "left", "line")}
            if time.monotonic() - self._written < PROGRESS_EVERY:
                return
        elif what["kind"] == "cell":
            self.data.pop("progress", None)
            self.data["cell"] = {key: what[key] for key in ("index", "count", "heading")}
        elif what["kind"] == "kernel":
            self.data["kernel_pid"] = what["pid"]
        elif what["kind"] == "error":
            self.data["error"] = {key: what[key] for key in ("index", "heading", "name", "value")}
        else:
            return
        self.write()

    def cell_error(self, name: str, value: str) -> dict[str, Any]:
        """Returns an error that happened in the current cell, though not by the cell's own exception."""
        cell = self.data.get("cell") or {"index": 0, "heading": ""}
        return {"index": cell["index"], "heading": cell["heading"], "name": name, "value": value}

    def finish(self, status: str) -> None:
        """Writes how it ended."""
        self.data.pop("progress", None)
        self.data.update(status=status, finished=now())
        self.write()

    def heartbeat(self) -> _Heartbeat:
        """Returns a context in which the file's time is renewed, for readers on other machines."""
        return _Heartbeat(self.path)


class _Heartbeat:
    def __init__(self, path: Path) -> None:
        self._path, self._stop = path, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            try:
                os.utime(self._path)
            except OSError:
                continue


def read_run(folder: Path) -> dict[str, Any] | None:
    """Returns the run.json of a folder, or None without one; a "running" whose process is gone is reported as "killed"."""
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        silent = time.time() - path.stat().st_mtime
        _check(record)
    except FileNotFoundError:
        return None
    except (ValueError, OSError, RecursionError) as error:
        return {
            "status": "damaged",
            "notebook": folder.parent.name,
            "key": folder.name,
            "parameters": {},
            "error": {"index": 0, "name": "damaged run.json", "value": str(error)},
        }
    # Reports and figures are written under this name: where the folder lies is true, what the file says may lead anywhere.
    record["notebook"] = folder.parent.name
    if record.get("status") == "running":
        # A beat far in the future is none either: the clock was set back since.
        alive = _alive(record["pid"], record["pid_started"]) if record["host"] == platform.node() else abs(silent) < 8 * HEARTBEAT
        record["status"] = "running" if alive else "killed"
    return record


def _check(record: Any) -> None:
    """Raises a ValueError where this is valid JSON but no record of ours."""
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__} and not an object")
    kinds: dict[str, type | tuple[type, ...]] = {"status": str, "notebook": str, "parameters": dict}
    if record.get("status") == "running":
        kinds |= {"host": str, "pid": int, "pid_started": (int, float)}
    wrong = [name for name, kind in kinds.items() if not isinstance(record.get(name), kind)]
    error = record.get("error") or {"index": 0, "name": "", "value": ""}
    if (
        not isinstance(error, dict)
        or not isinstance(error.get("index"), int)
        or not all(isinstance(error.get(text), str) for text in ("name", "value"))
    ):
        wrong.append("error")
    if not _is_time(record.get("started")):
        wrong.append("started")
    if wrong:
        raise ValueError(f"{wrong[0]!r} is missing or of the wrong kind")


def _is_time(text: Any) -> bool:
    try:
        return bool(datetime.datetime.fromisoformat(text))
    except (TypeError, ValueError):
        return False


def process_start(pid: int | None = None) -> float:
    """Returns when a process (this one by default) started, in seconds since the machine did: a clock that is set changes nothing."""
    return psutil.Process(pid).create_time() - psutil.boot_time()


def _alive(pid: int, started: float) -> bool:
    try:
        return abs(process_start(pid) - started) < 2 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):  # no process has a number below 0 or beyond the kernel's
        return False


def seal(run: RunResult) -> None:
    """Writes the checksums of a completed run's files, so that no number that changed on the disk is ever shown or recorded."""
    files = [path for path in sorted(run.folder.rglob("*")) if path.is_file() and path.name != "kernel.log"]
    write_manifest(run.folder, files, _place(run))


def damage_of(run: RunResult) -> Damage | None:
    """Returns what is wrong with the files of a completed run, or None; a run that was never sealed can't be judged."""
    sealed = run.status == "completed" and (run.folder / MANIFEST).exists()
    return check_manifest(run.folder, _place(run)) if sealed else None


def _place(run: RunResult) -> str:
    return f"{run.folder.parent.name}/{run.folder.name.removesuffix(PREVIOUS)}"


def all_runs(out_dir: Path | str = "runs", notebook: str | None = None) -> list[RunResult]:
    """Returns every run below `out_dir` (of one notebook, if named), the newest first, by the clock when they started.

    A run that ended badly after a good one with the same parameters stands beside the good one, and before it whatever the clock said.
    """
    records = []
    for path in Path(out_dir).glob(f"{glob.escape(notebook) if notebook else '*'}/*/run.json"):
        record = read_run(path.parent)
        if record:
            records.append(RunResult(path.parent, record))
    started = {run.folder: str(run.record.get("started", "")) for run in records}

    def age(run: RunResult) -> tuple[str, bool]:
        replaced = run.folder.with_name(run.folder.name + PREVIOUS)
        return max(started[run.folder], started.get(replaced, "")), not run.folder.name.endswith(PREVIOUS)

    return sorted(records, key=age, reverse=True)


def latest(out_dir: Path | str, notebook: str) -> RunResult | None:
    """Returns the newest completed run of a notebook; without one the newest of any status; None when it never ran."""
    runs = all_runs(out_dir, notebook)
    return next((run for run in runs if run.status == "completed"), runs[0] if runs else None)


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
