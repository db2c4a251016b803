"""The commands for many runs: `pbb sweep`, `pbb status`, `pbb logs`, `pbb clean`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbb_helpers.cli_options import Notebook, Reports, Runs

if TYPE_CHECKING:
    from pbb_helpers.running.slurm import SlurmOptions
    from pbb_helpers.running.sweep import Sweep
    from pbb_helpers.running.sweep_run import Backend, Outcome

app = typer.Typer(rich_markup_mode=None)
BAD = ("failed", "cancelled")
FAILURES_SHOWN, LOG_LINES = 5, 12


@app.command()
def sweep(
    notebook: Notebook,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUES", help="A parameter and the values to try; may be given many times."),
    ] = None,
    grid: Annotated[Path | None, typer.Option(help="A YAML or JSON file: name → list of values. -p wins over it.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs at once. By default as many as leave no core to two: a run takes its 'processes', or all cores."),
    ] = None,
    gpus: Annotated[str | None, typer.Option(help="GPUs to share out, one a run: 0,1")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    on: Annotated[str, typer.Option(help="here, or slurm: a job array in Slurm's queue.")] = "here",
    partition: Annotated[str | None, typer.Option(help="Slurm: where to queue.")] = None,
    time: Annotated[str, typer.Option(help="Slurm: limit of one job; a run that takes longer is queued again and goes on.")] = "1:00:00",
    cpus: Annotated[int, typer.Option(help="Slurm: cores of a job.")] = 1,
    gpus_per_job: Annotated[int, typer.Option(help="Slurm: GPUs of a job.")] = 0,
    slurm: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Slurm: any other option of sbatch, e.g. account=x.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Slurm: watch the jobs until all have ended.")] = True,
    out: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    report: Annotated[bool, typer.Option(help="Render the reports at the end.")] = True,
) -> None:
    """Runs a notebook for every combination of values; what is finished is not repeated.

    \b
    -p lr 1e-3,3e-4         two values            -p n 0:5        0, 1, 2, 3, 4 (0:50:10 steps by ten)
    -p seeds [0],[1,2]      a list a run          -p seeds 0:5    [0], [1], [2], [3], [4]: a list of one a run
    -p model '["a,b"]'      JSON, for values that hold a comma

    Shows the plan, then a live table. A run that fails stops no other; the last lines of its log come at the end. Ctrl-C ends the runs in
    order, and the same command goes on where it was. With --on slurm the jobs stay in the queue, and the same command watches them.

    Example: pbb sweep notebooks/01_proactive.ipynb -p lr 1e-3,3e-4 -p seeds 0:3 --dry-run
    """
    from pbb_helpers.parameters import read_notebook, read_parameters
    from pbb_helpers.programs import UsageError, did_you_mean
    from pbb_helpers.running.grid import read_grid
    from pbb_helpers.running.run_table import console, plan_table
    from pbb_helpers.running.sweep import default_jobs, estimates, make_sweep

    if on not in ("here", "slurm"):
        raise did_you_mean("place", on, ("here", "slurm"))
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} jobs; give at least 1")
    devices = _devices(gpus)
    options = _slurm_options(partition, time, cpus, gpus_per_job, slurm or [])
    planned = make_sweep(notebook, read_grid(read_parameters(read_notebook(notebook), notebook), _pairs(parameter or []), grid), out)
    todo = [point for point in planned.points if planned.state(point) != "finished"]
    at_once = jobs or (len(todo) if on == "slurm" else len(devices) or default_jobs(planned.points))
    at_once = max(min(at_once, len(todo)), 1)
    times = estimates(planned, out)
    console().print(plan_table(planned, times))
    print(_plan_line(planned, len(todo), at_once, times))
    if dry_run:
        return
    backend = _backend(planned, on, at_once, devices, options)
    if on == "slurm" and not wait:
        print(f"submitted: {backend.stop()}")
        return
    outcome = _watch(planned, backend, times, at_once)
    _show(planned, outcome)
    if report and any(status.state in ("done", "failed") for status in outcome.statuses.values()):
        _render(out, reports, planned.notebook.stem)
    if outcome.signal:
        print(f"pbb: stopped by {outcome.signal}; {outcome.advice}", file=sys.stderr)
        raise typer.Exit(128 + getattr(signal, outcome.signal))
    if any(status.state in BAD for status in outcome.statuses.values()):
        raise typer.Exit(1)


def _devices(gpus: str | None) -> list[str]:
    from pbb_helpers.programs import UsageError

    devices = [part.strip() for part in (gpus or "").split(",")] if gpus is not None else []
    if not all(device.isdecimal() for device in devices):
        raise UsageError(f"--gpus {gpus!r} are no numbers of GPUs; write for example --gpus 0,1")
    return devices


def _slurm_options(partition: str | None, time: str, cpus: int, gpus: int, more: list[str]) -> SlurmOptions:
    from pbb_helpers.programs import UsageError
    from pbb_helpers.running.slurm import SlurmOptions, minutes

    bad = next((item for item in more if "=" not in item), None)
    if bad is not None:
        raise UsageError(f"--slurm {bad!r} is not a name and a value; write for example --slurm account=me")
    if cpus < 1 or gpus < 0:
        raise UsageError(f"{cpus} cores and {gpus} GPUs of a job; give at least 1 core and 0 GPUs")
    return SlurmOptions(partition, minutes(time), cpus, gpus, {name: value for name, _, value in (item.partition("=") for item in more)})


def _pairs(items: list[str]) -> list[tuple[str, str]]:
    from pbb_helpers.programs import UsageError

    for item in items:
        if "=" not in item or not item.partition("=")[0].isidentifier():
            raise UsageError(f"-p {item!r} is not a name and values; write -p name A,B")
    return [(name, text) for name, _, text in (item.partition("=") for item in items)]


def _plan_line(planned: Sweep, todo: int, jobs: int, times: dict[str, float]) -> str:
    from pbb_helpers.progress import duration
    from pbb_helpers.running.sweep import time_left

    count = len(planned.points)
    expected = [times.get(point.key) for point in planned.points if planned.state(point) != "finished"]
    left = time_left([], expected, jobs)
    long = f"about {duration(left)} by past runs" if left is not None else "how long can't be told: no past run is like these"
    return f"{count} run{'s' if count != 1 else ''}: {count - todo} finished, {todo} to run" + (f", {jobs} at once; {long}" if todo else "")


def _backend(planned: Sweep, on: str, jobs: int, devices: list[str], options: SlurmOptions) -> Backend:
    from pbb_helpers.running.slurm import Slurm
    from pbb_helpers.running.sweep_run import Local

    return Slurm(planned, jobs, options) if on == "slurm" else Local(planned, jobs, devices)


def _watch(planned: Sweep, backend: Backend, times: dict[str, float], jobs: int) -> Outcome:
    from pbb_helpers.running.sweep_run import watch

    return watch(planned, backend, times, jobs)


def _show(planned: Sweep, outcome: Outcome) -> None:
    from pbb_helpers.running.run_logs import log_lines
    from pbb_helpers.running.run_table import console, settings, summary, sweep_table

    console().print(sweep_table(planned, outcome.statuses))
    print(summary(outcome.statuses.values()))
    bad = [point for point in planned.points if outcome.statuses[point.key].state in BAD]
    for point in bad[:FAILURES_SHOWN]:
        print(f"\n{' '.join([point.key, *settings(planned, point)])} {outcome.statuses[point.key].state}; pbb logs {point.key} shows more:")
        for line in log_lines(point.folder, LOG_LINES):
            print(f"    {line}")
    if len(bad) > FAILURES_SHOWN:
        print(f"\n… and {len(bad) - FAILURES_SHOWN} more")


def _render(out: Path, reports: Path, notebook: str) -> None:
    from pbb_helpers.sharing.report_index import render_all

    paths, problems = render_all(out, reports, notebook)
    for path in paths:
        print(f"report: {path}")
    for problem in problems:
        print(f"pbb: no report: {problem}", file=sys.stderr)


@app.command()
def status(
    notebook: Annotated[str | None, typer.Argument(help="A notebook's path or name, or a run's key; all runs when left out.")] = None,
    out: Runs = Path("runs"),
) -> None:
    """Shows every run: its parameters, its state, how far it is, and whether it waits in Slurm's queue."""
    from pbb_helpers.programs import UsageError
    from pbb_helpers.running.run_logs import find_runs
    from pbb_helpers.running.run_record import all_runs
    from pbb_helpers.running.run_table import console, runs_table
    from pbb_helpers.running.slurm import queued_runs

    queue = queued_runs(out)
    runs = find_runs(out, notebook) if notebook else all_runs(out)
    if notebook:
        names = {f"{run.folder.parent.name}/{run.folder.name}" for run in runs}
        queue = {name: state for name, state in queue.items() if name in names or name.startswith(f"{Path(notebook).stem}/")}
    if not runs and not queue:
        raise UsageError(f"no runs in {out}; make one with: pbb run notebooks/01_proactive.ipynb")
    console().print(runs_table(runs, queue))


@app.command()
def logs(
    run: Annotated[str, typer.Argument(help="A run's key or its first 4 digits or more; a notebook's name means its newest run.")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many lines.")] = 40,
    out: Runs = Path("runs"),
) -> None:
    """Prints the last lines of what a run printed, and the traceback if a cell failed."""
    from pbb_helpers.running.run_logs import find_runs, log_lines

    found = find_runs(out, run)[0]
    print(f"{found.folder.parent.name}/{found.folder.name}: {found.status}", file=sys.stderr)
    for line in log_lines(found.folder, lines):
        print(line)


@app.command()
def clean(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Keys of runs, finished ones too, or notebooks; all bad runs when left out.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it.")] = False,
    out: Runs = Path("runs"),
) -> None:
    """Lists what it would delete: runs that failed or were killed, and what was set aside as damaged. With --yes it does.

    A finished run goes only when its key is given, a running one never. Checkpoints in the store stay: a killed run still goes on from them.
    """
    from pbb_helpers.running.cleaning import delete, leftovers

    found = leftovers(out, runs or [])
    for leftover in found:
        print(f"{'deleted' if yes else 'would delete'} {leftover.paths[0]}: {leftover.why}, {leftover.bytes / 1e6:.1f} MB")
    if not found:
        print("nothing to delete")
    elif yes:
        delete(found)
    else:
        print("to do so: the same command with --yes")
