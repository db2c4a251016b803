"""The page that lists every run, to be sorted and searched: figure, status, duration, tags, hardware, commit; the claims on top."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pbb_helpers.disk import plain_errors, write_text
from pbb_helpers.markup import external_loads, safe, shortened
from pbb_helpers.parameters import read_notebook
from pbb_helpers.programs import UsageError
from pbb_helpers.progress import duration
from pbb_helpers.provenance import hardware_line
from pbb_helpers.running.run_record import RunResult, all_runs, latest
from pbb_helpers.sharing import claims, images, report

COLUMNS = ("", "notebook", "status", "started", "took", "tags", "hardware", "commit")


def render_all(
    out_dir: Path | str = "runs", reports: Path | str = "reports", notebook: str | None = None, figures: Path | str = "figures"
) -> tuple[list[Path], list[UsageError]]:
    """Returns the paths of <reports>/<notebook>.html and index.html, brought up to date, and what could not be rendered.

    Args:
        out_dir: The folder of all runs.
        reports: Where the pages go.
        notebook: Render this notebook's runs only; the index lists all in any case.
        figures: The folder of recorded figures, for their claims.
    """
    with plain_errors(Path(reports)):
        return _render_all(all_runs(out_dir), Path(out_dir), Path(reports), notebook, Path(figures))


def _render_all(
    runs: list[RunResult], out_dir: Path, reports: Path, notebook: str | None, figures: Path
) -> tuple[list[Path], list[UsageError]]:
    claimed, problems = claims.read(figures)
    published = []
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
    write_text(index, index_page(runs, reports, claimed))
    return [*published, index], problems


def index_page(runs: Iterable[RunResult], reports: Path, claimed: Sequence[claims.Claims] = ()) -> str:
    """Returns the HTML of the index over these runs, newest first; a run without a rendered report is listed without a link.

    Args:
        runs: As `all_runs` returns them.
        reports: Where their reports are.
        claimed: The claims of recorded runs, which stand on top.
    """
    runs = list(runs)
    failed = sum(run.status in ("failed", "killed", "damaged") for run in runs)
    summary = f"{len(runs)} run{'s' if len(runs) != 1 else ''}" + (f", {failed} of them failed or stopped" if failed else "")
    html = _PAGE.format(
        css=report.css() + (report.TEMPLATES / "list.css").read_text(encoding="utf-8"),
        summary=summary,
        claims=claims.html(list(claimed), _newest(runs, reports)),
        choices="".join(_choices()),
        head="".join(_head(name) for name in COLUMNS),
        rows="\n".join(_row(run, reports) for run in runs),
        empty="" if runs else "<p>Nothing was run yet: <code>pbb run notebooks/01_proactive.ipynb</code></p>",
        script=(report.TEMPLATES / "list.js").read_text(encoding="utf-8"),
    )
    loads = external_loads(html)
    if loads:
        raise report.ReportError(f"the index would load {loads[0]} from elsewhere")
    return html


def address(run: RunResult) -> str:
    """Returns where a run's report is, from the index."""
    return f"{run.record['notebook']}/{run.folder.name}.html"


def _newest(runs: Sequence[RunResult], reports: Path) -> dict[str, str]:
    """Returns notebook → the address of the report of its newest completed run."""
    completed = [run for run in runs if run.status == "completed" and (reports / address(run)).is_file()]
    return {str(run.record["notebook"]): quote(address(run)) for run in reversed(completed)}


def _head(name: str) -> str:
    if not name:
        return "<td></td>"
    newest_first = ' aria-sort="descending"' if name == "started" else ""
    return f'<th scope="col"{newest_first}><button type="button" disabled>{name}</button></th>'


def _choices() -> Iterator[str]:
    for column, name in enumerate(COLUMNS):
        if name == "started":
            yield f'<option value="{column}d" selected>newest first</option><option value="{column}">oldest first</option>'
        elif name == "took":
            yield f'<option value="{column}d">longest first</option><option value="{column}">shortest first</option>'
        elif name:
            yield f'<option value="{column}">{name}</option><option value="{column}d" hidden>{name}, reversed</option>'


def _row(run: RunResult, reports: Path) -> str:
    record = run.record
    title = safe(record.get("title") or record["notebook"])
    link = f'<a href="{safe(quote(address(run)))}">{title}</a>' if (reports / address(run)).is_file() else title
    line = run.headline or (run.error if run.status != "completed" else "")
    tags, seconds, hardware = _tags(record), record.get("seconds") or 0, hardware_line(record.get("hardware", {}))
    buttons = "".join(f'<button type="button" class="tag">{safe(tag)}</button>' for tag in tags)
    cells: list[tuple[str, Any]] = [
        (
            f'<span class="name">{link}</span><span class="file">{safe(record["notebook"])}</span><span class="line">{safe(line)}</span>',
            record["notebook"],
        ),
        (f'<span class="badge {safe(run.status)}">{safe(run.status)}</span>', run.status),
        (safe(str(record.get("started", ""))[:16].replace("T", " ")), record.get("started", "")),
        (f'<span class="nowrap">{safe(duration(seconds))}</span>', seconds),
        (f'<span class="tags">{buttons}</span>', " ".join(tags)),
        (safe(hardware), hardware),
        (f'<code class="nowrap">{safe(shortened(record.get("commit") or "–", 40))}</code>', record.get("commit") or ""),
    ]
    tds = "".join(
        f'<td data-label="{name}" data-key="{safe(shortened(key, 200))}">{html}</td>'
        for name, (html, key) in zip(COLUMNS[1:], cells, strict=True)
    )
    return f'<tr><td class="thumb">{_thumbnail(run)}</td>{tds}</tr>'


def _tags(record: Mapping[str, Any]) -> list[str]:
    """Returns what a run is found by: profile, model, and each parameter that is not at its default."""
    values, changed = record.get("parameters", {}), record.get("changed", [])
    return [f"{name}={shortened(values[name], 80)}" for name in values if name in changed or name in ("profile", "model")]


def _thumbnail(run: RunResult) -> str:
    """Returns the run's largest figure, which is seldom the training curves, as a small image, or nothing."""
    try:
        notebook = read_notebook(run.notebook)
    except UsageError:
        return ""
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if "image/png" in o.get("data", {})]
    if not outputs:
        return ""
    output = max(outputs, key=lambda output: images.size_of(output.data))
    data = images.thumbnail(output.data)
    alt = safe(shortened(output.get("metadata", {}).get("image/png", {}).get("alt") or "a figure of this run", 300))
    return f'<img src="data:image/png;base64,{data}" alt="{alt}" loading="lazy">' if data else ""


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
<main class="list">
<h1>Reports</h1>
<p class="small">{summary}</p>
{claims}
<h2>Runs</h2>
<div class="find" role="search" hidden>
<label>Find <input id="find" type="search" placeholder="words, as in smoke completed"></label>
<label>Sort by <select id="sort">{choices}</select></label>
<span id="shown" role="status"></span>
</div>
{empty}
<table class="stacked" id="runs"><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table>
</main>
<script>
{script}
</script>
</body>
</html>
"""
