"""What a notebook calls: check its parameters, show things with alt text, report progress, leave its results."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pbb_helpers.disk import plain_errors, plain_name, write_text
from pbb_helpers.markup import LONGEST_OUTPUT, shortened, table_html, visible
from pbb_helpers.parameters import Parameter, check
from pbb_helpers.programs import UsageError
from pbb_helpers.progress import LiveCurves, Progress
from pbb_helpers.provenance import FromStore, trained_by

__all__ = ["LiveCurves", "Progress", "parameters", "record", "run_folder", "runs_root", "show"]


def parameters(schema: Any, values: Mapping[str, Any]) -> Any:
    """Returns the parameters, checked: an instance of the pydantic model, or a namespace for a dict of types.

    Args:
        schema: A pydantic model class, or a dict from name to a type (`int | None`) or to a tuple of allowed texts.
        values: Where the parameters cell put them: `globals()` in a notebook.

    Raises:
        UsageError: One is missing or not valid.
    """
    if isinstance(schema, Mapping):
        return SimpleNamespace(**{name: _checked(name, kind, values) for name, kind in schema.items()})
    from pydantic import ValidationError

    try:
        return schema(**{name: values[name] for name in schema.model_fields if name in values})
    except ValidationError as error:
        problems = (f"parameter {'.'.join(map(str, e['loc'])) or '?'}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise UsageError(visible("; ".join(problems)).replace("\n", " ")) from None


def _checked(name: str, kind: Any, values: Mapping[str, Any]) -> Any:
    if name not in values:
        raise UsageError(f"parameter {name!r} is not set; assign it in the parameters cell")
    choices = tuple(kind) if isinstance(kind, (tuple, list)) else ()
    return check(Parameter(name, str if choices else kind, values[name], "", choices), values[name])


def run_folder(name: str | None = None) -> Path:
    """Returns the folder for this run's files, made if need be: `PBB_RUN_DIR`, else runs/<name>/interactive of the project.

    Args:
        name: The notebook's name; by default the one that JupyterLab reports, else "notebook".
    """
    given = os.environ.get("PBB_RUN_DIR")
    name = name or Path(os.environ.get("JPY_SESSION_NAME", "")).stem or "notebook"
    folder = Path(given) if given else runs_root() / plain_name(name, "notebook name") / "interactive"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def runs_root() -> Path:
    """Returns the folder of all runs: `PBB_RUNS`, else runs/ beside the nearest pyproject.toml upwards, else ./runs."""
    if given := os.environ.get("PBB_RUNS"):
        return Path(given)
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "pyproject.toml").is_file()), here)
    return root / "runs"


def record(*, rows: Any = None, results: Any = None, floors: Any = None, claims: Any = None, tables: Mapping[str, Any] | None = None,
           headline: str | None = None, reused: float | None = None, folder: Path | None = None) -> Path:  # fmt: skip
    """Returns the run's folder after writing what is given: rows.jsonl, results.csv, floors.csv, claims.csv, tables/, headline.txt, reused.txt, trained_by.json.

    Args:
        rows: A DataFrame or an iterable of dicts, one per answer.
        results: A DataFrame with columns condition, mode, group, seed, n, accuracy, low, high, …
        floors: A DataFrame of `statistics.floors` or `statistics.with_control`, to be drawn where runs lie over each other.
        claims: A DataFrame of `verdicts.claims`, for the table of claims.
        tables: Further DataFrames by name, of what the report says beside its figures: each number that is told is in a file.
        headline: One line for the terminal and the top of the report.
        reused: The share of the work that came from the store: the run's time is that of the rest. That of an experiment says who trained too.
        folder: Where; `run_folder()` by default.
    """
    folder = Path(folder) if folder else run_folder()
    with plain_errors(folder):
        if reused is not None:
            write_text(folder / "reused.txt", f"{reused:.4f}\n")
        if isinstance(reused, FromStore) and reused.trainings:
            write_text(folder / "trained_by.json", json.dumps(trained_by(reused.trainings.values()), indent=1) + "\n")
        _write(folder, rows, headline, results=results, floors=floors, claims=claims)
        for name, table in (tables or {}).items():
            (folder / "tables").mkdir(exist_ok=True)
            write_text(folder / "tables" / f"{name}.csv", table.to_csv(index=False, float_format="%.10g"))
    return folder


def _write(folder: Path, rows: Any, headline: str | None, **tables: Any) -> None:
    if rows is not None:
        lines = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
        write_text(
            folder / "rows.jsonl", "".join(json.dumps({k: _missing(v) for k, v in row.items()}, default=_plain) + "\n" for row in lines)
        )
    for name, table in tables.items():
        if table is not None:
            write_text(folder / f"{name}.csv", table.to_csv(index=False))
    if headline is not None:
        write_text(folder / "headline.txt", " ".join(visible(headline).split()) + "\n")


def _missing(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value  # a missing value is null: NaN is no JSON


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def show(thing: Any, *, alt: str | None = None, caption: str | None = None, rows: int = 50) -> None:
    """Displays a figure with its alt text, a table, or text that is never taken for HTML.

    Args:
        thing: A matplotlib Figure, the path of a PNG that `plots.save_figure` wrote, a DataFrame, or anything with a str().
        alt: What a figure shows, in words; required for a figure (a saved one has it in the .json beside it).
        caption: One line under it.
        rows: At most so many rows of a table are shown; a line says how many there are.

    Raises:
        UsageError: A figure without alt text, or a file that isn't there.
    """
    from IPython.display import display

    metadata: dict[str, Any] = {}
    if hasattr(thing, "savefig") or isinstance(thing, Path):
        data, metadata = _figure(thing, alt)
    elif hasattr(thing, "to_html") and hasattr(thing, "columns"):
        few = thing.head(rows).map(lambda value: shortened(value) if isinstance(value, str) else value)
        data = {"text/html": table_html(thing, rows=rows), "text/plain": visible(few.to_string())}
    else:
        text = visible(shortened(thing, LONGEST_OUTPUT))
        data = {"text/html": f'<pre class="pbb-text">{html.escape(text)}</pre>', "text/plain": text}
    display(data, raw=True, metadata=metadata)
    if caption:
        display({"text/html": f'<p class="pbb-caption">{html.escape(visible(caption))}</p>', "text/plain": visible(caption)}, raw=True)


def _figure(thing: Any, alt: str | None) -> tuple[dict[str, str], dict[str, Any]]:
    """Returns the display data of a figure and its metadata: alt text, and the width in CSS pixels."""
    if isinstance(thing, Path):
        beside = thing.with_suffix(".json")
        if not thing.is_file():
            raise UsageError(f"no figure at {thing}; save it first with plots.save_figure")
        alt = alt or (json.loads(beside.read_text(encoding="utf-8")).get("alt") if beside.is_file() else None)
        png = thing.read_bytes()
    else:
        buffer = io.BytesIO()
        thing.savefig(buffer, format="png", dpi=160, bbox_inches="tight")
        png = buffer.getvalue()
    if not (alt or "").strip():
        raise UsageError("a figure needs alt text: show(figure, alt='what it shows, in words')")
    width = int.from_bytes(png[16:20], "big")  # PNG: width is the first field of IHDR
    data = {"image/png": base64.b64encode(png).decode(), "text/plain": f"[figure: {visible(alt)}]"}
    return data, {"image/png": {"alt": visible(alt), "width": width // 2 if width > 1000 else width}}
