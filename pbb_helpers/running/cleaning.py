"""What may be deleted from the folder of runs: leftovers of runs that ended badly, and finished ones only when they are named."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pbb_helpers.disk import lock, plain_errors
from pbb_helpers.programs import UsageError
from pbb_helpers.running.run_logs import find_runs
from pbb_helpers.running.run_record import PREVIOUS, all_runs, read_run

ENDED_BADLY = ("failed", "killed", "damaged")


@dataclass(frozen=True)
class Leftover:
    """Something that may go.

    Attributes:
        paths: What is deleted; the first one is what it is called by.
        why: For people.
        bytes: Its size on the disk.
        status: Of a run, as it was when it was listed; None of what is no run any more.
    """

    paths: tuple[Path, ...]
    why: str
    bytes: int
    status: str | None = None


def leftovers(out_dir: Path, names: Sequence[str] = ()) -> list[Leftover]:
    """Returns what may be deleted; what the store holds of half-done trainings stays, so that they can still go on.

    Args:
        out_dir: The folder of all runs.
        names: Keys of runs, which may be finished ones, or notebooks, of which only runs that ended badly are meant. None: all that ended badly.

    Raises:
        UsageError: A run is called otherwise, or is going on, or several are called so.
    """
    if not names:
        found = [_run(run.folder, run.status) for run in all_runs(out_dir) if run.status in ENDED_BADLY]
        return found + [_leftover([path], "set aside as damaged") for path in sorted(out_dir.glob("*/*.damaged*"))]
    chosen: dict[Path, Leftover] = {}
    for name in names:
        runs = find_runs(out_dir, name)
        by_key = runs[0].folder.parent.name != Path(name).name.removesuffix(".ipynb")
        meant = sorted({f"{run.folder.parent.name}/{run.folder.name.removesuffix(PREVIOUS)}" for run in runs})
        if by_key and len(meant) > 1:
            raise UsageError(f"{name} may be any of {', '.join(meant)}; give one of these")
        for run in runs:
            if run.status == "running" and by_key:
                raise UsageError(f"run {run.folder.name} is going on; stop it first with: kill {run.record['pid']}")
            if by_key or run.status in ENDED_BADLY:
                chosen[run.folder] = _run(run.folder, run.status)
    return list(chosen.values())


def delete(found: Iterable[Leftover]) -> None:
    """Deletes these; a run that was started again meanwhile stays, whether or not it has ended since."""
    for leftover in found:
        folder = leftover.paths[0]
        with plain_errors(folder), lock(folder.parent / f".{folder.name}.lock", functools.partial(_refuse, folder)):
            if leftover.status and (read_run(folder) or {}).get("status") != leftover.status:
                _refuse(folder)
            for path in leftover.paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        # The lock file stays: who took the lock meanwhile would hold one that nobody else sees.


def _refuse(folder: Path, _: str = "") -> None:
    raise UsageError(f"run {folder.name} was started again; nothing more was deleted")


def _run(folder: Path, status: str) -> Leftover:
    beside = [folder.with_name(f".{folder.name}.{kind}") for kind in ("log", "slurm")]
    return _leftover([folder, *(path for path in beside if path.exists())], "finished" if status == "completed" else status, status)


def _leftover(paths: Sequence[Path], why: str, status: str | None = None) -> Leftover:
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return Leftover(tuple(paths), why, sum(file.lstat().st_size for file in files), status)
