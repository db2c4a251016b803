"""The command `pbb`: run a notebook, see its report and its numbers. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbb_helpers import cli_models, cli_options, cli_sweep
from pbb_helpers.cli_options import Maybe, Notebook, Reports, Runs, Setting, complain, join_pairs, name_zip, pairs, say

if TYPE_CHECKING:
    from pbb_helpers.running.run_record import RunResult

app = typer.Typer(
    name="pbb",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Programming by Backprop: finetune a language model on the source of a program and see whether it can run it.

    Start with: pbb run notebooks/01_proactive.ipynb
    It trains a small model that ships with the project, and leaves a report to open and share.""",
)
app.add_typer(cli_models.app)
app.add_typer(cli_sweep.app)


@app.command()
def run(
    notebook: Notebook,
    parameter: Setting = None,
    profile: Annotated[str | None, typer.Option(help="smoke (seconds), quick (minutes) or full (hours): short for -p profile …")] = None,
    out: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    force: Annotated[bool, typer.Option("--force", help="Run again even if this very run is finished.")] = False,
    report: Annotated[bool, typer.Option(help="Render the report.")] = True,
) -> None:
    """Runs a notebook with these parameters and renders its report.

    A run that is finished, with equal parameters, notebook and package, is not repeated. A killed run is started again and
    takes up every finished stage and the last checkpoint.

    Example: pbb run notebooks/01_proactive.ipynb -p profile full -p seeds 0,1,2
    """
    from pbb_helpers.running import runner
    from pbb_helpers.running.run_record import Stopped
    from pbb_helpers.running.terminal import Terminal

    given = _given(parameter, profile)
    with Terminal() as terminal:
        try:
            result = runner.run(notebook, given, out_dir=out, typed=True, force=force, on_event=terminal.event)
        except Stopped as stop:
            terminal.clear()
            complain(f"stopped by {stop}; the same command goes on from the last checkpoint")
            if report:
                _render(out, reports, Path(notebook).stem)
            raise typer.Exit(130 if str(stop) == "SIGINT" else 143) from None
    _conclude(result, out, reports if report else None)


def _given(parameter: list[str] | None, profile: str | None) -> dict[str, str]:
    given = pairs(parameter or [])
    if profile and given.setdefault("profile", profile) != profile:
        raise _usage(f"--profile {profile} and -p profile {given['profile']}; give one of them")
    return given


def _conclude(result: RunResult, out: Path, reports: Path | None) -> None:
    paths, rendered = _render(out, reports, result.record["notebook"]) if reports else ([], True)
    if result.reused:
        say("finished before: nothing was run again (--force repeats it)")
    for path in paths:
        say(f"report: {path}")
    say(f"run:    {_short(result.folder)}")
    if result.headline and result.status == "completed":
        say(result.headline)
    if result.status != "completed":
        complain(f"{result.record['notebook']} {result.status} in {result.error}")
        error = result.record.get("error") or {}
        # Asked for something that can't be, or no room for it: the user's to mend, like any other bad input.
        mendable = (
            error.get("name") in ("UsageError", "PermissionError")
            or "No space left" in str(error.get("value"))
            or "Disk quota" in str(error.get("value"))
        )
        raise typer.Exit(2 if mendable else 1)
    if not rendered:
        raise typer.Exit(1)


def _render(out: Path, reports: Path, notebook: str | None, figures: Path = Path("figures")) -> tuple[list[Path], bool]:
    """Returns the pages, and whether every run could be rendered; what could not is said on stderr."""
    from pbb_helpers.sharing.report_index import render_all

    paths, problems = render_all(out, reports, notebook, figures)
    for problem in problems:
        complain(f"no report: {problem}")
    return paths, not problems


@app.command()
def report(
    notebook: Maybe = None,
    publish: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Put them into a folder for GitHub Pages or any static server.")
    ] = None,
    zip_file: Annotated[
        Path | None, typer.Option("--zip", metavar="[FILE.zip]", help="Put them into one file to mail; pbb-reports.zip unless named.")
    ] = None,
    out: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    figures: Annotated[Path, typer.Option(help="The folder of recorded figures, whose claims stand on top of the index.")] = Path(
        "figures"
    ),
) -> None:
    """Renders the reports of all runs, and the index; what is up to date stays untouched.

    Example: pbb report --publish docs
    """
    from pbb_helpers.running.run_record import all_runs

    name = _name(notebook, out)
    if not all_runs(out):
        raise _usage(f"no runs in {out}; make one with: pbb run notebooks/01_proactive.ipynb")
    paths, rendered = _render(out, reports, name, figures)
    for path in paths:
        say(path)
    if not rendered:
        if publish or zip_file:
            complain("nothing was shared: put right what is said above, or name one notebook")
        raise typer.Exit(1)
    if publish or zip_file:
        _share(all_runs(out, name), reports, figures, publish, zip_file)


def _share(runs: list[RunResult], reports: Path, figures: Path, publish: Path | None, zip_file: Path | None) -> None:
    from pbb_helpers.sharing import share

    site = share.pages(runs, reports, figures)
    if publish:
        say(f"{share.publish(share.with_latest(site, runs), publish)}: open index.html there, or serve the folder")
    if zip_file:
        size = share.zipped(site, zip_file).stat().st_size
        say(f"{zip_file}: {size / 1e6:.1f} MB, open index.html in it after unpacking")


@app.command()
def estimate(
    notebook: Notebook,
    parameter: Setting = None,
    profile: Annotated[str | None, typer.Option(help="smoke, quick or full: short for -p profile …")] = None,
) -> None:
    """Tells how long a notebook trains and answers on this machine with these parameters, by a short trial of each model that it trains.

    Example: pbb estimate 04_scaling --profile full
    """
    from pbb_helpers.experiments import forecast, plans
    from pbb_helpers.experiments.pool import default_processes
    from pbb_helpers.parameters import read_notebook, read_parameters, resolve
    from pbb_helpers.progress import duration

    values = resolve(read_parameters(read_notebook(notebook), notebook), _given(parameter, profile), typed=True)
    pools = plans.experiments(Path(notebook).stem, values)
    processes = values.get("processes") or default_processes()
    for number in (signal.SIGINT, signal.SIGTERM):  # unlike a run's, what a trial trains is thrown away
        signal.signal(number, _interrupted)
    try:
        parts, seconds = forecast.forecast(pools, processes=processes, tell=lambda line: say(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        complain("stopped before the trial was over; nothing was run")
        raise typer.Exit(130) from None
    rows = [(part.name, f"{part.documents:,}", f"{part.questions:,}", duration(part.seconds)) for part in parts]
    for row in cli_options.columns([("experiment", "documents", "questions", "in one process"), *rows]):
        say(row)
    say(
        f"about {duration(seconds)} with processes = {processes}, if nothing else runs here; less where trainings are shared or lie in the store"
    )


def _interrupted(number: int, _: object) -> None:
    raise KeyboardInterrupt


@app.command()
def describe(notebook: Notebook) -> None:
    """Prints what a notebook asks, and its parameters with types, defaults and meaning."""
    from pbb_helpers.parameters import read_notebook, read_parameters
    from pbb_helpers.running.runner import title_of

    node = read_notebook(notebook)
    known = read_parameters(node, notebook)
    title, question = title_of(node)
    say("\n".join([line for line in (title, question) if line] + [""]))
    rows = [(p.name, p.type_name, repr(p.default), p.comment) for p in known.values()]
    for row in cli_options.columns([("name", "type", "default", "meaning"), *rows]):
        say(row)


@app.command()
def results(
    notebook: Maybe = None,
    csv: Annotated[bool, typer.Option("--csv", help="As CSV, every digit, for another program.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Every finished run, not just the newest of each notebook.")] = False,
    out: Runs = Path("runs"),
) -> None:
    """Prints the table of results (condition, mode, group, seed, n, accuracy, low, high, …) of the latest finished run."""
    import pandas as pd

    from pbb_helpers.running.run_record import all_runs, damage_of

    name = _name(notebook, out)
    runs = [r for r in all_runs(out, name) if r.status == "completed" and (r.folder / "results.csv").is_file()]
    newest = {r.record["notebook"]: r for r in reversed(runs)}
    chosen = runs if every else list(newest.values())
    if not chosen:
        of = f" of {name}" if name else ""
        into = "" if out == Path("runs") else f" --runs {out}"
        raise _usage(f"no finished run{of} with results in {out}; make one with: pbb run notebooks/{name or '01_proactive'}.ipynb{into}")
    for r in chosen:
        if damage := damage_of(r):
            raise _usage(f"{r.folder} is damaged: {damage.path.name} {damage.why}; the same pbb run makes it again from the store")
        profile = r.record["parameters"].get("profile")
        say(f"{_short(r.folder)}{f', profile {profile}' if profile else ''}, {r.record['started'][:16]}", file=sys.stderr)
    tables = []
    for r in chosen:
        try:
            table = pd.read_csv(r.folder / "results.csv")
        except (ValueError, OSError) as error:
            raise _usage(
                f"{r.folder} is damaged: results.csv cannot be read ({error}); the same pbb run makes it again from the store"
            ) from error
        tables.append(table.assign(notebook=r.record["notebook"], run=r.folder.name))
    table = pd.concat(tables, ignore_index=True)
    if len(chosen) == 1:
        table = table.drop(columns=["notebook", "run"])
    say(table.to_csv(index=False) if csv else table.round(3).to_string(index=False), end="" if csv else "\n")


@app.command()
def record(
    notebook: Notebook,
    out: Runs = Path("runs"),
    figures: Annotated[Path, typer.Option(help="The folder of recorded figures.")] = Path("figures"),
    readme: Annotated[Path, typer.Option(help="The page with the block of its numbers, if figures/README.md has none.")] = Path(
        "README.md"
    ),
    variant: Annotated[
        str, typer.Option(help="Records a run with other parameters beside the notebook's own, as <notebook>_<variant>.")
    ] = "",
) -> None:
    """Makes the latest finished run of a notebook the recorded one: its figures go to figures/, its numbers into README.md or figures/README.md.

    Example: pbb record notebooks/06_io_distribution.ipynb --variant arithmetic
    """
    from pbb_helpers.running.run_record import all_runs
    from pbb_helpers.sharing import record as recording

    name = _name(notebook, out)
    finished = [r for r in all_runs(out, name) if r.status == "completed"]
    if not finished:
        raise _usage(f"no finished run of {name} in {out}; make one with: pbb run notebooks/{name}.ipynb")
    for path in recording.record(finished[0], figures, readme, variant):
        say(path)


@app.command()
def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Put right what can be safely: nothing finished is deleted, damaged things are set aside.")
    ] = False,
    out: Runs = Path("runs"),
    reports: Reports = Path("reports"),
) -> None:
    """Checks the installation, the folders, the shipped model, the store, the runs and their reports: a line each.

    Exit code 0 if all is well, 1 if something needs you.
    """
    from pbb_helpers.doctor import diagnose
    from pbb_helpers.programs import UsageError

    problems = 0
    for finding in diagnose(out, reports):
        fixed = False
        if fix and finding.fix is not None:
            try:
                finding.fix()
                fixed = True
            except UsageError as error:  # the others can be put right nevertheless
                complain(f"not fixed: {error}")
        problems += finding.state == "problem" and not fixed
        print(finding.line("fixed" if fixed else None))
    if problems:
        raise typer.Exit(1)


def _name(notebook: str | None, out: Path) -> str | None:
    """Returns the name of a notebook given as path or name, after checking that it exists or was run."""
    if notebook is None:
        return None
    from pbb_helpers.programs import did_you_mean

    name = Path(notebook).name.removesuffix(".ipynb")
    known = {p.stem for p in Path("notebooks").glob("*.ipynb")} | {p.parent.parent.name for p in out.glob("*/*/run.json")}
    if name not in known and not (Path(notebook).is_file() and notebook.endswith(".ipynb")):
        raise did_you_mean("notebook", name, known)
    return name


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _usage(message: str) -> Exception:
    from pbb_helpers.programs import UsageError

    return UsageError(message)


def _stopped(number: int, _: object) -> None:
    """Ends the process at once, which every file survives; while a kernel runs, the engine has handlers of its own.

    An exception is swallowed where it strikes a destructor, and print may be what was interrupted.
    """
    name = signal.Signals(number).name
    os.write(2, f"pbb: stopped by {name}; what is finished is kept: the same command goes on from there\n".encode())
    os._exit(128 + number)


def main() -> None:
    """Runs the command line: bad input is one line on stderr and exit code 2, never a traceback."""
    arguments = sys.argv[1:]
    before = {number: signal.signal(number, _stopped) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if arguments and arguments[0] in cli_options.TAKE_SETTINGS:
            arguments = join_pairs(arguments)
        elif arguments[:1] == ["report"]:
            arguments = name_zip(arguments)
        app(args=arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `pbb results | head` is no error
        raise SystemExit(0) from None
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error)
        raise SystemExit(2) from None
    except ValueError as error:
        from pbb_helpers.programs import UsageError

        if not isinstance(error, UsageError):
            raise
        complain(error)
        raise SystemExit(2) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
