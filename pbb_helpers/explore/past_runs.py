"""What can be asked of runs that are there: their table, their answers, their training log, their programs, and how their parameters differ."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pbb_helpers.analysis import labels, statistics
from pbb_helpers.analysis.traces import TRACED, first_error
from pbb_helpers.data.documents import execution, way_of_answering
from pbb_helpers.data.typed_programs import READERS, read
from pbb_helpers.disk import held
from pbb_helpers.programs import Program, UsageError, family_of, from_cell
from pbb_helpers.progress import duration
from pbb_helpers.running.run_record import RunResult, damage_of
from pbb_helpers.running.run_table import changed, elapsed, note
from pbb_helpers.training.store import read_metrics

COLUMNS = ("run", "notebook", "parameters", "state", "took", "left", "note")
ANSWER_COLUMNS = ("run", "model", "family", "condition", "seed", "group", "program", "input", "mode", "length", "prompt", "generated", "answer", "gold", "correct")  # fmt: skip
EXPERIMENT = ("arm", "axis", "model", "n_with_io")
"""Columns in which a run may hold several experiments, each with conditions of the same names."""
VERDICTS = ("all", "wrong", "right", "not parsed")
KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Answers:
    """The answers of a run, one line each, and the programs that they are about.

    Attributes:
        rows: As the run left them; an input is a whole number, a text with a shift, or None.
        programs: By seed and name: those whose source stands in the answers and is read as one of the family, so that it may be run.
    """

    rows: pd.DataFrame
    programs: Mapping[tuple[int, str], Program]


def name(run: RunResult) -> str:
    """Returns "notebook/key", the name of a run that the commands take."""
    return f"{run.record['notebook']}/{run.folder.name}"


def table(runs: Sequence[RunResult], queue: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Returns a line a run: run (its key), notebook, parameters (not at their defaults), state, took, left, note.

    Args:
        runs: From `run_record.all_runs`.
        queue: The state in Slurm's queue by `name`, from `slurm.queued_runs`.
    """
    lines = []
    for run in runs:
        left = (run.record.get("progress") or {}).get("left") if run.status == "running" else None
        state = (queue or {}).get(name(run), run.status) if run.status not in ("running", "completed") else run.status
        took = duration(elapsed(run.record))
        lines.append(
            (run.folder.name, run.record["notebook"], changed(run.record), state, took, "" if left is None else duration(left), note(run))
        )
    return pd.DataFrame(lines, columns=list(COLUMNS))


def chosen(runs: Sequence[RunResult], *, text: str = "", state: str = "", notebook: str = "") -> list[RunResult]:
    """Returns the runs of a state and a notebook ("" is any) in whose line every word of `text` stands."""
    words = text.lower().split()
    lines = table(runs).astype(str).agg(" ".join, axis=1).str.lower() if len(runs) else []
    return [
        run
        for run, line in zip(runs, lines, strict=True)
        if state in ("", run.status) and notebook in ("", run.record["notebook"]) and all(word in line for word in words)
    ]


def has_answers(run: RunResult) -> bool:
    """Returns whether a run left answers."""
    return (run.folder / "rows.jsonl").is_file()


def answers(run: RunResult) -> Answers:
    """Returns the answers of a run.

    Raises:
        UsageError: It left none, or files that were changed since.
    """
    path = run.folder / "rows.jsonl"
    if not path.is_file():
        raise UsageError(f"{name(run)} is {run.status} and left no answers" + (" yet" if run.status == "running" else ""))
    return _answers(path, path.stat().st_mtime_ns, run.status)


@functools.lru_cache(maxsize=8)
def _answers(path: Path, written: int, status: str) -> Answers:
    run = RunResult(path.parent, {"status": status, "notebook": path.parent.parent.name})
    if damage := damage_of(run):
        raise UsageError(f"{name(run)} is damaged: {damage.path.name} {damage.why}; run it again")
    try:
        # Not splitlines(), and no reader that guesses types: an answer "007" is text.
        rows = pd.DataFrame([json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line])
    except ValueError as error:
        raise UsageError(f"{path} is no table of answers ({error}); run the notebook again") from None
    missing = [column for column in ANSWER_COLUMNS if column not in rows]
    if missing:
        raise UsageError(f"the rows of {name(run)} are no answers: {missing[0]!r} is missing")
    try:
        inputs = [_input(x) for x in rows["input"]]
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise UsageError(f"the inputs in the answers of {name(run)} are none of a program's; run the notebook again") from None
    said = [answer if isinstance(answer, str) else None for answer in rows["answer"]]
    rows = rows.assign(input=pd.Series(inputs, dtype=object), answer=pd.Series(said, dtype=object), correct=rows["correct"].astype(bool))
    return Answers(rows, _programs(rows))


def _input(cell: Any) -> Any:
    x = None if cell is None or cell != cell else from_cell(cell)
    if x is None or isinstance(x, int) or (isinstance(x, tuple) and tuple(map(type, x)) == (str, int)):
        return x
    raise ValueError(f"no input: {cell!r}")


def _programs(rows: pd.DataFrame) -> dict[tuple[int, str], Program]:
    """Returns the programs whose source is a gold answer, or stands in front of a question about them."""
    found: dict[tuple[int, str], Program] = {}
    asked = rows.drop_duplicates(["seed", "program", "mode", "condition"])
    for line in asked[["seed", "program", "family", "mode", "prompt", "gold"]].itertuples(index=False):
        text = line.gold if line.mode == "source" else line.prompt.split("\n\n")[0]
        if line.family in READERS and (line.seed, line.program) not in found and text.startswith(f"def {line.program}("):
            try:
                found[line.seed, line.program] = read(text, line.family)
            except UsageError:
                continue
    return found


def select(rows: pd.DataFrame, *, verdict: str = "all", text: str = "", **equal: Any) -> pd.DataFrame:
    """Returns the answers of a verdict, with `text` in program, prompt or answer, and with these values in these columns."""
    keep = pd.Series(True, index=rows.index)
    for column, value in equal.items():
        keep &= rows[column] == value
    judged = {"wrong": ~rows["correct"], "right": rows["correct"], "not parsed": rows["answer"].isna()}
    keep &= judged.get(verdict, True)
    for word in text.split():
        keep &= (rows["program"] + "\n" + rows["prompt"] + "\n" + rows["generated"]).str.contains(word, regex=False)
    return rows[keep]


def first_wrong(program: Program | None, x: Any, mode: str, generated: str, gold: str) -> tuple[str, int | None]:
    """Returns what an answer is, of `traces.ERRORS`, "wrong line" or "wrong answer", and the index of its first wrong line (from 0), or None.

    A line after the last one of `generated` says that it ends too early. Without a program only the answer itself is judged, not its steps.
    """
    way, _ = way_of_answering(mode)
    if way in TRACED and program is not None and x is not None:
        if not family_of(program).line_a_step:
            true = execution(program, x, way)
            return ("right", None) if generated.rstrip() == true.rstrip() else ("wrong line", _differs(generated, true))
        error, line, _ = first_error(program, x, way, generated)
        if error == "source not written first":
            return error, _differs(generated, program.source)
        return error, None if error == "right" else line - 1 + (len(program.source.splitlines()) if way == "recall" else 0)
    if way in TRACED or way not in ("direct", "source"):
        return "", None
    if generated.strip() == gold.strip():
        return "right", None
    return ("wrong answer", 0) if way == "direct" else ("wrong source", _differs(generated, gold))


def _differs(text: str, true: str) -> int:
    pairs = itertools.zip_longest(text.rstrip().split("\n"), true.rstrip().split("\n"))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), 0)


def differing(rows: pd.DataFrame) -> tuple[str, ...]:
    """Returns the columns of `EXPERIMENT` in which the answers of a run differ; those of one condition that differ there must not be pooled."""
    return tuple(column for column in EXPERIMENT if column in rows and rows[column].nunique(dropna=False) > 1)


def named(rows: pd.DataFrame, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Returns the rows with their experiment in front of the condition: "sizes, pbb-s: proactive", which `labels` reads.

    Args:
        rows: Of a run.
        columns: What tells experiments apart; by default those in which these rows are `differing`. What a row does not have is left out.
    """
    columns = differing(rows) if columns is None else columns
    told = [[_told(column, value) for value in rows[column]] for column in columns if column in rows]
    if not told:
        return rows
    fronts = [", ".join(filter(None, parts)) for parts in zip(*told, strict=True)]
    names = [f"{front}: {name}" if front else name for front, name in zip(fronts, rows["condition"], strict=True)]
    return rows.assign(condition=names)


def _told(column: str, value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{int(value):,} w/ IO programs" if column == "n_with_io" else str(value)


def accuracies(run: RunResult, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Returns accuracies with intervals, of `statistics.results`: a line a condition, mode, group and seed, and one for all seeds.

    Args:
        run: With answers.
        columns: What tells its experiments apart, as in `named`.
    """
    answers(run)  # says what is wrong, if anything is
    path = run.folder / "rows.jsonl"
    return _accuracies(path, path.stat().st_mtime_ns, run.status, None if columns is None else tuple(columns))


@functools.lru_cache(maxsize=8)
def _accuracies(path: Path, written: int, status: str, columns: tuple[str, ...] | None) -> pd.DataFrame:
    rows = named(_answers(path, written, status).rows, columns)
    experiments = [labels.parted(name)[0] for name in rows["condition"]]
    return pd.concat([statistics.results(some) for _, some in rows.groupby(experiments, sort=False)], ignore_index=True)


def highest_floors(run: RunResult, modes: Sequence[str]) -> pd.DataFrame:
    """Returns the highest score in each mode that needs no knowledge of the program: columns mode, floor (its name) and accuracy, over all seeds.

    Empty where the run left no floors.
    """
    path = run.folder / "floors.csv"
    table = pd.read_csv(path, dtype={"seed": str}) if path.is_file() else None
    found = [(mode, *statistics.highest_floor(table, mode)) for mode in modes] if table is not None else []
    return pd.DataFrame(found, columns=["mode", "floor", "accuracy"])


def checkpoints(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns which weights gave the answers: condition, seed, stage and run, their folder in the store."""
    return rows[["condition", "seed", "stage", "run"]].drop_duplicates().reset_index(drop=True)


def training_log(run: RunResult, store: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Returns the training of what answered in a run: condition, seed, stage, folder, step, loss, …, one line per logged step.

    Stages that conditions share stand under each of them. Empty where nothing was trained, or the store has gone.

    Args:
        run: With answers.
        store: Where its weights are.
        columns: What tells its experiments apart, as in `named`.
    """
    lines = []
    for line in checkpoints(named(answers(run).rows, columns)).itertuples(index=False):
        for folder, config in stages_behind(store, line.run):
            where = {"condition": line.condition, "seed": line.seed, "stage": config["name"], "folder": folder.name}
            lines += [where | entry for entry in read_metrics(folder)]
    return pd.DataFrame(lines, columns=None if lines else ["condition", "seed", "stage", "folder", "step", "loss"])


def stages_behind(store: Path, folder: str) -> list[tuple[Path, dict[str, Any]]]:
    """Returns the stages that led to the weights in a folder of the store, the first one first, each with its config.json."""
    found: dict[Path, dict[str, Any]] = {}
    while KEY.fullmatch(folder) and store / folder not in found and (config := _config(store / folder)):
        found[store / folder] = config
        folder = str(config.get("parent") or "")[:16]
    return list(found.items())[::-1]


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and {"key", "name"} <= config.keys() else None


def in_training(root: Path) -> pd.DataFrame:
    """Returns the stages that some process trains now: stage, model, step, steps, loss, folder. Of runs on other machines too, if they
    share the store."""
    lines = []
    for path in sorted(root.glob("*/config.json")):
        folder = path.parent
        if (folder / "manifest.json").exists() or not held(folder / ".lock"):
            continue
        config = _config(folder)
        if config:
            logged = read_metrics(folder)
            last = logged[-1] if logged else {}
            model = (config.get("base") or {}).get("name", "")
            lines.append((config["name"], model, last.get("step", 0), config.get("steps"), last.get("loss"), folder.name))
    return pd.DataFrame(lines, columns=["stage", "model", "step", "steps", "loss", "folder"])


def differences(runs: Sequence[RunResult]) -> pd.DataFrame:
    """Returns what differs between runs: a line a parameter, code or commit, a column a run; what is equal everywhere is left out."""
    columns = {name(run): _settings(run) for run in runs}
    names = list(dict.fromkeys(key for values in columns.values() for key in values))
    lines = [(key, *(values.get(key, "–") for values in columns.values())) for key in names]
    return pd.DataFrame([line for line in lines if len(set(line[1:])) > 1], columns=["", *columns])


def _settings(run: RunResult) -> dict[str, str]:
    record = run.record
    hashes = record.get("fingerprint") or {}
    about = {"notebook": record["notebook"], "commit": record.get("commit"), "package": str(hashes.get("package", ""))[:12]}
    about |= {"model of processor": (record.get("hardware") or {}).get("cpu")}
    return {key: str(value) for key, value in (record["parameters"] | about).items()}
