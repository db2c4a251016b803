"""The claims of recorded runs, figures/<notebook>/claims.csv, as the table that stands on top of the index."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pbb_helpers.markup import safe, shortened, visible
from pbb_helpers.programs import UsageError

COLUMNS = ("claim", "effect", "low", "high", "n", "n_programs", "n_seeds", "verdict", "came_true")
LATER = ("seed_low", "seed_high")
"""Columns that tables recorded before them lack: the interval over seeds."""


@dataclass(frozen=True)
class Claims:
    """The claims of one recorded run.

    Attributes:
        notebook: Its name.
        origin: Profile and commit of the run, in words; "" where that isn't known.
        rows: A dict per claim, from each of `COLUMNS` and `LATER` to its text.
    """

    notebook: str
    origin: str
    rows: list[dict[str, str]]


def read(figures: Path) -> tuple[list[Claims], list[UsageError]]:
    """Returns the claims below `figures`, by notebook, and what could not be read."""
    found, problems = [], []
    for path in sorted(figures.glob("*/claims.csv")):
        try:
            found.append(Claims(path.parent.name, _origin(path.with_name("run.json")), _rows(path)))
        except UsageError as error:
            problems.append(error)
    return [claims for claims in found if claims.rows], problems


def markdown(figures: Path) -> str:
    """Returns the claims below `figures` as the table of README: a line each, with what was predicted.

    Raises:
        UsageError: A file is no table of claims.
    """
    head = ("claim", "recorded run", "effect (points)", "95 % over programs", "95 % over seeds", "n", "verdict", "came true")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    found, problems = read(figures)
    for problem in problems:
        raise problem
    for claims in found:
        for row in claims.rows:
            n, programs, seeds = _counts(row)
            behind = f"{n}, {programs} programs, {seeds} seed{'' if seeds == 1 else 's'}"
            over = [_span(row[low], row[high]) for low, high in (("low", "high"), LATER)]
            shown = [row["claim"], claims.notebook, _points(row["effect"]), *over, behind, row["verdict"], row["came_true"]]
            lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def tally(figures: Path) -> str:
    """Returns in a sentence how many of the claims below `figures` came true.

    Raises:
        UsageError: A file is no table of claims.
    """
    found, problems = read(figures)
    for problem in problems:
        raise problem
    came = Counter(row["came_true"] for claims in found for row in claims.rows)
    yes, no, open_ = (came.pop(word, 0) for word in ("yes", "no", "open"))
    whole = yes + no + open_ + came.total()
    return (
        f"Of {whole} predictions in {sum(1 for claims in found)} recorded runs {yes} came true, {no} did not, {open_} are open, and {came.total()} "
        "could not have failed (a dash)."
    )


def require_valid(path: Path) -> None:
    """Raises a UsageError where the file is no table of claims that `markdown` takes."""
    for row in _rows(path):
        _counts(row)


def _counts(row: dict[str, str]) -> tuple[int, int, int]:
    """Returns the numbers of answers, programs and seeds behind a claim."""
    try:
        n, programs, seeds = (int(float(row[name])) for name in ("n", "n_programs", "n_seeds"))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"the claim {visible(shortened(row['claim']))!r} does not say of how many answers, programs and seeds: {error}"
        ) from error
    return n, programs, seeds


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            rows = (
                [{name: row.get(name) or "" for name in (*COLUMNS, *LATER)} for row in reader if row["verdict"] != "not run"]
                if not missing
                else []
            )
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a table of claims: {error}") from error
    if missing:
        raise UsageError(f"{path} has no column {', '.join(missing)}; a table of claims has {', '.join(COLUMNS)}")
    return rows


def _origin(path: Path) -> str:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        return ", ".join(filter(None, [run["parameters"].get("profile"), run.get("commit")]))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return ""


def html(every: list[Claims], links: Mapping[str, str]) -> str:
    """Returns the section of the index, or "" without claims.

    Args:
        every: As `read` returns them.
        links: Notebook → the address of its newest report; one without is named only.
    """
    if not every:
        return ""
    rows = "\n".join(_row(row, claims, links.get(claims.notebook)) for claims in every for row in claims.rows)
    head = "".join(f'<th scope="col"{" class=num" if name in ("n", "programs", "seeds") else ""}>{name}</th>' for name in _HEAD)
    return (
        '<section aria-labelledby="claims"><h2 id="claims">Claims</h2>\n'
        '<p class="small">Of the recorded runs; in brackets the interval of the effect.</p>\n'
        f'<div class="wide"><table class="stacked claims"><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div></section>'
    )


_HEAD = ("claim", "effect (points)", "n", "programs", "seeds", "verdict", "recorded run")


def _row(row: Mapping[str, str], claims: Claims, link: str | None) -> str:
    name = safe(claims.notebook)
    source = (f'<a href="{safe(link)}">{name}</a>' if link else name) + (f" ({safe(claims.origin)})" if claims.origin else "")
    effect = _points(row["effect"])
    if row["low"] and row["high"]:
        effect += f" ({_points(row['low'])} to {_points(row['high'])})"
    cells = [safe(shortened(row["claim"], 600)), effect, *(_number(row[key]) for key in ("n", "n_programs", "n_seeds"))]
    cells += [f"<strong>{safe(shortened(row['verdict'], 200))}</strong>", source]
    kinds = ["txt", "txt", "num", "num", "num", "txt", "txt"]
    return (
        "<tr>"
        + "".join(f'<td class="{kind}" data-label="{label}">{cell}</td>' for label, kind, cell in zip(_HEAD, kinds, cells, strict=True))
        + "</tr>"
    )


def _span(low: str, high: str) -> str:
    return f"{_points(low)} to {_points(high)}" if low and high else "–"


def _points(text: str) -> str:
    """Returns a difference of shares in points, and what is no number as it is.

    >>> _points("0.07916"), _points("-0.3"), _points("-0.001"), _points("unknown")
    ('+8', '−30', '0', 'unknown')
    """
    try:
        value = 100 * float(text)
    except ValueError:
        return _number(text)
    return f"{round(value):+d}".replace("-", "−").replace("+0", "0") if math.isfinite(value) else "–"


def _number(text: str) -> str:
    """Returns a number to three digits, a whole one with all of them, and what is none as it is.

    >>> _number("0.07916"), _number("-12.0"), _number("1200"), _number("nan"), _number("+8 points")
    ('0.0792', '−12', '1,200', '–', '+8 points')
    """
    try:
        value = float(text)
    except ValueError:
        return safe(shortened(visible(text), 100)) or "–"
    if not math.isfinite(value):
        return "–"
    return (f"{value:,.0f}" if value.is_integer() else f"{value:.3g}").replace("-", "−")
