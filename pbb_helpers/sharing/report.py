"""One run as one HTML file that can be shared: offline, code folded, figures described, generated text escaped."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

from pbb_helpers import markup
from pbb_helpers.disk import write_text
from pbb_helpers.markup import LONGEST_OUTPUT, safe, shortened, visible
from pbb_helpers.parameters import parse_cell, read_notebook
from pbb_helpers.programs import UsageError
from pbb_helpers.progress import MIME, PREFIX, duration
from pbb_helpers.provenance import PACKAGE, hardware_line, trained_line
from pbb_helpers.running.run_record import RunResult, damage_of
from pbb_helpers.sharing import images

HEAVIEST = 2_000_000  # bytes of a page: what a mail or a phone takes without a thought
LARGEST = 1_000_000  # characters of HTML in one output; what is larger is shown as plain text
TEMPLATES = PACKAGE / "report_template"
WIDE = 600  # CSS pixels: a wider figure scrolls sideways on a phone instead of being too small to read
WIDGET = "application/vnd.jupyter.widget-view+json"
INTERACTIVE = ("application/vnd.", "application/javascript")  # MIME types of what needs a script or a kernel begin so
_BAR = re.compile(r"\[\d+:\d\d[<,:]|\d+%\|")  # tqdm: how far it was, which is no result
VERDICTS = {
    "failed": "This run failed.",
    "killed": "This run was stopped before its end; below is what it had done.",
    "running": "This run was still going on when this page was made.",
    "damaged": "The record of this run is damaged.",
}


class ReportError(UsageError):
    """A notebook that can't become a report that is fit to share: the message names the cell."""


def render(run: RunResult, reports: Path | str = "reports") -> Path:
    """Returns the path of the run's report, <reports>/<notebook>/<key>.html, rendered if it isn't already from the same run.

    Raises:
        ReportError: A completed run has a figure without alt text, something would be loaded from elsewhere, the page is too heavy to send, or
            its files changed on the disk.
    """
    if damage := damage_of(run):
        raise ReportError(f"{run.folder} is damaged: {damage.path.name} {damage.why}; the same pbb run makes it again from the store")
    path = Path(reports) / str(run.record["notebook"]) / f"{run.folder.name}.html"
    source = source_of(run)
    if not is_current(path, source):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page(run, source))
    return path


def publish(path: Path, notebook: str, reports: Path | str = "reports") -> Path:
    """Returns <reports>/<notebook>.html, a copy of the report at `path`: the one to open and share."""
    target = Path(reports) / f"{notebook}.html"
    text = at_top(path.read_text(encoding="utf-8"))
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        write_text(target, text)
    return target


def at_top(page: str) -> str:
    """Returns the page for the folder of the index, one above where it was rendered for."""
    return page.replace('href="../index.html"', 'href="index.html"')


def source_of(run: RunResult) -> str:
    """Returns the hash of everything that a report is made from; equal hash, equal report."""
    digest = hashlib.sha256(json.dumps(run.record, sort_keys=True).encode() + run.headline.encode())
    made_by = [Path(module) for module in (__file__, markup.__file__, images.__file__)]
    for path in [run.notebook, *sorted(p for p in TEMPLATES.rglob("*") if p.is_file()), *made_by]:
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:32]


def is_current(path: Path, source: str) -> bool:
    """Returns whether the page at `path` was made from that source."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8") as file:
        # nbconvert reorders attributes.
        return any(f'"{source}"' in tag for tag in re.findall(r"<meta [^>]*pbb-source[^>]*>", file.read(4000)))


def page(run: RunResult, source: str = "") -> str:
    """Returns the whole HTML of a run's report."""
    from nbconvert import HTMLExporter

    notebook = _notebook_of(run)
    strict = run.status == "completed"  # a failed run must be readable whatever it holds
    contents = _prepare(notebook, strict)
    weights = Counter({cell.metadata["pbb"]["where"]: _bytes(cell.metadata["pbb"].get("html", cell.source)) for cell in notebook.cells})
    exporter = HTMLExporter(
        template_name="pbb",
        extra_template_basedirs=[str(TEMPLATES)],
        filters={"safe_text": safe, "show_output": functools.partial(_weighed_output, weights=weights, strict=strict)},
    )
    body, _ = exporter.from_notebook_node(notebook, resources={"pbb": _page_data(run, notebook, contents, source)})
    loads = markup.external_loads(body)
    if loads:
        raise ReportError(f"the report of {run.record['notebook']} would load {loads[0]} from elsewhere; put it into the notebook as data")
    if strict and _bytes(body) > HEAVIEST:
        ((where, most),) = weights.most_common(1)
        raise ReportError(
            f"the report of {run.record['notebook']} has {_bytes(body) / 1e6:.1f} MB, more than the {HEAVIEST / 1e6:.0f} MB that are easy to send; "
            f"{where} alone has {most / 1e6:.1f} MB: show fewer rows there, or a figure of fewer points"
        )
    return body


def _bytes(text: str) -> int:
    return len(text.encode())


def _notebook_of(run: RunResult) -> Any:
    import nbformat

    if run.notebook.is_file():
        return read_notebook(run.notebook)
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("Nothing was run: there is no notebook in the run's folder.")])


def _prepare(notebook: Any, strict: bool) -> list[tuple[str, str]]:
    """Gives every cell what the template needs (`metadata.pbb`), drops widgets; returns the contents as (anchor, text)."""
    contents, number = [], 0
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        injected = "injected-parameters" in cell.metadata.get("tags", [])
        cell.metadata["pbb"] = {"index": number, "injected": injected, "where": f"cell {number + 1} (id {cell.get('id', '?')})"}
        if cell.cell_type == "markdown":
            text = re.sub(r"\A\s*#\s+[^\n]*\n?", "", cell.source) if number == 0 else cell.source  # the card has the title
            cell.metadata["pbb"]["html"] = markdown(text, cell.metadata["pbb"]["where"], strict=strict, attachments=cell.get("attachments"))
            contents += re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', cell.metadata["pbb"]["html"])
        elif cell.cell_type == "code":
            cell.metadata["pbb"].update(source=visible(cell.source), summary=_summary(cell.source))
        number += not injected
    return [(anchor, re.sub(r"<[^>]+>", "", text).replace("&amp;", "&")) for anchor, text in contents]


def _summary(source: str) -> str:
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith(("import ", "from ", "%"))]
    return (lines or source.splitlines() or [""])[0]


def _page_data(run: RunResult, notebook: Any, contents: list[tuple[str, str]], source: str) -> dict[str, Any]:
    record = run.record
    facts = [
        ("Started", str(record.get("started", ""))[:16].replace("T", " ") + " UTC"),
        ("Took", duration(record.get("seconds"))),
        ("Hardware", hardware_line(record.get("hardware", {}))),
        ("Commit", record.get("commit") or "not in a git checkout"),
        *([("Trained by", trained_line(record["trained_by"]))] if record.get("trained_by") else []),
    ]
    profile = record.get("parameters", {}).get("profile")
    values = record.get("parameters", {})
    return {
        "record": {"title": record["notebook"], "package": "", "key": run.folder.name, **record},
        "source": source,
        "description": record.get("question", ""),
        "headline": run.headline,
        "verdict": VERDICTS.get(run.status, ""),
        "error": run.error if record.get("error") else "",
        "facts": ([("Profile", profile)] if profile else []) + facts,
        "changed": ", ".join(f"{name} = {shortened(repr(values[name]), 300)}" for name in record.get("changed", [])),
        "parameters": _parameter_rows(notebook, values, record.get("changed", [])),
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        "contents": contents,
        "css": css(),
    }


def _parameter_rows(notebook: Any, values: dict[str, Any], changed: list[str]) -> list[dict[str, Any]]:
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    known = parse_cell(cells[0].source) if cells else {}
    return [
        {
            "name": name,
            "value": shortened(repr(value), 300),
            "changed": name in changed,
            "type": known[name].type_name if name in known else "",
            "comment": known[name].comment if name in known else "",
        }
        for name, value in values.items()
    ]


@functools.cache
def css() -> str:
    """Returns the style sheet of every page: ours, and the colours of code in light and dark."""
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="xcode").get_style_defs(".highlight")  # every colour readable on --code, as in github-dark
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return (TEMPLATES / "page.css").read_text(
        encoding="utf-8"
    ) + f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n.highlight pre {{ background: var(--code); }}"


def _weighed_output(output: Any, cell: Any, *, weights: Counter[str], strict: bool) -> str:
    """Returns the HTML of one output after adding its bytes to those of its cell."""
    html = _output(output, cell, strict=strict)
    weights[cell.metadata["pbb"]["where"]] += _bytes(html)
    return html


def _output(output: Any, cell: Any, *, strict: bool) -> str:
    """Returns the HTML of one output; of several forms the richest that is safe is taken."""
    where = cell.metadata["pbb"]["where"]
    if output.output_type == "stream":
        return _stream(output)
    if output.output_type == "error":
        trace = shortened(_plain("\n".join(output.traceback) or f"{output.ename}: {output.evalue}"), LONGEST_OUTPUT)
        return f'<div class="output error"><pre>{safe(trace)}</pre></div>'
    data = {kind: "".join(value) if isinstance(value, list) else value for kind, value in output.data.items()}
    if MIME in data and "done" not in json.loads(data[MIME]).get("status", "done") and strict:
        return ""
    if any(kind in data for kind in images.FORMS):
        return _image(data, output.metadata, where, strict)
    if WIDGET in data and _BAR.search(data.get("text/plain", "")):
        return ""
    if strict:
        _check_stands_still(data, where)
    if "text/html" in data and len(data["text/html"]) <= LARGEST:
        return _html(data["text/html"], where, strict)
    if "text/markdown" in data and len(data["text/markdown"]) <= LARGEST:
        return f'<div class="output prose">{markdown(data["text/markdown"], where, strict=strict)}</div>'
    if "text/latex" in data and len(data["text/latex"]) <= LONGEST_OUTPUT:
        return f'<div class="output">{markup.mathml(data["text/latex"].strip().strip("$"), block=True)}</div>'
    return f'<div class="output"><pre>{safe(shortened(_plain(data.get("text/plain", "")), LONGEST_OUTPUT))}</pre></div>' if data else ""


def _check_stands_still(data: dict[str, str], where: str) -> None:
    """Raises for a widget or a plot that needs a kernel or a script, and has no form beside it that a page can show."""
    moving = next((kind for kind in data if kind.startswith(INTERACTIVE) and kind != MIME), None)
    html = data.get("text/html", "<script")
    if moving and "text/markdown" not in data and ("<script" in html.lower() or len(html) > LARGEST):
        raise ReportError(
            f"{where} has a widget that a page can't show ({visible(shortened(moving, 100))}); give it a text/html form without scripts, "
            "or show a figure or a table"
        )


def _html(text: str, where: str, strict: bool) -> str:
    _check_loads(text, where, strict)
    _check_alt(text, where, strict)
    return f'<div class="output">{markup.sanitise(text)}</div>'


def _stream(output: Any) -> str:
    lines = [line.rstrip("\r").split("\r")[-1] for line in _plain(output.text).split("\n")]
    text = "\n".join(line for line in lines if not line.startswith(PREFIX)).strip("\n")
    kind = "stderr" if output.name == "stderr" else "stdout"
    return f'<div class="output {kind}"><pre>{safe(shortened(text, LONGEST_OUTPUT))}</pre></div>' if text.strip() else ""


def _plain(text: str) -> str:
    """Returns the text without terminal colours; any other control character is spelled out later by `safe`."""
    return re.sub(r"\x1b\[[0-9;:]*m", "", text)


def _image(data: dict[str, str], metadata: Any, where: str, strict: bool) -> str:
    details = [metadata.get(kind, {}) for kind in images.FORMS if hasattr(metadata.get(kind, {}), "get")]
    alt = next((text for detail in details if (text := str(detail.get("alt", "")).strip())), "")
    if not alt and strict:
        raise ReportError(f"{where} has a figure without alt text; display it with notebook.show(figure, alt='what it shows')")
    try:
        kind, encoded = images.smallest(data)  # as an image, an SVG can't run scripts or load anything
    except images.BrokenImage as error:
        if strict:
            raise ReportError(f"{where} has a figure that can't be drawn: {error}") from error
        return f'<div class="output"><pre>{safe(alt or "a figure that cannot be drawn")}</pre></div>'
    width = next((int(detail["width"]) for detail in details if isinstance(detail.get("width"), (int, float))), 0)
    size = f' width="{width}"' if width else ""
    alt = safe(alt or "figure without description")
    kind_of = "output figure large" if width > WIDE else "output figure"
    return f'<div class="{kind_of}"><img src="data:{kind};base64,{encoded}" alt="{alt}"{size}></div>'


def _check_loads(text: str, where: str, strict: bool) -> None:
    loads = markup.external_loads(text)
    if loads and strict:
        raise ReportError(f"{where} would load {visible(loads[0])} from elsewhere; put it into the notebook as data")


def _check_alt(text: str, where: str, strict: bool) -> None:
    if strict and markup.images_without_alt(text):
        raise ReportError(f"{where} has an image without alt text; write ![what it shows](…) or alt='what it shows'")


def markdown(text: str, where: str, *, strict: bool = True, attachments: Any = None) -> str:
    """Returns Markdown as safe HTML: formulas as MathML, headings with anchors, attached images as data.

    Raises:
        ReportError: An image has no alt text, is not there or lies elsewhere (`strict` only); `where` is named.
    """
    from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath

    formulas: list[str] = []
    mark = f"formula{secrets.token_hex(8)}x"  # not to be guessed: a text may hold anything else

    class Renderer(IPythonRenderer):
        def heading(self, text: str, level: int, **_: Any) -> str:
            anchor = re.sub(r"[^\w]+", "-", re.sub(r"<[^>]+>|&\w+;", "", text).lower()).strip("-")
            return f'<h{level} id="{anchor}">{text}</h{level}>\n'

        def block_math(self, body: str) -> str:
            return self._formula(body, block=True)

        def inline_math(self, body: str) -> str:
            return self._formula(body, block=False)

        def latex_environment(self, name: str, body: str) -> str:
            return self._formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", block=True)

        def _formula(self, body: str, *, block: bool) -> str:
            formulas.append(markup.mathml(body.strip(), block=block))
            return f"{mark}{len(formulas) - 1}{mark}"

        def image(self, text: str, url: str, title: str | None = None) -> str:
            try:
                return super().image(text, url, title)
            except InvalidNotebook as error:
                if strict:
                    raise ReportError(f"{where} shows an image that is not attached to it: {visible(error)}") from error
                return safe(text)

    renderer = Renderer(escape=False, attachments=attachments or {})
    html = MarkdownWithMath(renderer=renderer).render(text)
    _check_loads(html, where, strict)
    _check_alt(html, where, strict)
    return re.sub(f"{mark}(\\d+){mark}", lambda match: formulas[int(match.group(1))], markup.sanitise(html))
