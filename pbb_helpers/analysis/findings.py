"""What the numbers show, in plain words, each sentence said only where it holds, with n, interval, floor and ceiling beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from pbb_helpers.analysis.labels import in_order, label
from pbb_helpers.analysis.statistics import Difference, above_floor, failures, highest_floor, paired, prepare

CONTROLS = ("stage1_only", "source_only", "shuffled_source")
EXECUTION = ("direct", "cot", "recall", "recall_description")
MODE_WORDS = {
    "direct": "direct mode",
    "cot": "chain of thought",
    "recall": "recall mode",
    "recall_description": "recall of the description",
}


class Evidence(NamedTuple):
    """What every sentence draws on."""

    table: pd.DataFrame
    frame: pd.DataFrame
    floors: pd.DataFrame | None
    focus: str
    n_boot: int
    seed: int


def sentences(table: pd.DataFrame, rows: pd.DataFrame, *, floors: pd.DataFrame | None = None, focus: str = "proactive", n_boot: int = 2000,
              seed: int = 0) -> list[str]:  # fmt: skip
    """Returns the findings about condition `focus`, from the table of `statistics.results` and the rows it was made of.

    The floor is named where `floors` (of `statistics.floors`) is given, the ceiling where `in_context` was run. A condition or mode that was
    not run is not spoken of.
    """
    evidence = Evidence(table, prepare(rows), floors, focus, n_boot, seed)
    modes = _modes(evidence)
    said = [_execution(evidence, mode) for mode in modes]
    said += [_recall(evidence, kind) for kind in ("source", "description")]
    said += [_failures(rows, focus)]
    said += [_rival(evidence, mode, "mixture") for mode in modes]
    said += [_forgetting(evidence, mode) for mode in modes]
    said += [_parsing(evidence), _caution(evidence, modes)]
    return [sentence for sentence in said if sentence]


def headline(table: pd.DataFrame, rows: pd.DataFrame, *, floors: pd.DataFrame | None = None, focus: str = "proactive", n_boot: int = 2000,
             seed: int = 0) -> str:  # fmt: skip
    """Returns one line: the accuracy of `focus` on w/o IO programs in the mode with the clearest lead over its controls, and whether it holds."""
    evidence = Evidence(table, prepare(rows), floors, focus, n_boot, seed)
    against = {mode: _against_controls(evidence, mode) for mode in _modes(evidence)}
    against = {mode: found for mode, found in against.items() if found}
    if not against:
        return f"{focus} was not run together with any of its controls ({', '.join(CONTROLS)}): no comparison"
    best = max(against, key=lambda mode: (min(d.apart and d.mean > 0 for d in against[mode]), min(d.mean for d in against[mode])))
    holds = all(d.apart and d.mean > 0 for d in against[best])
    line = cell(table, focus, best, "without_io")
    assert line is not None
    controls = ", ".join(f"{d.b} {_percent(_accuracy(evidence, d.b, best))}" for d in against[best])
    choice = f", the best of {len(against)} modes" if len(against) > 1 else ""
    verdict = "intervals of the differences clear of zero" if holds else "not shown above all of these"
    return (f"{focus} answers {_percent(line['accuracy'])} ({_span(line)}) of calls of w/o IO programs in {MODE_WORDS[best]}{choice}; {controls}: "
            f"{verdict}{_frame_of_reference(evidence, best, 'without_io')}; {line['n_programs']} programs, {_seeds(line)}")  # fmt: skip


def contrast(rows: pd.DataFrame, a: str, b: str, *, modes: Sequence[str] = EXECUTION, n_boot: int = 2000, seed: int = 0) -> str:
    """Returns one line: condition `a` against `b` on the same questions about w/o IO programs, mode by mode."""
    frame = prepare(rows)
    if not {a, b} <= set(frame["condition"]):
        return f"{a} and {b} were not both run: no comparison"
    found = [paired(frame, a, b, mode=mode, group="without_io", n_boot=n_boot, seed=seed) for mode in modes]
    said = "; ".join(f"{MODE_WORDS[d.mode]} {_points(d)}{'' if d.apart else ' (not shown)'}" for d in found)
    seeds = "1 seed" if found[0].n_seeds == 1 else f"{found[0].n_seeds} seeds"
    return f"{a} minus {b} on {label('without_io')} programs: {said}; n = {found[0].n} pairs over {found[0].n_programs} programs, {seeds}"


def alt_text(table: pd.DataFrame, *, floors: pd.DataFrame | None = None, modes: Sequence[str] = EXECUTION,
             groups: Sequence[str] = ("without_io", "with_io")) -> str:  # fmt: skip
    """Returns a figure of accuracy by condition in words: every mean and interval, so that who cannot see it misses no number."""
    said, modes = ["Accuracy by condition, with 95 % intervals over programs."], [mode for mode in modes if mode in set(table["mode"])]
    for group in groups:
        for mode in modes:
            cells = [cell(table, name, mode, group) for name in in_order(table["condition"])]
            parts = [f"{line['condition']} {_percent(line['accuracy'])} ({_span(line)})" for line in cells if line is not None]
            said += [f"{label(group)} programs, {label(mode)}: {', '.join(parts)}."] if parts else []
    if floors is not None:
        best = ", ".join(
            f"{label(mode)} {_percent(value)} ({label(name)})" for mode in modes for name, value in [highest_floor(floors, mode)]
        )
        said.append(f"Floor on {label('without_io')} programs: {best}.")
    return " ".join(said)


def _execution(evidence: Evidence, mode: str) -> str:
    line = cell(evidence.table, evidence.focus, mode, "without_io")
    if line is None:
        return ""
    said = f"On {label('without_io')} programs, {evidence.focus} answers {_described(evidence, line, mode)}."
    return " ".join([said, *_verdicts(_against_controls(evidence, mode)), *_floor_verdict(evidence, line)])


def _verdicts(found: Sequence[Difference]) -> list[str]:
    above = [d for d in found if d.apart and d.mean > 0]
    below = [d for d in found if d.apart and d.mean < 0]
    open_ = [d for d in found if not d.apart]
    said = []
    for side, word in ((above, "above"), (below, "below")):
        if side:
            which = "intervals of the paired differences are" if len(side) > 1 else "interval of the paired difference is"
            said.append(f"It is {word} {_listed(side)}: the {which} clear of zero{', every seed agreeing' if side[0].n_seeds > 1 else ''}.")
    if open_:
        said.append(f"No difference from {_listed(open_)} is shown.")
    return said


def _floor_verdict(evidence: Evidence, line: pd.Series) -> list[str]:
    if evidence.floors is None or math.isnan(line["low"]):
        return []
    name, floor = highest_floor(evidence.floors, line["mode"])
    seeds = above_floor(evidence.table, evidence.floors, evidence.focus, line["mode"])
    if line["low"] > floor and (short := [seed for seed, above in seeds.items() if above <= 0]):
        own = (
            f"in seed {short[0]} it is not above that seed's own"
            if len(short) == 1
            else f"in seeds {', '.join(short)} it is not above their own"
        )
        return [
            f"Its interval lies above the floor of {_percent(floor)} ({name}), but {own}: that it knows the programs is not shown in this mode."
        ]
    if line["low"] > floor:
        return [f"Its interval lies above the floor of {_percent(floor)} ({name})."]
    where = "lies below" if line["high"] < floor else "holds"
    return [f"Its interval {where} the floor of {_percent(floor)} ({name}): that it knows the programs is not shown in this mode."]


def _recall(evidence: Evidence, kind: str) -> str:
    line = cell(evidence.table, evidence.focus, kind, "without_io")
    if line is None:
        return ""
    others = [(name, _accuracy(evidence, name, kind)) for name in CONTROLS]
    compared = ", ".join(f"{name} {_percent(value)}" for name, value in others if not math.isnan(value))
    return (f"Asked for the {kind} of a {label('without_io')} program, {evidence.focus} reproduces it in {_described(evidence, line, kind)}"
            f"{f'; {compared}' if compared else ''}.")  # fmt: skip


def _failures(rows: pd.DataFrame, focus: str) -> str:
    found = failures(rows[rows["condition"] == focus]) if (rows["condition"] == focus).any() else pd.DataFrame()
    if found.empty:
        return ""
    n = found[found["seed"] == "all"].set_index("outcome")["n"]
    wrong = int(n["wrong execution"] + n["wrong recall"])
    if wrong == 0:
        return ""
    return (f"Of the {wrong} wrong answers of {focus} in recall mode, {n['wrong recall']} had already written a wrong source and "
            f"{n['wrong execution']} went wrong in stepping through the right one.")  # fmt: skip


def _rival(evidence: Evidence, mode: str, rival: str) -> str:
    found = _difference(evidence, rival, mode, "without_io")
    if found is None or evidence.focus == rival:
        return ""
    here = f"On {label('without_io')} programs in {MODE_WORDS[mode]}, {rival} ({_percent(_accuracy(evidence, rival, mode))})"
    if not found.apart:
        return f"{here} is not shown to differ from {evidence.focus} ({evidence.focus} minus {rival}: {_points(found)})."
    return f"{here} is {'below' if found.mean > 0 else 'above'} {evidence.focus} ({evidence.focus} minus {rival}: {_points(found)})."


def _forgetting(evidence: Evidence, mode: str) -> str:
    line, found = cell(evidence.table, evidence.focus, mode, "with_io"), _difference(evidence, "stage1_only", mode, "with_io")
    if line is None:
        return ""
    said = f"On {label('with_io')} programs, {evidence.focus} answers {_described(evidence, line, mode)}"
    if found is None:
        return f"{said}."
    verdict = "no change since stage 1 is shown" if not found.apart else f"stage 2 {'raised' if found.mean > 0 else 'lowered'} it"
    return f"{said}: {verdict} (against stage1_only {_points(found)})."


def _parsing(evidence: Evidence) -> str:
    overall = evidence.table[(evidence.table["seed"] == "all") & evidence.table["mode"].isin(EXECUTION)]
    poor = overall[overall["parse_rate"] < 0.95].sort_values("parse_rate")
    if poor.empty:
        return "At least 95 % of the answers can be parsed in every condition, mode and group."
    worst = poor.iloc[0]
    return (f"In {len(poor)} of {len(overall)} cells more than 5 % of the answers cannot be parsed; they count as wrong. Worst: {worst['condition']}, "
            f"{MODE_WORDS[worst['mode']]}, {label(worst['group'])}: {_percent(worst['parse_rate'])} parsed.")  # fmt: skip


def _caution(evidence: Evidence, modes: Sequence[str]) -> str:
    compared = sum(len(_against_controls(evidence, mode)) for mode in modes)
    seeds = evidence.frame[evidence.frame["condition"] == evidence.focus]["seed"].nunique()
    said = "Intervals are 95 %, over programs, with the seeds held"
    said += "; with one seed nothing is known of how another would differ" if seeds < 2 else "; the t interval over seeds is in the table"
    return f"{said}. {compared} comparisons with controls are made, each at 95 %, uncorrected." if compared else f"{said}."


def _modes(evidence: Evidence) -> list[str]:
    return [mode for mode in EXECUTION if cell(evidence.table, evidence.focus, mode, "without_io") is not None]


def cell(table: pd.DataFrame, condition: str, mode: str, group: str) -> pd.Series | None:
    found = table[
        (table["condition"] == condition) & (table["mode"] == mode) & (table["group"] == group) & (table["seed"].astype(str) == "all")
    ]
    return None if found.empty else found.iloc[0]


def _accuracy(evidence: Evidence, condition: str, mode: str) -> float:
    line = cell(evidence.table, condition, mode, "without_io")
    return math.nan if line is None else float(line["accuracy"])


def _difference(evidence: Evidence, other: str, mode: str, group: str) -> Difference | None:
    if any(cell(evidence.table, name, mode, group) is None for name in (evidence.focus, other)):
        return None
    return paired(evidence.frame, evidence.focus, other, mode=mode, group=group, n_boot=evidence.n_boot, seed=evidence.seed)


def _against_controls(evidence: Evidence, mode: str) -> list[Difference]:
    found = (_difference(evidence, control, mode, "without_io") for control in CONTROLS if control != evidence.focus)
    return [difference for difference in found if difference is not None]


def _described(evidence: Evidence, line: pd.Series, mode: str) -> str:
    words = f" in {MODE_WORDS[mode]}" if mode in MODE_WORDS else " of answers"
    of_seeds = evidence.table[[*("condition", "mode", "group")]].eq(line[["condition", "mode", "group"]]).all(axis=1)
    each = evidence.table[of_seeds & (evidence.table["seed"].astype(str) != "all")]["accuracy"]
    spread = f": {', '.join(f'{100 * value:.0f}' for value in each)} %" if 1 < len(each) <= 5 else ""
    interval = f"95 % interval {_span(line)}" if not math.isnan(line["low"]) else "no interval: one program"
    return (f"{_percent(line['accuracy'])}{words} ({interval}, n = {line['n']} answers over {line['n_programs']} programs, {_seeds(line)}{spread}"
            f"{_frame_of_reference(evidence, mode, line['group'])})")  # fmt: skip


def _frame_of_reference(evidence: Evidence, mode: str, group: str) -> str:
    if mode not in EXECUTION:
        return ""
    said = ""
    if evidence.floors is not None and group == "without_io":
        said += f"; floor {_percent(highest_floor(evidence.floors, mode)[1])}"
    ceiling = cell(evidence.table, "in_context", mode, group)
    return said + (f"; ceiling {_percent(ceiling['accuracy'])} with the source in context" if ceiling is not None else "")


def _listed(found: Sequence[Difference]) -> str:
    names = [f"{d.b} ({_points(d)})" for d in found]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _points(found: Difference) -> str:
    return points(found.mean, found.low, found.high)


def points(mean: float, low: float, high: float) -> str:
    """Returns a difference of shares, with its interval, in words.

    >>> points(0.081, 0.04, 0.12)
    '+8 points, +4 to +12'
    """
    interval = "no interval" if math.isnan(low) else f"{signed(low)} to {signed(high)}"
    return f"{signed(mean)} points, {interval}"


def signed(share: float) -> str:
    """One decimal where rounding would show an end of an interval as zero when it is not."""
    digits = 1 if 0 < abs(share) < 0.005 else 0
    return f"{100 * share:+.{digits}f}".replace("-", "−") if share else "0"


def _span(line: pd.Series) -> str:
    return "no interval" if math.isnan(line["low"]) else f"{100 * line['low']:.0f} to {100 * line['high']:.0f} %"


def _percent(share: float) -> str:
    """One decimal where rounding would turn almost none or almost all into none or all."""
    digits = 1 if 0 < share < 0.005 or 0.995 <= share < 1 else 0
    return f"{100 * share:.{digits}f} %"


def _seeds(line: pd.Series) -> str:
    return "1 seed" if line["n_seeds"] == 1 else f"{line['n_seeds']} seeds"
