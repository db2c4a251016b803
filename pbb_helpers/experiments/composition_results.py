"""Compositions against their parts: the product of the parts' own accuracies on the very inputs that occur, and where a composition breaks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from pbb_helpers.analysis import findings, intervals, statistics, traces, verdicts
from pbb_helpers.analysis.labels import label
from pbb_helpers.data import demonstrations
from pbb_helpers.data.compositions import KINDS, SHOWN, kind
from pbb_helpers.data.documents import execution
from pbb_helpers.data.plan import Experiment
from pbb_helpers.experiments.questions import calls_asked, floors
from pbb_helpers.programs import Program

EVERY_KIND = (SHOWN, *KINDS)
MODES = ("direct", "cot", "recall")
MEASURES = ("composed", "product", "inner", "outer")
"""Accuracy of the composition; product of those of its parts; of the inner part; of the outer part at what the inner one truly returns."""
PLACES = ("right", "own source", "inner call", "inner part", "outer call", "value passed on", "outer part")
"""Where the first wrong line of a generated execution stands; "own source" in recall mode only, "value passed on" where the outer part is called by its name, but not with what the inner one returned."""


def beside_parts(rows: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Returns the answers about compositions, each with its kind and what its parts were worth in the same condition, seed and mode.

    Columns beside those of `rows`: kind, inner, outer (the parts' own scores in [0, 1], asked by themselves at the inputs that they get in
    this question), product (inner times outer), place (of the first wrong line, see `first_wrong`; missing in mode "direct").
    """
    programs, kinds = _programs(experiment)
    # At the inputs of I/O pairs that were shown, parts are not asked.
    calls = rows[rows["input"].notna() & (rows["group"] != demonstrations.SHOWN)]
    scores = calls.groupby(["condition", "seed", "mode", "program", "input"])["correct"].mean().to_dict()
    composed = calls[[bool(programs[key].calls) for key in zip(calls["seed"], calls["program"], strict=True)]].reset_index(drop=True)
    lines = []
    for row in composed.itertuples():
        program = programs[row.seed, row.program]
        inner, outer = (scores[row.condition, row.seed, row.mode, part.name, x] for part, x in program.called(int(row.input)))
        place = None if row.mode.endswith("direct") else first_wrong(program, int(row.input), row.mode, row.generated)
        lines.append((kinds[row.seed, row.program], float(inner), float(outer), float(inner * outer), place))
    return composed.join(pd.DataFrame(lines, columns=["kind", "inner", "outer", "product", "place"]))


def products(answers: pd.DataFrame, *, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Returns compositions against the product of their parts, a line per kind, condition and mode.

    The product is taken question by question and then averaged: P(inner right at x) · P(outer right at g(x)). So parts that are right on the same questions
    count as such, and "independent" failures of the parts are not assumed. A composition is the cluster.

    Args:
        answers: From `beside_parts`.
        n_boot: Resamples of compositions.
        seed: Of the resampling.

    Returns:
        kind, condition, mode, n (questions), n_programs (compositions), n_seeds, composed, composed_low, composed_high, inner, outer,
        product, product_low, product_high, difference (composed - product), low, high (95 % of the difference), apart (the interval excludes
        zero and every seed agrees), seed_least, seed_most, composed_least, composed_most (over seeds, of the difference and of what was composed), seed_low, seed_high,
        composed_seed_low, composed_seed_high (95 % t intervals over seeds of the same two), n_both (questions whose parts are both right), given_both (accuracy on these; NaN where there are none),
        executed (share of answers that are right line by line: an answer may be right by chance; NaN for direct ones), own_source (share that begin with the composition's own source, of which
        the product knows nothing; NaN but in recall mode).
    """
    lines = []
    for (name, condition, mode), cell in answers.groupby(["kind", "condition", "mode"], sort=False):
        frame = pd.concat([_measure(cell, measure) for measure in MEASURES], ignore_index=True)
        table = statistics.results(frame, n_boot=n_boot, seed=seed, by=["condition"])
        found = table[table["seed"] == "all"].set_index("condition")
        difference = statistics.difference(frame, "composed", "product", mode=mode, group=name, n_boot=n_boot, seed=seed)
        by_seed = table[(table["condition"] == "composed") & (table["seed"] != "all")]["accuracy"]
        both = cell[cell["product"] == 1]
        lines.append({
            "kind": name, "condition": condition, "mode": mode, "n": difference.n, "n_programs": difference.n_programs, "n_seeds": difference.n_seeds,
            **{measure: found.loc[measure, "accuracy"] for measure in MEASURES},
            **{f"{measure}_{end}": found.loc[measure, end] for measure in MEASURES[:2] for end in ("low", "high")},
            "difference": difference.mean, "low": difference.low, "high": difference.high, "apart": difference.apart,
            "seed_least": min(difference.seed_means), "seed_most": max(difference.seed_means), "composed_least": by_seed.min(), "composed_most": by_seed.max(),
            "seed_low": difference.seed_low, "seed_high": difference.seed_high,
            **dict(zip(("composed_seed_low", "composed_seed_high"), intervals.t_interval(list(by_seed)), strict=True)),
            "n_both": len(both), "given_both": both["correct"].astype(float).mean(),
            "executed": float((cell["place"] == "right").mean()) if cell["place"].notna().all() else math.nan,
            "own_source": float((cell["place"] != "own source").mean()) if mode.endswith("recall") else math.nan,
        })  # fmt: skip
    return pd.DataFrame(lines)


def _measure(cell: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Returns the questions with one measure as their score, in the columns of answers."""
    score = cell["correct"] if measure == "composed" else cell[measure]
    return cell.assign(condition=measure, group=cell["kind"], correct=score.astype(float))


def true_lines(program: Program, x: Any, way: str) -> list[tuple[str, str]]:
    """Returns the lines of the true execution of a composition, each with its place, of `PLACES`; `way` is "cot" or "recall"."""
    true = [("own source", line) for line in program.source.split("\n")] if way == "recall" else []
    for which, (part, value) in zip(("inner", "outer"), program.called(x), strict=True):
        true += [(f"{which} call", f"{part.name}({value})")]
        true += [(f"{which} part", line) for line in execution(part, value, way).split("\n")]
    return true


def first_wrong(program: Program, x: Any, mode: str, generated: str) -> str:
    """Returns where the first line stands in which a generated execution of a composition differs from the true one; one of `PLACES`.

    >>> from pbb_helpers.data.compositions import compose
    >>> g, f = (Program(n, "arithmetic", f"def {n}(x):\\n    x = x {op}\\n    return x", 1) for n, op in (("g", "+ 3"), ("f", "* 2")))
    >>> first_wrong(compose("h", f, g), 5, "cot", "g(5)\\nx = 5 + 3 = 8\\nreturn 8\\nf(9)\\nx = 9 * 2 = 18\\nreturn 18")
    'value passed on'
    >>> first_wrong(compose("h", f, g), 5, "cot", "g(5)\\nx = 5 + 3 = 8\\nreturn 8\\ng(8)\\nx = 8 * 2 = 16\\nreturn 16")
    'outer call'
    """
    true = true_lines(program, x, mode.removeprefix("in_context_"))
    lines = generated.rstrip().split("\n")
    for number, (place, line) in enumerate(true):
        if number >= len(lines) or lines[number] != line:
            called = place == "outer call" and number < len(lines) and lines[number].startswith(line.partition("(")[0] + "(")
            return "value passed on" if called else place
    return "right" if len(lines) == len(true) else "outer part"


def places(answers: pd.DataFrame) -> pd.DataFrame:
    """Returns how many executions of each kind, condition and mode go wrong where.

    Columns kind, condition, mode, place, n, share, low, high (95 % Wilson on the number of compositions).
    """
    lines = []
    for cell, some in answers[answers["place"].notna()].groupby(["kind", "condition", "mode"], sort=False):
        counts, programs = some["place"].value_counts(), traces.number_of_programs(some)
        shares = {place: counts.get(place, 0) / len(some) for place in PLACES}
        lines += [(*cell, place, int(counts.get(place, 0)), share, *intervals.wilson(share, programs)) for place, share in shares.items()]
    return pd.DataFrame(lines, columns=["kind", "condition", "mode", "place", "n", "share", "low", "high"])


def floors_by_kind(experiment: Experiment) -> pd.DataFrame:
    """Returns what can be had of w/o IO compositions without knowing them: columns kind, floor, n, accuracy, means over seeds.

    To the floors of `questions.floors` come two that know a part too much: the inner part's value as the answer, and the outer part run
    on the composition's own input.
    """
    table = floors(experiment, by=["kind"])
    lines = []
    for seed in experiment.seeds:
        dataset = experiment.dataset(seed)
        for program, x in calls_asked(experiment, dataset)["without_io"]:
            if program.calls:
                (inner, _), (outer, value) = program.called(x)
                alone = {"inner part alone": value, "outer part alone": outer.run(x)}
                lines += [(kind(program, dataset), name, seed, guess == program.run(x)) for name, guess in alone.items()]
    shortcuts = (
        pd.DataFrame(lines, columns=["kind", "floor", "seed", "accuracy"])
        .groupby(["kind", "floor", "seed"])["accuracy"]
        .agg(["size", "mean"])
    )
    overall = shortcuts.groupby(["kind", "floor"]).agg(n=("size", "sum"), accuracy=("mean", "mean")).reset_index()
    return pd.concat([table[table["seed"] == "all"][overall.columns], overall], ignore_index=True)


def highest(table: pd.DataFrame, name: str) -> float:
    """Returns the highest floor of a kind, from `floors_by_kind`; NaN for one that has none."""
    return float(table[table["kind"] == name]["accuracy"].max())


class Expected(NamedTuple):
    """What was expected of a condition's compositions of a kind against their product, or their floor, before the run.

    `against` is "product" or "floor"; `expected` as in `verdicts.Prediction`.
    """

    text: str
    condition: str
    kind: str
    mode: str
    against: str
    expected: str


def claims(expected: Sequence[Expected], table: pd.DataFrame, floors: pd.DataFrame) -> pd.DataFrame:
    """Returns what came of each expectation, in the columns of `verdicts.claims`; the effect is the distance from the product or the floor.

    That a condition is not above its floor says nothing of composing where the product is not above it either: such a line could not fail, and `came_true` is "-".
    The margin is that of any other null: a floor of some hundred questions is not known to two points.

    Args:
        expected: Written before the run.
        table: From `products`.
        floors: From `floors_by_kind`.
    """
    lines = []
    for e in expected:
        cell = table[(table["condition"] == e.condition) & (table["kind"] == e.kind) & (table["mode"] == e.mode)]
        found = verdicts.NOT_RUN if cell.empty else _claim(e, cell.iloc[0], floors)
        empty = (
            e.against == "floor" and e.expected == "not above" and not cell.empty and cell.iloc[0]["product_low"] <= highest(floors, e.kind)
        )
        came = "-" if empty else verdicts.came_true(e.expected, found["verdict"], found["low"], found["high"])
        lines.append({"claim": f"{e.text} (against its {e.against})", "expected": e.expected} | found | {"came_true": came})
    return pd.DataFrame(lines, columns=list(verdicts.CLAIM))


def _claim(e: Expected, line: pd.Series, floors: pd.DataFrame) -> dict[str, Any]:
    counts = {name: line[name] for name in ("n", "n_programs", "n_seeds")}
    if e.against == "product":
        return {
            "verdict": verdicts.verdict(line["low"], line["high"], (line["seed_least"], line["seed_most"])),
            "effect": line["difference"],
            "low": line["low"],
            "high": line["high"],
            "seed_low": line["seed_low"],
            "seed_high": line["seed_high"],
        } | counts
    floor = highest(floors, e.kind)
    columns = {"effect": "composed"} | {end: f"composed_{end}" for end in ("low", "high", "seed_low", "seed_high")}
    ends = {name: line[column] - floor for name, column in columns.items()}
    # A kind has too few questions in one seed for a floor of its own: every seed is held against that of all.
    return (
        {"verdict": verdicts.verdict(ends["low"], ends["high"], (line["composed_least"] - floor, line["composed_most"] - floor))}
        | ends
        | counts
    )


def sources(rows: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Returns how often the source of a composition is reproduced when it is asked for: kind, condition, n, n_programs, accuracy, low, high."""
    programs, kinds = _programs(experiment)
    asked = rows[rows["mode"] == "source"]
    keys = list(zip(asked["seed"], asked["program"], strict=True))
    own = asked.assign(kind=[kinds[key] for key in keys])[[bool(programs[key].calls) for key in keys]]
    table = statistics.results(own, by=["kind", "condition"])
    return table[table["seed"] == "all"][["kind", "condition", "n", "n_programs", "accuracy", "low", "high"]].reset_index(drop=True)


def sentences(table: pd.DataFrame, floors: pd.DataFrame, *, condition: str = "proactive") -> list[str]:
    """Returns what the table of `products` shows of a condition, a sentence per kind and mode of answering without a source in the prompt."""
    said = []
    for name in EVERY_KIND:
        for mode in MODES:
            cell = table[(table["condition"] == condition) & (table["kind"] == name) & (table["mode"] == mode)]
            for _, line in cell.iterrows():
                top = table[(table["condition"] == "in_context") & (table["kind"] == name) & (table["mode"] == mode)]["composed"]
                given = f", and {100 * line['given_both']:.0f} % where both are right (n = {line['n_both']})" if line["n_both"] else ""
                frame = f"; floor {100 * highest(floors, name):.0f} %" if name in KINDS else ""
                frame += f"; untuned with all sources in its prompt {100 * top.iloc[0]:.0f} %" if len(top) else ""
                verdict = (
                    f"{'above' if line['difference'] > 0 else 'below'} the product"
                    if line["apart"]
                    else "no difference from the product is shown"
                )
                said.append(f"{condition}, {label(mode)}, {label(name)}: {_percent(line, 'composed')}, product of its parts {100 * line['product']:.0f} % "
                            f"({_points(line)}): {verdict}{given}{frame}; n = {line['n']} questions over {line['n_programs']} compositions, "
                            f"{line['n_seeds']} seed{'' if line['n_seeds'] == 1 else 's'}.")  # fmt: skip
    return said


def headline(table: pd.DataFrame, *, condition: str = "proactive", mode: str = "recall") -> str:
    """Returns one line: each kind of w/o IO composition beside the product of its parts in one mode."""
    cells = table[(table["condition"] == condition) & (table["mode"] == mode)].set_index("kind")
    if cells.empty:
        return f"{condition} was not asked in {label(mode)}"
    said = [
        f"{label(name).removeprefix('composition of ')} {_percent(line, 'composed')} against a product of {100 * line['product']:.0f} % "
        f"({'shown' if line['apart'] else 'not shown'})"
        for name, line in cells.loc[[name for name in KINDS if name in cells.index]].iterrows()
    ]
    first = cells.iloc[0]
    return (f"{condition} on w/o IO compositions, {label(mode)}: {'; '.join(said)}; n = {first['n']} questions over {first['n_programs']} compositions "
            f"a kind, {first['n_seeds']} seed{'' if first['n_seeds'] == 1 else 's'}")  # fmt: skip


def recorded(table: pd.DataFrame, floors: pd.DataFrame, reproduced: pd.DataFrame, *, condition: str = "proactive") -> pd.DataFrame:
    """Returns what figures/README.md shows: a line per kind and mode of one condition, in percent, with ceiling, floor and the share of sources reproduced."""
    known = reproduced[reproduced["condition"] == condition].set_index("kind")["accuracy"].to_dict()
    shown = table[(table["condition"] == condition) & table["mode"].isin(MODES)].copy()
    top = table[table["condition"] == "in_context"].set_index(["kind", "mode"])["composed"].to_dict()
    numbers = {
        "right": shown["composed"], "right line by line": shown["executed"], "own source first": shown["own_source"], "product of its parts": shown["product"], "difference": shown["difference"], "low": shown["low"],
        "high": shown["high"], "floor": [highest(floors, name) for name in shown["kind"]],
        "untuned, sources in its prompt": [top.get(key) for key in zip(shown["kind"], shown["mode"], strict=True)],
        "source reproduced": [known.get(name) for name in shown["kind"]],
    }  # fmt: skip
    words = {
        "composition": shown["kind"].map(label),
        "mode": shown["mode"].map(label),
        "n": shown["n"],
        "compositions": shown["n_programs"],
    }
    in_percent = {
        f"{name}, %": (100 * pd.Series(list(values), index=shown.index, dtype=float)).round(1) for name, values in numbers.items()
    }
    order = {name: i for i, name in enumerate(EVERY_KIND)}
    return (
        pd.DataFrame(words | in_percent)
        .loc[shown.sort_values("kind", key=lambda names: names.map(order), kind="stable").index]
        .reset_index(drop=True)
    )


def _programs(experiment: Experiment) -> tuple[Mapping[tuple[int, str], Program], Mapping[tuple[int, str], str]]:
    programs, kinds = {}, {}
    for seed in experiment.seeds:
        dataset = experiment.dataset(seed)
        for program in dataset.with_io + dataset.without_io:
            programs[seed, program.name], kinds[seed, program.name] = program, kind(program, dataset)
    return programs, kinds


def _points(line: pd.Series) -> str:
    return findings.points(line["difference"], line["low"], line["high"])


def _percent(line: pd.Series, measure: str) -> str:
    interval = (
        "no interval" if pd.isna(line[f"{measure}_low"]) else f"{100 * line[f'{measure}_low']:.0f} to {100 * line[f'{measure}_high']:.0f} %"
    )
    return f"{100 * line[measure]:.0f} % ({interval})"
