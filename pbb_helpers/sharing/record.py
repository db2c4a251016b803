"""From a finished run to what the repository shows: figures/ with its CSV and provenance, and the numbers in README.md or figures/README.md.

Nothing is typed by hand: `pbb record` copies and writes, a test holds both pages to the CSV.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pbb_helpers.analysis.labels import in_order, label
from pbb_helpers.analysis.statistics import highest_floor
from pbb_helpers.disk import plain_errors, write_text
from pbb_helpers.programs import UsageError
from pbb_helpers.provenance import hardware_line
from pbb_helpers.running.run_record import RunResult, damage_of
from pbb_helpers.sharing import claims
from pbb_helpers.training.model_files import shipped

MODES = ("direct", "cot", "recall", "recall_description", "source", "description")
FLOORED = ("direct", "cot", "recall", "recall_description")


def record(run: RunResult, figures: Path, readme: Path, variant: str = "") -> list[Path]:
    """Returns the files written: the run's figures below `figures`/<notebook>/, run.json there, and the pages that show its numbers.

    Its block stands in `readme` or in `figures`/README.md; the tables of all claims and of all models in either. A run of the same notebook
    that asks something else of it, with other parameters, is a variant: it is recorded beside the notebook's own run, as <notebook>_<variant>.

    Raises:
        UsageError: The run is not finished, no page has a block for it, or the variant cannot name a folder.
    """
    if variant and not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", variant):
        raise UsageError(f"variant {variant[:80]!r}; give small letters and digits, words joined by one underscore")
    name = "_".join(filter(None, [run.record["notebook"], variant]))
    if run.status != "completed":
        raise UsageError(f"{run.folder} is {run.status}; only a completed run can be recorded")
    if damage := damage_of(run):
        raise UsageError(f"{run.folder} is damaged: {damage.path.name} {damage.why}; the same pbb run makes it again from the store")
    if run.record.get("fingerprint", {}).get("package") == "changed during the run":
        raise UsageError(f"{run.folder}: the package was edited during the run, so no one version made it; run it again")
    folder = figures / name
    with plain_errors(readme):
        pages = {page: page.read_text(encoding="utf-8") for page in (readme, figures / "README.md") if page.is_file()}
    its = page_of(name, pages)  # before anything that was recorded is replaced
    for path in [run.folder / "claims.csv", *(path for path in figures.glob("*/claims.csv") if path.parent.name != name)]:
        if path.is_file():
            claims.require_valid(path)
    fresh = figures / f".{name}.new"
    with plain_errors(folder):
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            _copy(run, fresh)
            shutil.rmtree(folder, ignore_errors=True)  # only now that all of the new record is there
            os.replace(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        written = sorted(path for path in folder.rglob("*") if path.is_file())
        tables = {"claims": claims.markdown(figures), "tally": claims.tally(figures), "models": models_table()}
        for page, text in pages.items():
            inner = tables | ({name: block(folder)} if page == its else {})
            for mark in (mark for mark in inner if f"<!-- {mark}: begin -->" in text):
                text = with_block(text, mark, inner[mark])
            if text != pages[page]:
                write_text(page, text)
                written.append(page)
    return written


def _copy(run: RunResult, folder: Path) -> None:
    """Makes `folder` with what is kept of a run: figures, tables, and run.json."""
    if not (run.folder / "figures").is_dir():
        raise UsageError(f"{run.folder} has no figures; only a notebook that saves some can be recorded")
    folder.mkdir(parents=True)
    found = {path: path.relative_to(run.folder / "figures") for path in (run.folder / "figures").rglob("*")}
    found |= {path: path.relative_to(run.folder) for path in (run.folder / "tables").rglob("*")}
    found |= {run.folder / name: Path(name) for name in ("results.csv", "claims.csv", "floors.csv")}
    for path, place in found.items():
        if path.is_file():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / place)
    kept = ("notebook", "parameters", "changed", "started", "seconds", "commit", "hardware", "versions", "trained_by")
    facts = {key: run.record.get(key) for key in kept} | {"reused": run.from_store, "headline": run.headline}
    write_text(folder / "run.json", json.dumps(facts, indent=1) + "\n")


def page_of(name: str, pages: Mapping[Path, str]) -> Path:
    """Returns the one page whose text has the marks of `name`."""
    found = [page for page in pages if f"<!-- {name}: begin -->" in pages[page]]
    if len(found) != 1:
        raise UsageError(
            f"{'no page has a' if not found else 'more than one page has the'} block <!-- {name}: begin --> … <!-- {name}: end -->; "
            f"give README.md or figures/README.md these two lines, once, where the numbers shall stand"
        )
    with_block(pages[found[0]], name, "")
    return found[0]


def with_block(text: str, name: str, inner: str) -> str:
    """Returns the text with what stands between the marks of `name` replaced.

    >>> with_block("a\\n<!-- x: begin -->\\nold\\n<!-- x: end -->\\nb", "x", "new")
    'a\\n<!-- x: begin -->\\nnew\\n<!-- x: end -->\\nb'
    """
    begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise UsageError(f"the page has no single block {begin.strip()} … {end.strip()}; add these two lines where the numbers shall stand")
    return text[: text.index(begin) + len(begin)] + inner + text[text.index(end) :]


def block(folder: Path) -> str:
    """Returns what a page shows of the recorded run in `folder`, as Markdown: headline, table, origin."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    table = pd.read_csv(folder / "results.csv", dtype={"seed": str})
    if "accuracy" not in table:
        return "\n".join([f"> {run['headline']}", "", *plain_table(table), "", f"{_recorded(run)}, {_origin(run)}."])
    overall = table[table["seed"] == "all"]
    seeds = ", ".join(sorted(set(table["seed"]) - {"all"}, key=int))
    parts = [f"> {html.escape(run['headline'], quote=False)}", ""]
    for group in [name for name in ("without_io", "with_io") if name in set(overall["group"])]:
        said, table = f"Accuracy in % on {label(group)} programs (95 % interval over programs)", _markdown(overall, group)
        if group == "with_io":  # beside the point of most notebooks: folded away
            parts += [f"<details><summary>{said}</summary>", "", *table, "", "</details>", ""]
        else:
            parts += [f"{said}:", "", *table, ""]
    asked = overall[(overall["group"] == "without_io") & overall["mode"].isin(FLOORED)]
    parts.append(
        f"{_recorded(run)}, seeds {seeds}, n = {asked['n'].min()} answers over {asked['n_programs'].min()} programs per cell of {label('without_io')}, "
        f"{_floor(folder)}{_origin(run)}."
    )
    return "\n".join(parts)


def _floor(folder: Path) -> str:
    """Returns the highest floor that holds in every mode, in words; "" where the run left none."""
    path = folder / "floors.csv"
    if not path.is_file():
        return ""
    name, accuracy = highest_floor(pd.read_csv(path, dtype={"seed": str}))
    return f"floor {100 * accuracy:.0f} % ({name}), "


ASKED = {
    "code in context: direct, step by step, recalled": "",
    "words in context": "description_",
    "ciphers in context": "ciphers_",
    "calls of two others in context": "calls_",
}
"""What a model was asked when it was made, as the head of a column, and how its card names that."""


def models_table() -> str:
    """Returns the shipped models from their cards, as Markdown: what they are, and what they can run when it stands in the prompt."""
    head = ["model", "parameters", "tokens", "code : words", *ASKED, "made in"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, card in shipped().items():
        facts = card.facts
        mixed = facts["settings"]["mix"]
        language = mixed.get("language", 0.0) * (1 - mixed.get("calls", 0.0))  # programs that call others are in code
        scores = [[facts["in_context"].get(prefix + mode) for mode in ("direct", "cot", "recall")] for prefix in ASKED.values()]
        asked = ["–" if None in some else ", ".join(f"{100 * value:.0f}" for value in some) + " %" for some in scores]
        size = [f"{facts['parameters'] / 1e6:.1f}M", f"{facts['tokens'] / 1e6:.0f}M"]
        mix = f"{round(10 * (1 - language))} : {round(10 * language)}"
        made = f"{60 * facts['hours']:.0f} min, {facts['hardware']}"
        lines.append(f"| {' | '.join([f'`{name}`', *size, mix, *asked, made])} |")
    n = sorted({card.facts["in_context_n"] for card in shipped().values()})
    return "\n".join(
        [
            *lines,
            "",
            f"n = {', '.join(map(str, n))} fresh programs of one and two statements, or ones that call two such, one input each; every token of the gold answer right.",
        ]
    )


def plain_table(table: pd.DataFrame) -> list[str]:
    """Returns a table that is not of accuracies as Markdown, numbers to three digits.

    >>> plain_table(pd.DataFrame({"measure": ["speed"], "n": [5], "median": [3.14159], "goal": [None]}))
    ['| measure | n | median | goal |', '|---|---|---|---|', '| speed | 5 | 3.14 | – |']
    """
    lines = [f"| {' | '.join(table.columns)} |", "|---" * len(table.columns) + "|"]
    return lines + [f"| {' | '.join(_plain(value) for value in row)} |" for row in table.itertuples(index=False)]


def _plain(value: Any) -> str:
    if pd.isna(value):
        return "–"
    return str(value) if isinstance(value, str) else f"{value:g}" if float(value).is_integer() else f"{value:.3g}"


def _recorded(run: dict[str, Any]) -> str:
    return f"Recorded run: `pbb run notebooks/{run['notebook']}.ipynb {_parameters(run)}`"


def _origin(run: dict[str, Any]) -> str:
    """Returns how long a run took, and how much of its work that time does not hold: a rerun on a full store takes almost none."""
    reused = run.get("reused") or 0
    beside = f"; {100 * reused:.0f} % of the work was read from the store, so that this is no measure of speed" if reused else ""
    return f"{run['seconds'] / 60:.1f} minutes on {hardware_line(run['hardware'])}{beside}"


def _markdown(table: pd.DataFrame, group: str) -> list[str]:
    """Returns the table of a group: a line per condition, within each value of what the notebook varies (the columns before the condition)."""
    axes = list(table.columns[: table.columns.get_loc("condition")])
    table = table[table["group"] == group]
    modes = [mode for mode in MODES if mode in set(table["mode"])]
    lines = [f"| {' | '.join([*axes, 'condition', *map(label, modes)])} |", "|---" * (len(axes) + len(modes) + 1) + "|"]
    for values, part in table.groupby(axes, sort=False) if axes else [((), table)]:
        cells = {(r.condition, r.mode): r for r in part.itertuples()}
        for condition in in_order(part["condition"]):
            shown = [*map(_plain, values), label(condition), *(_cell(cells.get((condition, mode))) for mode in modes)]
            lines.append(f"| {' | '.join(shown)} |")
    return lines


def _cell(row: Any) -> str:
    if row is None:
        return "–"
    interval = "no interval" if pd.isna(row.low) else f"{100 * row.low:.0f} to {100 * row.high:.0f}"
    return f"{100 * row.accuracy:.0f} ({interval})"


def _parameters(run: dict[str, Any]) -> str:
    """Returns the profile and what else was changed, as options; how many processes there were changes no number."""
    names = [name for name in run["parameters"] if name == "profile" or (name in (run.get("changed") or ()) and name != "processes")]
    values = {name: run["parameters"][name] for name in names}
    said = {name: (",".join(map(str, v)) or "'[]'") if isinstance(v, list) else v for name, v in values.items()}
    return " ".join(f"-p {name} {v}" for name, v in said.items() if v is not None)
