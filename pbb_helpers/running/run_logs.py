"""What a run printed and what went wrong in it, gathered from its folder."""

from __future__ import annotations

import re
from pathlib import Path

from pbb_helpers.markup import visible
from pbb_helpers.parameters import read_notebook
from pbb_helpers.programs import UsageError, did_you_mean
from pbb_helpers.running.run_record import RunResult, all_runs

ANSI = re.compile(r"\x1b\[[0-9;]*m")
READ = 200_000  # bytes from the end of a file: enough for any number of lines that a person reads


def log_of(folder: Path) -> Path:
    """Returns the log of a run that a sweep started; it lies beside the run's folder, which is made anew when it starts."""
    return folder.with_name(f".{folder.name}.log")


def job_file(folder: Path) -> Path:
    """Returns the file, beside the run's folder, that holds the Slurm job that it was last submitted as."""
    return folder.with_name(f".{folder.name}.slurm")


def job_of(folder: Path) -> str:
    """Returns the Slurm job that a run was last submitted as, "12" or "12_0", or ""."""
    return "".join(tail(job_file(folder), 1))


def tail(path: Path, lines: int) -> list[str]:
    """Returns the last lines of a text file, or none where it does not exist."""
    try:
        with open(path, "rb") as file:
            file.seek(max(path.stat().st_size - READ, 0))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [visible(ANSI.sub("", line)) for line in text.splitlines()][-lines:] if lines else []


def log_lines(folder: Path, lines: int) -> list[str]:
    """Returns the last lines of what a run printed: its own, its kernel's, and at the end the traceback of the cell that failed.

    Of a run that never began that is what Slurm caught of its job.
    """
    found = [*tail(log_of(folder), lines), *tail(folder / "kernel.log", lines), *_traceback(folder)]
    return (found or tail(folder.parent.parent / ".slurm" / f"{job_of(folder)}_0_log.out", lines))[-lines:]


def _traceback(folder: Path) -> list[str]:
    for path in folder.glob("*.ipynb"):
        try:
            cells = read_notebook(path).cells
        except UsageError:
            continue
        errors = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs if output.output_type == "error"]
        return [visible(line) for output in errors for part in output.traceback for line in ANSI.sub("", part).splitlines()]
    return []


def find_runs(out_dir: Path, name: str) -> list[RunResult]:
    """Returns the runs that a name means, the newest first: a run's key or its beginning, "notebook/key", or a notebook's name or path.

    Raises:
        UsageError: None is called so.
    """
    runs = all_runs(out_dir)
    notebook = Path(name).name.removesuffix(".ipynb")
    found = [run for run in runs if run.folder.parent.name == notebook]
    if not found:  # a key is of the parameters alone, so that two notebooks can have the same
        within = Path(name).parent.name or None
        found = [
            run for run in runs if len(notebook) >= 4 and run.folder.name.startswith(notebook) and within in (None, run.folder.parent.name)
        ]
    if not found:
        known = {run.folder.name for run in runs} | {run.folder.parent.name for run in runs}
        if not known:
            raise UsageError(f"no runs in {out_dir}; make one with: pbb run notebooks/01_proactive.ipynb")
        raise did_you_mean("run", name, known)
    return found
