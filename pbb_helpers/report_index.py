"""The page that lists every run: sortable, with a thumbnail, status, duration, hardware, commit and parameters of each."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pbb_helpers import report
from pbb_helpers.disk import plain_errors, write_text
from pbb_helpers.markup import external_loads, safe
from pbb_helpers.parameters import read_notebook
from pbb_helpers.programs import UsageError
from pbb_helpers.progress import duration
from pbb_helpers.provenance import hardware_line
from pbb_helpers.run_record import RunResult, all_runs, latest

COLUMNS = ("", "notebook", "status", "started", "took", "parameters", "hardware", "commit")


def render_all(
    out_dir: Path | str = "runs", reports: Path | str = "reports", notebook: str | None = None
) -> tuple[list[Path], list[UsageError]]:
    """Returns the paths of <reports>/<notebook>.html and index.html, brought up to date, and what could not be rendered.

    Args:
        out_dir: The folder of all runs.
        reports: Where the pages go.
        notebook: Render this notebook's runs only; the index lists all in any case.
    """
    with plain_errors(Path(reports)):
        return _render_all(all_runs(out_dir), Path(out_dir), Path(reports), notebook)


def _render_all(runs: list[RunResult], out_dir: Path, reports: Path, notebook: str | None) -> tuple[list[Path], list[UsageError]]:
    problems, published = [], []
    for run in runs:
        name = str(run.record["notebook"])
        if notebook not in (None, name):
            continue
        try:
            path = report.render(run, reports)
        except UsageError as error:
            problems.append(error)
            continue
        newest = latest(out_dir, name)
        if newest and newest.folder == run.folder:
            published.append(report.publish(path, name, reports))
    for page in reports.glob("*/*.previous.html"):  # a run that was kept until its successor was complete
        if not (out_dir / page.parent.name / page.stem).is_dir():
            page.unlink()
    index = reports / "index.html"
    index.parent.mkdir(parents=True, exist_ok=True)
    write_text(index, index_page(runs, reports))
    return [*published, index], problems


def index_page(runs: Iterable[RunResult], reports: Path) -> str:
    """Returns the HTML of the index over these runs; a run without a rendered report is listed without a link."""
    runs = list(runs)
    head = "".join(f'<th><button type="button">{name}</button></th>' if name else '<th aria-label="figure"></th>' for name in COLUMNS)
    rows = "\n".join(_row(run, reports) for run in runs)
    failed = sum(run.status in ("failed", "killed", "damaged") for run in runs)
    summary = f"{len(runs)} run{'s' if len(runs) != 1 else ''}" + (f", {failed} of them failed or stopped" if failed else "")
    empty = "" if runs else "<p>Nothing was run yet: <code>pbb run notebooks/01_proactive.ipynb</code></p>"
    html = _PAGE.format(css=report.css() + _CSS, summary=summary, head=head, rows=rows, empty=empty)
    loads = external_loads(html)
    if loads:
        raise report.ReportError(f"the index would load {loads[0]} from elsewhere")
    return html


def _row(run: RunResult, reports: Path) -> str:
    record = run.record
    path = reports / str(record["notebook"]) / f"{run.folder.name}.html"
    title = safe(record.get("title") or record["notebook"])
    link = f'<a href="{safe(os.path.relpath(path, reports).replace(os.sep, "/"))}">{title}</a>' if path.is_file() else title
    line = run.headline or (run.error if run.status != "completed" else "")
    values, changed = record.get("parameters", {}), record.get("changed", [])
    names = [name for name in values if name in changed or name == "profile"]
    shown = "<br>".join(f"{safe(name)} = {safe(values[name])}" for name in names) or "defaults"
    seconds = record.get("seconds") or 0
    cells: list[tuple[str, Any]] = [
        (
            f'<span class="name">{link}</span><span class="file">{safe(record["notebook"])}</span><span class="line">{safe(line)}</span>',
            record["notebook"],
        ),
        (f'<span class="badge {safe(run.status)}">{safe(run.status)}</span>', run.status),
        (safe(str(record.get("started", ""))[:16].replace("T", " ")), record.get("started", "")),
        (safe(duration(seconds)), seconds),
        (f"<code>{shown}</code>", shown),
        (safe(hardware_line(record.get("hardware", {}))), hardware_line(record.get("hardware", {}))),
        (f"<code>{safe(record.get('commit') or '–')}</code>", record.get("commit") or ""),
    ]
    tds = "".join(
        f'<td data-label="{name}" data-key="{safe(key)}">{html}</td>' for name, (html, key) in zip(COLUMNS[1:], cells, strict=True)
    )
    return f'<tr><td class="thumb">{_thumbnail(run)}</td>{tds}</tr>'


def _thumbnail(run: RunResult, width: int = 240) -> str:
    """Returns the run's first figure as a small image, or nothing."""
    from PIL import Image

    try:
        notebook = read_notebook(run.notebook)
        outputs = (o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if "image/png" in o.get("data", {}))
        output = next(outputs)
        image = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB")
        image.thumbnail((width, width))
        buffer = io.BytesIO()
        image.quantize(64).save(buffer, "PNG", optimize=True)
    except (StopIteration, UsageError, OSError, ValueError):
        return ""
    alt = safe(output.get("metadata", {}).get("image/png", {}).get("alt", "first figure"))
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}" alt="{alt}" loading="lazy">'


_CSS = """
.list { max-width: 1280px; margin: 0 auto; padding: 32px 24px; }
.list table { width: 100%; }
.list th button { border: 0; padding: 0; font-weight: 600; font-size: .82rem; }
.list th button::after { content: " ↕"; opacity: .4; }
.list th[aria-sort="ascending"] button::after { content: " ↑"; opacity: 1; }
.list th[aria-sort="descending"] button::after { content: " ↓"; opacity: 1; }
.list td { padding: .7em 1em .7em 0; font-size: .86rem; }
.list td code { background: none; padding: 0; }
.thumb { width: 136px; }
.thumb img { width: 120px; display: block; background: var(--figure); border-radius: 6px; }
.name { display: block; font-size: 1rem; font-weight: 600; }
.file, .line { display: block; color: var(--soft); font-size: .82rem; overflow-wrap: anywhere; }
.line { max-width: 46ch; margin-top: .2em; color: var(--ink); }
@media (max-width: 760px) {
  .list { padding: 16px; }
  .list thead, .hint { display: none; }
  .list tr { display: block; padding: 12px 0; border-bottom: 1px solid var(--line); }
  .list td { display: block; border: 0; padding: .1em 0; }
  .list td:nth-child(n+4)::before { content: attr(data-label) ": "; color: var(--soft); }
  .thumb, .thumb img { width: 100%; max-width: 320px; }
}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Reports: Programming by Backprop</title>
<style>{css}</style>
</head>
<body>
<main class="list" style="max-width: 1280px">
<h1>Reports</h1>
<p class="small">{summary}<span class="hint">. Click a column to sort.</span></p>
{empty}
<table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table>
</main>
<script>
document.querySelectorAll("th button").forEach(function (button) {{
  button.addEventListener("click", function () {{
    var th = button.parentNode, column = th.cellIndex, body = document.querySelector("tbody");
    var down = th.getAttribute("aria-sort") === "ascending";
    document.querySelectorAll("th").forEach(function (other) {{ other.removeAttribute("aria-sort"); }});
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    Array.from(body.rows).sort(function (a, b) {{
      var x = a.cells[column].dataset.key, y = b.cells[column].dataset.key;
      var order = x !== "" && y !== "" && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y);
      return down ? -order : order;
    }}).forEach(function (row) {{ body.appendChild(row); }});
  }});
}});
</script>
</body>
</html>
"""
