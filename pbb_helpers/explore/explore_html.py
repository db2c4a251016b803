"""The HTML that the panels of Explore show: escaped, readable on a light and a dark page, nothing said by colour alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from pbb_helpers.analysis.labels import label
from pbb_helpers.markup import safe, shortened, table_html, visible
from pbb_helpers.programs import written
from pbb_helpers.running.run_record import RunResult

if TYPE_CHECKING:
    from pbb_helpers.explore.talk import Reply, Token

SURE = 0.9  # tokens below this probability are listed with what else was likely
LISTED = 6

# JupyterLab's own colours where there are any, so that both of its themes are followed; else what reads on white.
STYLE = """<style>
.pbb-x { color: var(--jp-ui-font-color1, #1f2328); font-size: 13px; line-height: 1.45; overflow-wrap: anywhere; }
.pbb-x table { border-collapse: collapse; margin: 4px 0; }
.pbb-x th, .pbb-x td { padding: 3px 10px 3px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--jp-border-color2, #ddd); }
.pbb-x th { font-weight: 600; white-space: nowrap; }
.pbb-x td.num, .pbb-x th.num { text-align: right; }
.pbb-x pre { margin: 2px 0; padding: 6px 8px; background: var(--jp-layout-color2, #f3f3f3); color: inherit; border-radius: 4px; line-height: 1.4;
  font: 12px/1.45 var(--jp-code-font-family, monospace); white-space: pre-wrap; }
.pbb-x a { color: var(--jp-content-link-color, #1967d2); text-decoration: underline; }
.pbb-x p { margin: 4px 0; }
.pbb-x .soft { color: var(--jp-ui-font-color2, #57606a); }
.pbb-x .once { white-space: nowrap; }
.pbb-x .long { min-width: 14em; }
.pbb-x .wide { overflow-x: auto; }
.pbb-x .state { font-weight: 600; white-space: nowrap; }
.pbb-x .bad { border-left: 4px solid var(--jp-error-color1, #c62828); padding-left: 8px; }
.pbb-x .wrong { display: block; outline: 1px solid var(--jp-error-color1, #c62828); background: rgba(214, 60, 45, .16); }
.pbb-x .wrong .soft { color: inherit; }
.pbb-x .bar { display: inline-block; width: 80px; height: 7px; margin-right: 6px; background: rgba(128, 128, 128, .3); }
.pbb-x .bar span { display: block; height: 7px; background: var(--jp-brand-color1, #1976d2); }
.pbb-x .side { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 4px 14px; }
.pbb-x .tokens { font: 12px/1.9 var(--jp-code-font-family, monospace); }
.pbb-x .tokens span { border-bottom: 1px solid var(--jp-border-color1, #999); margin-right: 2px; white-space: pre; }
.pbb-x img { max-width: 100%; height: auto; }
</style>"""
MARKS = {"completed": "✓", "running": "▶", "failed": "✗", "killed": "■", "damaged": "!", "queued": "…"}


def page(*parts: str) -> str:
    """Returns the parts as one block in the style of the panels."""
    return f'<div class="pbb-x">{"".join(parts)}</div>'


def text(words: object, *, bad: bool = False) -> str:
    """Returns words as a paragraph."""
    return f'<p class="{"bad" if bad else "soft"}">{safe(words)}</p>'


def image(figure: Figure, alt: str) -> str:
    """Returns a figure as an image that holds its own data, with its alt text."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    width = round(figure.get_figwidth() * 90)  # CSS pixels: letters are as large in every figure
    return f'<img alt="{safe(alt)}" width="{width}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def table(frame: pd.DataFrame) -> str:
    """Returns a table, every cell escaped."""
    return f'<div class="wide">{table_html(frame, rows=100)}</div>'


def runs(lines: pd.DataFrame, shares: Mapping[str, float], *, most: int) -> str:
    """Returns the table of runs.

    Args:
        lines: From `past_runs.table`.
        shares: How far running runs are, in [0, 1], by key.
        most: Lines that are shown; the caption counts the rest.
    """
    head = "".join(f'<th scope="col">{name}</th>' for name in ("state", "notebook", "run", "took", "left", "parameters", "note"))
    body = "".join(_run(line, shares.get(line.run)) for line in lines.head(most).itertuples())
    more = text(f"{most} of {len(lines)} runs; narrow the choice to see the others") if len(lines) > most else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def _run(line: Any, share: float | None) -> str:
    bar = "" if share is None else f'<span class="bar"><span style="width: {100 * share:.0f}%"></span></span>{100 * share:.0f} % '
    state = f'<span class="state">{MARKS.get(line.state, "·")} {safe(line.state)}</span>'
    once = [f'<td class="once">{words}</td>' for words in (state, *map(safe, (line.notebook, line.run, line.took, line.left)))]
    long = [
        f'<td class="long">{words}</td>' for words in (safe(shortened(line.parameters, 300)), f"{bar}{safe(shortened(line.note, 300))}")
    ]
    return f"<tr>{''.join([*once, *long])}</tr>"


def details(run: RunResult, log: Sequence[str]) -> str:
    """Returns what a run is: its title, its state, its parameters, its headline or what went wrong in it, with the last lines of its log."""
    record = run.record
    lines = f"<pre>{safe(chr(10).join(log))}</pre>" if log else ""
    said = text(run.headline) if run.headline else ""
    wrong = text(run.error, bad=True) if run.status not in ("completed", "running") and run.error else ""
    values = ", ".join(f"{name} = {value}" for name, value in record["parameters"].items() if value is not None)
    origin = ", ".join(str(part) for part in (str(record.get("started", ""))[:16].replace("T", " "), record.get("commit")) if part)
    return f"<p><strong>{safe(record.get('title') or record['notebook'])}</strong></p>{said}{wrong}{text(values)}{text(origin)}{lines}"


def link(address: str, words: str) -> str:
    """Returns a link that opens in a tab of its own."""
    return f'<p><a href="{safe(address)}" target="_blank" rel="noopener">{safe(words)}</a></p>'


def marked(generated: str, wrong: int | None) -> str:
    """Returns generated text with the line of that index marked as its first wrong one; one after the last says that it stops there."""
    lines = shortened(generated).split("\n")
    if wrong is not None and wrong >= len(lines):
        lines += [""] * (wrong - len(lines) + 1)
    note = ' <span class="soft">◀ first wrong line</span>'
    ends = ' <span class="soft">◀ stops here, too early</span>'
    shown = [
        f'<span class="wrong">{safe(line)}{note if line else ends}</span>' if i == wrong else f"{safe(line)}\n"
        for i, line in enumerate(lines)
    ]
    return f"<pre>{''.join(shown).rstrip()}</pre>"


def call(row: Mapping[str, Any] | pd.Series) -> str:
    """Returns what an answer is about: the program, with its input where it has one."""
    return f"{row['program']}({written(row['input'])})" if row["input"] is not None else row["program"]


def answer(row: Mapping[str, Any], truth: str | None, error: str, wrong: int | None) -> str:
    """Returns one generated answer beside what would have been right.

    Args:
        row: Of rows.jsonl.
        truth: The whole right answer, its steps included, where it is known.
        error: What the answer is, from `past_runs.first_wrong`.
        wrong: The index of its first wrong line.
    """
    facts = (
        ("asked for", f"{call(row)}, {label(row['mode'])}"),
        ("of", f"{label(row['condition'])}, {label(row['group'])} programs, seed {row['seed']}"),
        ("gold", row["gold"] if "\n" not in row["gold"] else "the source"),
        ("parsed", "–" if row["answer"] is None else row["answer"] if "\n" not in row["answer"] else "a source"),
        ("verdict", _verdict(row, error)),
    )
    lines = "".join(f'<tr><th scope="row">{name}</th><td>{safe(shortened(value, 300))}</td></tr>' for name, value in facts)
    parts = [("asked", f"<pre>{safe(row['prompt'].rstrip())}</pre>")]
    parts += [("right would be", f"<pre>{safe(truth)}</pre>")] if truth is not None else []
    parts += [("generated", marked(row["generated"], wrong))]
    return f"<table>{lines}</table>{_side(parts)}"


def _verdict(row: Mapping[str, Any], error: str) -> str:
    verdict = "right" if row["correct"] else "not parsed" if row["answer"] is None else "wrong"
    if error in ("", f"{verdict} answer"):
        return verdict
    return error if error.startswith(verdict) else f"{verdict}: {error}"


def _side(parts: Sequence[tuple[str, str]]) -> str:
    return f'<div class="side">{"".join(f"<div><strong>{safe(title)}</strong>{html}</div>" for title, html in parts)}</div>'


def reply(reply: Reply, source: str, error: str, wrong: int | None) -> str:
    """Returns source, truth and answer of one question side by side, with the probabilities of its tokens."""
    row = reply.row
    title = f"<h4>{safe(label(row['mode']))}: {safe(_verdict(row, error))}</h4>"
    columns = [
        ("source", f"<pre>{safe(source)}</pre>"),
        ("truth", f"<pre>{safe(reply.example.completion)}</pre>"),
        ("answer", marked(row["generated"], wrong)),
    ]
    return f"{title}{_side(columns)}{tokens(reply.tokens)}"


def tokens(written: Sequence[Token]) -> str:
    """Returns the written tokens, the less sure the redder, and the least sure ones as a list with what else was likely."""
    spans = "".join(
        f'<span style="background: rgba(214, 60, 45, {0.6 * (1 - token.probability):.2f})" title="{safe(_odds(token))}">{_shown(token.text)}</span>'
        for token in written
    )
    doubtful = sorted((token for token in written if token.probability < SURE), key=lambda token: token.probability)
    lines = "".join(f"<li>{safe(_odds(token))}</li>" for token in doubtful[:LISTED])
    more = f" ({LISTED} of {len(doubtful)})" if len(doubtful) > LISTED else ""
    listed = f"<p>least sure{more}:</p><ul>{lines}</ul>" if lines else text(f"every token with a probability of at least {SURE}")
    return f'<div class="tokens">{spans}</div>{listed}'


def _odds(token: Token) -> str:
    others = ", ".join(f"{_line(other)!r} {p:.2f}" for other, p in token.others if p >= 0.005)
    return f"{_line(token.text)!r} {token.probability:.2f}" + (f"; else {others}" if others else "")


def _line(words: str) -> str:
    return visible(words).replace("\n", "⏎")


def _shown(words: str) -> str:
    return safe(words).replace("\n", "⏎\n")
