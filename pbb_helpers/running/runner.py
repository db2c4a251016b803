"""Runs a notebook with checked parameters in a folder of its own, once: run.json there says what truly happened."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pbb_helpers import provenance
from pbb_helpers.disk import MANIFEST, lock, plain_errors, plain_name
from pbb_helpers.experiments import plans
from pbb_helpers.parameters import read_notebook, read_parameters, resolve
from pbb_helpers.programs import UsageError
from pbb_helpers.running.run_record import PREVIOUS, Event, Record, RunResult, Stopped, damage_of, now, process_start, read_run, seal
from pbb_helpers.training.model_files import cached, made_here, made_root
from pbb_helpers.training.store import set_aside

FORMAT = 1


def run(
    notebook: Path | str,
    parameters: Mapping[str, Any] | None = None,
    *,
    out_dir: Path | str = "runs",
    typed: bool = False,
    force: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> RunResult:
    """Returns the run of this notebook with these parameters, running it unless that is done already.

    Args:
        notebook: Path of the .ipynb.
        parameters: Values by name; the rest keeps its default.
        out_dir: The folder of all runs; this one goes to <out_dir>/<notebook's name>/<key of the parameters>/.
        typed: The values are texts from a command line, to be parsed.
        force: Run again even if nothing has changed.
        on_event: Gets a dict per cell ("kind": "cell") and per progress line ("kind": "progress").

    Raises:
        UsageError: Unknown notebook or parameter, wrong type, no parameters cell, a folder that can't be written, or the
            same run is going on in another process.
        Stopped: A signal ended it; run.json says "killed".
    """
    path = Path(notebook)
    if plain_name(path.stem, "notebook name") == "index":
        raise UsageError("a notebook called 'index' would overwrite the page that lists all reports; give it another name")
    node = read_notebook(path)
    known = read_parameters(node, path)
    values = resolve(known, parameters or {}, typed=typed)
    plans.check(path.stem, values)
    changed = {name: value for name, value in values.items() if value != known[name].default}
    folder = Path(out_dir).absolute() / path.stem / parameters_key(values)
    with plain_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with plain_errors(folder), lock(folder.parent / f".{folder.name}.lock", _refuse(folder)) as alone:
        prints = fingerprint(node, values)
        last = read_run(folder)
        if last and last["status"] == "running" and not alone:  # the disk has no locks: the record alone says that somebody is at it
            _refuse(folder)(f"process {last['pid']} on {last['host']}")
        if not force and last and _is_finished(folder, last, prints):
            damage = damage_of(RunResult(folder, last))
            if damage is None:
                return RunResult(folder, last, reused=True)
            last = {"status": "damaged", "error": {"value": f"{damage.path.name} {damage.why}"}}
        _set_aside(folder, last)
        start = _first_record(path, node, values, changed, prints, folder.name)
        record = Record(folder, start)
        result = _execute(path, changed, folder, record, on_event or (lambda _: None))
        ended = snapshots(values) | prints  # with what it downloaded; of what was there before, what it began with
        if provenance.package_hash() != prints["package"]:  # processes import what lies on the disk when they start
            ended["package"] = "changed during the run"
        if ended != prints:
            record.data["fingerprint"] = ended
            record.write()
        if result.status == "completed":
            seal(result)
            shutil.rmtree(_previous(folder), ignore_errors=True)
        return result


def fingerprint(node: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """Returns what makes a run beside its parameters: hashes of notebook and package, the libraries' versions, and `weights_print`."""
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions().items())
    return {"notebook": source_hash(node), "package": provenance.package_hash(), "versions": versions} | weights_print(values)


def weights_print(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns a hash of names, sizes and times of the files of every model that lies in a folder and does not ship, and `snapshots`; {} without any.

    The files themselves are read where they are used: the store's keys hold their hashes. Here it is asked only whether to look again.
    """
    files: list[Path] = []
    for spec in _models(values):
        if folder := made_here(spec):
            files += [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    said = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return ({"models": hashlib.sha256(json.dumps(said).encode()).hexdigest()} if files else {}) | snapshots(values)


def snapshots(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns "id@commit" of every model of the hub that lies in the local cache, by its name among the parameters; the hub is not asked."""
    trusted = bool(values.get("trust_remote_code"))
    return {spec: found[1] for spec in _models(values) if (found := cached(spec, trust_remote_code=trusted))}


MODEL_PARAMETERS = ("model", "models", "sizes", "repeated", "crossed")
"""The parameters that name base models."""


def _models(values: Mapping[str, Any]) -> list[str]:
    given = [values.get(name) for name in MODEL_PARAMETERS]
    return [text for value in given for text in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(text, str)]


def is_current(folder: Path, record: Mapping[str, Any], prints: Mapping[str, str]) -> bool:
    """Returns whether this run is finished, undamaged and would come out the same: `run` does not repeat it."""
    return _is_finished(folder, record, prints) and damage_of(RunResult(folder, dict(record))) is None


def _is_finished(folder: Path, record: Mapping[str, Any], prints: Mapping[str, str]) -> bool:
    # One that was killed before its seal is run again, from the store.
    whole = (folder / MANIFEST).is_file() and (folder / f"{record['notebook']}.ipynb").is_file()
    return record["status"] == "completed" and record.get("fingerprint") == prints and whole


def _execute(path: Path, changed: dict[str, Any], folder: Path, record: Record, on_event: Callable[[Event], None]) -> RunResult:
    """Returns the result of papermill with our engine; papermill itself saves nothing (its file would lie and isn't atomic)."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import execute_notebook

    import pbb_helpers.running.engine  # noqa: F401 - registers "pbb" with papermill

    logging.getLogger("papermill").setLevel(logging.CRITICAL + 1)

    def event(what: Event) -> None:
        record.event(what)
        on_event(what)

    status = "killed"
    try:
        with record.heartbeat():
            execute_notebook(
                str(path).replace("{", "{{").replace("}", "}}"),  # papermill formats paths
                None,
                parameters=changed,
                engine_name="pbb",
                kernel_name="python3",
                result=folder / path.name,
                on_event=event,
                env=_environment(folder),
            )
        status = "completed"
    except PapermillExecutionError as error:
        status = "failed"
        record.data.setdefault("error", {"index": error.cell_index, "heading": "", "name": error.ename, "value": error.evalue})
    except Stopped as stop:
        record.data["error"] = record.cell_error("Stopped", f"by {stop}")
        raise
    except KeyboardInterrupt:  # before or after the engine had the signals
        record.data["error"] = record.cell_error("Stopped", "by SIGINT")
        raise
    except Exception as error:
        dead = isinstance(error, DeadKernelError)
        status = "killed" if dead else "failed"
        why = "the kernel died: killed, or out of memory; see kernel.log in the run's folder" if dead else str(error)
        record.data["error"] = record.cell_error(type(error).__name__, why)
        if isinstance(error, OSError):
            raise
    finally:
        record.data |= _trained_by(folder)
        record.finish(status)
    return RunResult(folder, record.data)


def _trained_by(folder: Path) -> dict[str, Any]:
    """Returns what `notebook.record` left of who trained, which need not be the commit of this run: {} where it left nothing."""
    try:
        return {"trained_by": json.loads((folder / "trained_by.json").read_text(encoding="utf-8"))}
    except (OSError, ValueError):
        return {}


def _environment(folder: Path) -> dict[str, str]:
    """Returns the kernel's environment: where to leave results, and threads for the cores that there really are."""
    env = {**os.environ, "PBB_RUN_DIR": str(folder), "PBB_RUNS": str(folder.parent.parent), "PBB_MODELS": str(made_root().absolute())}
    env.setdefault("OMP_NUM_THREADS", str(provenance.cores()))
    env.setdefault("TOKENIZERS_PARALLELISM", "false")
    return env


def parameters_key(values: Mapping[str, Any]) -> str:
    """Returns 12 hex digits that name these parameter values, the same in every process.

    >>> parameters_key({"a": 1, "b": None}) == parameters_key({"b": None, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def source_hash(node: Any) -> str:
    """Returns the SHA-256 of a notebook's cells (kind, source, tags); outputs and ids don't count."""
    cells = [(c.cell_type, c.source, sorted(c.metadata.get("tags", []))) for c in node.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def title_of(node: Any) -> tuple[str, str]:
    """Returns the first heading of a notebook and the first paragraph under it: its title and its question."""
    text = node.cells[0].source if node.cells and node.cells[0].cell_type == "markdown" else ""
    match = re.match(r"\s*#\s+(.+?)\s*\n(.*)", text + "\n", flags=re.S)
    title, rest = match.groups() if match else ("", text)
    return title, " ".join(rest.strip().split("\n\n")[0].split())


def _first_record(
    path: Path, node: Any, values: Mapping[str, Any], changed: Mapping[str, Any], prints: dict[str, str], key: str
) -> dict[str, Any]:
    title, question = title_of(node)
    return {
        "format": FORMAT,
        "notebook": path.stem,
        "path": str(path),
        "title": title or path.stem,
        "question": question,
        "key": key,
        "parameters": dict(values),
        "changed": sorted(changed),
        "status": "running",
        "started": now(),
        "finished": None,
        "pid": os.getpid(),
        "pid_started": process_start(),
        "host": platform.node(),
        "fingerprint": prints,
        **provenance.provenance(),
    }


def _previous(folder: Path) -> Path:
    return folder.with_name(folder.name + PREVIOUS)


def _set_aside(folder: Path, last: dict[str, Any] | None) -> None:
    """Keeps the last completed run until the new one is complete, and a damaged one for good; anything else makes room."""
    if last and last["status"] == "completed":
        shutil.rmtree(_previous(folder), ignore_errors=True)
        os.replace(folder, _previous(folder))
    elif last and last["status"] == "damaged":  # whether it was completed can't be told
        set_aside(folder, last["error"]["value"], rebuilt="the notebook is run again")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _refuse(folder: Path) -> Callable[[str], None]:
    """Returns what to do when the lock is held: say by whom, instead of waiting for hours."""

    def refuse(holder: str) -> None:
        pid = (read_run(folder) or {}).get("pid", "?")
        raise UsageError(f"this run is going on already ({holder}); wait for it, or stop it with: kill {pid}")

    return refuse
