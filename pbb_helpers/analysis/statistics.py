"""From the long table of rows (one per answer) to accuracies with intervals, floors, paired differences and a check of completeness.

Seeds are the outer replicate, programs the cluster. `low` and `high` resample programs and hold the seeds; `seed_low` and `seed_high` are
the t interval over the seeds' means and speak of other seeds. Seeds are text in every table ("0", "1", "all"), the same before and after a
CSV. What the numbers show in words is made by `findings`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pbb_helpers.analysis import intervals
from pbb_helpers.data.descriptions import says
from pbb_helpers.programs import UsageError, arguments, from_cell

CELL = ("condition", "mode", "group")
QUESTION = ("seed", "program", "input")
UNTRAINED = (
    "base",
    "in_context",
    "in_context_description",
)  # these have no stage 1, so their answers may be paired with every seed of a trained condition
FLOORS = ("best constant", "identity", "best answer given the input")
OUTCOMES = ("right", "wrong execution", "wrong recall", "right, source wrong")


@dataclass(frozen=True)
class Difference:
    """The accuracy of `a` minus that of `b` on the same questions, in [-1, 1].

    Attributes:
        low, high: 95 % interval of the paired difference over programs, the seeds held; `interval` says by which method.
        seed_low, seed_high: 95 % t interval over the seeds' differences; NaN with one seed.
        seed_means: The difference in each seed.
        n, n_seeds, n_programs: Paired questions, seeds and programs.
        apart: The interval excludes zero and every seed agrees with its sign.
    """

    a: str
    b: str
    mode: str
    group: str
    mean: float
    low: float
    high: float
    interval: str
    seed_low: float
    seed_high: float
    seed_means: tuple[float, ...]
    n: int
    n_seeds: int
    n_programs: int
    apart: bool


def prepare(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with `seed` and `input` as text, `score` (0 or 1), `parsed` (0 or 1) and `cluster` (the program).

    A name stands for one program in all seeds if all seeds ask the same names and the gold answers agree; otherwise each seed's program is
    a cluster of its own.

    Raises:
        UsageError: A column is missing, a seed or a verdict is empty, or there are no rows.
    """
    columns = [*CELL, *QUESTION, "gold", "answer", "correct"]
    missing = [column for column in columns if column not in rows.columns]
    if missing or rows.empty:
        raise UsageError(
            f"{len(rows)} rows with columns {', '.join(map(str, rows.columns))}; {', '.join(missing) or 'at least one row'} is missing"
        )
    for column in ("seed", "correct"):
        if rows[column].isna().any():
            raise UsageError(
                f"{int(rows[column].isna().sum())} rows have no {column}; evaluate them again, an answer is right or wrong in a seed"
            )
    frame = rows.copy()
    frame["seed"] = [_seed_text(seed) for seed in rows["seed"]]
    frame["input"] = ["" if pd.isna(value) else str(value) for value in rows["input"]]
    frame["score"] = rows["correct"].astype(float)
    frame["parsed"] = rows["answer"].notna().astype(float)
    calls = frame[frame["input"] != ""]  # a source's gold may differ between seeds for reasons of the condition
    golds = calls.groupby(["program", "input"])["gold"].nunique()
    reused = set(golds[golds > 1].index.get_level_values("program"))
    if len({frozenset(names) for _, names in frame.groupby("seed")["program"]}) > 1:  # programs drawn by seed: a name in two is chance
        reused = set(frame["program"])
    frame["cluster"] = [f"{seed}/{name}" if name in reused else name for seed, name in zip(frame["seed"], frame["program"], strict=True)]
    return frame


def results(rows: pd.DataFrame, *, n_boot: int = 2000, seed: int = 0, by: Iterable[str] = CELL) -> pd.DataFrame:
    """Returns one line per cell and seed, and one per cell with seed "all": the mean of the seeds' means.

    Args:
        rows: The answers: condition, mode, group, seed, program, input, gold, answer, correct.
        n_boot: Resamples of the cluster bootstrap.
        seed: Of the bootstrap, not of the experiment.
        by: What makes a cell; add "length" for accuracy by program length.

    Returns:
        `by`, seed, n (answers), n_programs, n_seeds, accuracy, low, high, interval ("bootstrap"; "wilson" where fewer than 20 programs, or
        fewer than 5 unlike the rest, leave nothing to resample; "none" and NaN for one program), parse_rate, seed_low, seed_high (NaN with
        one seed, or where all seeds are equal). Accuracies in [0, 1]. The same rows in any order give the same table.
    """
    by = list(by)
    lines = []
    for key, cell in prepare(rows).groupby(by, sort=True):
        totals, counts, seeds = per_program(cell, "score")
        parsed, _, _ = per_program(cell, "parsed")
        for i, name in enumerate(seeds):
            lines.append(
                {**dict(zip(by, key, strict=True)), "seed": name, **_line(totals[:, [i]], counts[:, [i]], parsed[:, [i]], n_boot, seed)}
            )
        lines.append({**dict(zip(by, key, strict=True)), "seed": "all", **_line(totals, counts, parsed, n_boot, seed)})
    return pd.DataFrame(lines)


def floors(train_pairs: pd.DataFrame, eval_pairs: pd.DataFrame, *, by: Iterable[str] = ()) -> pd.DataFrame:
    """Returns what can be had without knowing the program: columns seed, floor, n, accuracy, with seed "all" as the mean over seeds.

    "best constant" is the commonest answer of the w/ IO programs, "identity" the input (of several its first), "best answer given the input" the commonest answer
    of the w/ IO programs at that input. Ties go to the smallest magnitude. Nothing is fitted on `eval_pairs`.

    Args:
        train_pairs: seed, program, input, gold: every w/ IO program at every evaluation input.
        eval_pairs: The same columns: the questions that are scored.
        by: Further columns of `eval_pairs` to score apart, such as "length"; what is fitted stays the same.

    Raises:
        UsageError: An evaluation input, or a seed, does not occur in `train_pairs`.
    """
    train = train_pairs.assign(seed=[_seed_text(s) for s in train_pairs["seed"]], gold=train_pairs["gold"].astype(str))
    pairs = eval_pairs.assign(seed=[_seed_text(s) for s in eval_pairs["seed"]], gold=eval_pairs["gold"].astype(str))
    by, lines = list(by), []
    for (seed, *cell), asked in pairs.groupby(["seed", *by], sort=True):
        known = train[train["seed"] == seed]
        absent = sorted(set(asked["input"]) - set(known["input"]))
        if absent:
            raise UsageError(
                f"no w/ IO answers at the inputs {absent[:5]} in seed {seed}; run every w/ IO program at every evaluation input for the floor"
            )
        by_input = {value: _commonest(group) for value, group in known.groupby("input")["gold"]}
        guesses = (
            [_commonest(known["gold"])] * len(asked),
            [str(arguments(from_cell(x))[0]) for x in asked["input"]],
            [by_input[x] for x in asked["input"]],
        )
        for floor, guess in zip(FLOORS, guesses, strict=True):
            right = float(np.mean(asked["gold"].to_numpy(str) == np.array(guess)))
            lines.append({"seed": seed, **dict(zip(by, cell, strict=True)), "floor": floor, "n": len(asked), "accuracy": right})
    table = pd.DataFrame(lines)
    overall = table.groupby([*by, "floor"], sort=False).agg(n=("n", "sum"), accuracy=("accuracy", "mean")).reset_index().assign(seed="all")
    return pd.concat([table, overall[table.columns]], ignore_index=True)


def with_control(floors: pd.DataFrame, table: pd.DataFrame, control: str = "shuffled_source") -> pd.DataFrame:
    """Returns the floors with one more in each mode of answering: what `control` scores there on w/o IO programs.

    Args:
        floors: Of `floors`; they hold in every mode, and their `mode` becomes "every".
        table: Of `results`.
        control: A condition that was trained on everything but the right source.
    """
    scored = table[(table["condition"] == control) & (table["group"] == "without_io")]
    scored = scored[~scored["mode"].str.startswith("in_context_")]  # there the right source is in the prompt: no floor
    lines = scored[["seed", "n", "accuracy", "mode"]].assign(floor=control)
    return pd.concat([floors.assign(mode="every"), lines], ignore_index=True)[["seed", "mode", "floor", "n", "accuracy"]]


def highest_floor(table: pd.DataFrame, mode: str | None = None) -> tuple[str, float]:
    """Returns the name and the accuracy of the highest floor over all seeds, from the table of `floors` or `with_control`.

    Args:
        table: The floors.
        mode: The mode of answering whose own floors count too; None for those that hold in every mode.
    """
    overall = table[table["seed"] == "all"]
    if "mode" in overall:
        overall = overall[overall["mode"].isin(["every", mode])]
    best = overall.reset_index(drop=True).loc[lambda frame: [frame["accuracy"].idxmax()]].iloc[0]
    return str(best["floor"]), float(best["accuracy"])


def above_floor(table: pd.DataFrame, floors: pd.DataFrame, condition: str, mode: str) -> dict[str, float]:
    """Returns, by seed, how far a condition is above the highest floor on w/o IO programs; a floor without seeds is the same in each.

    Args:
        table: Of `results`.
        floors: Of `floors` or `with_control`.
    """
    name, overall = highest_floor(floors, mode)
    own = floors[(floors["floor"] == name) & (floors["seed"].astype(str) != "all")]
    if "mode" in own:
        own = own[own["mode"].isin(["every", mode])]
    of_seed = dict(zip(own["seed"].astype(str), own["accuracy"].astype(float), strict=True))
    lines = table[(table["condition"] == condition) & (table["mode"] == mode) & (table["group"] == "without_io")]
    by_seed = zip(lines["seed"].astype(str), lines["accuracy"].astype(float), strict=True)
    return {seed: accuracy - of_seed.get(seed, overall) for seed, accuracy in by_seed if seed != "all"}


def difference(rows: pd.DataFrame, a: str, b: str, *, mode: str, group: str, n_boot: int = 2000, seed: int = 0) -> Difference:
    """Returns the difference in accuracy of condition `a` over `b` on the same questions, paired by seed, program and input.

    An untrained condition (`base`, `in_context`) that was run in fewer seeds is paired with every seed.

    Raises:
        UsageError: A condition has no such answers, or the two were not asked the same questions.
    """
    return paired(prepare(rows), a, b, mode=mode, group=group, n_boot=n_boot, seed=seed)


def paired(frame: pd.DataFrame, a: str, b: str, *, mode: str, group: str, n_boot: int = 2000, seed: int = 0) -> Difference:
    """Returns what `difference` returns, from rows that went through `prepare` already."""
    pairs = question_differences(frame, a, b, mode=mode, group=group)
    totals, counts, seeds = per_program(pairs, "score")
    seed_means = tuple(float(x) for x in totals.sum(axis=0) / counts.sum(axis=0))
    scores = {"a": pairs["score_a"], "b": pairs["score_b"], "both": pairs["score_a"] * pairs["score_b"]}
    means = {name: float(score.groupby(pairs["seed"]).mean().mean()) for name, score in scores.items()}
    interval = intervals.difference_interval(totals, counts, **means, n_boot=n_boot, seed=seed)
    above = interval.low > 0 and min(seed_means) > 0
    below = interval.high < 0 and max(seed_means) < 0
    seed_low, seed_high = intervals.t_interval(seed_means, lowest=-1.0)
    return Difference(a, b, mode, group, float(np.mean(seed_means)), *interval, seed_low, seed_high, seed_means,
                      len(pairs), len(seeds), len(totals), above or below)  # fmt: skip


def question_differences(frame: pd.DataFrame, a: str, b: str, *, mode: str, group: str) -> pd.DataFrame:
    """Returns one row per question that both conditions answered: seed, program, input, cluster, score_a, score_b and `score`, their difference.

    Args:
        frame: Rows that went through `prepare`.

    Raises:
        UsageError: A condition has no such answers, or the two were not asked the same questions.
    """
    cell = frame[(frame["mode"] == mode) & (frame["group"] == group)]
    pairs = _pairs(cell[cell["condition"] == a], cell[cell["condition"] == b], a, b, where=f"mode {mode}, group {group}")
    return pairs.assign(score=pairs["score_a"] - pairs["score_b"])


def begins_with(text: str, source: str) -> bool:
    """Returns whether an answer begins with a whole source, or is one.

    >>> begins_with("def f(x):\\n    return x\\nreturn 5", "def f(x):\\n    return x"), begins_with("def f(x):\\n    return x2", "def f(x):\\n    return x")
    (True, False)
    """
    return f"{text}\n".startswith(f"{source}\n")


def failures(rows: pd.DataFrame, *, mode: str = "recall", group: str = "without_io") -> pd.DataFrame:
    """Returns which half failed: columns condition, seed, outcome, n, share (of all answers); all four `OUTCOMES` for each seed and "all".

    In recall mode the source that was written in the answer itself is judged, and in "recall_description" the program that the
    description there says; in other modes the program counts as recalled where its `source` answers of the same condition and seed
    are right in at least half. Conditions without `source` (or `description`) answers are left out.
    """
    frame = prepare(rows)
    kind = "description" if mode == "recall_description" else "source"
    sources = frame[(frame["mode"] == kind) & (frame["group"] == group)]
    known = sources.groupby(["condition", "seed", "program"]).agg(true_source=("gold", "first"), recalled=("score", "mean")).reset_index()
    answers = frame[(frame["mode"] == mode) & (frame["group"] == group)].merge(known, on=["condition", "seed", "program"])
    recalled = answers["recalled"] >= 0.5
    if mode == "recall":
        pairs = zip(answers["generated"], answers["true_source"], strict=True)
        recalled = pd.Series([begins_with(str(text), source) for text, source in pairs], index=answers.index, dtype=bool)
    if mode == "recall_description":
        pairs = zip(answers["generated"], answers["true_source"], strict=True)
        recalled = pd.Series([says(str(text).split("\n")[0], source) for text, source in pairs], index=answers.index, dtype=bool)
    right = answers["score"] == 1
    answers["outcome"] = np.select([right & recalled, ~right & recalled, ~right & ~recalled], OUTCOMES[:3], OUTCOMES[3])
    lines = []
    for (condition, seed), cell in [*answers.groupby(["condition", "seed"]), *(((c, "all"), g) for c, g in answers.groupby("condition"))]:
        for outcome in OUTCOMES:
            n = int((cell["outcome"] == outcome).sum())
            lines.append({"condition": condition, "seed": seed, "outcome": outcome, "n": n, "share": n / len(cell)})
    return pd.DataFrame(lines, columns=["condition", "seed", "outcome", "n", "share"])


def require_complete(rows: pd.DataFrame, *, conditions: Iterable[str], seeds: Iterable[object], modes: Iterable[str] | Mapping[str, Iterable[str]],
                     groups: Iterable[str]) -> None:  # fmt: skip
    """Raises unless every cell has answers, none of them twice, and all conditions answered the same questions.

    `modes` is a list for all conditions, or a mapping from condition to its modes (`in_context` has no `source`).

    Raises:
        UsageError: Names the first few missing cells, duplicated answers, or cells whose questions differ.
    """
    frame = prepare(rows)
    groups, seeds, each = list(groups), [_seed_text(s) for s in seeds], None if isinstance(modes, Mapping) else list(modes)
    wanted = [(c, m, g, s) for c in conditions for m in (each or modes[c]) for g in groups for s in seeds]  # type: ignore[index]
    have = {key: cell for key, cell in frame.groupby([*CELL, "seed"])}
    _refuse(
        "missing: no answers at all",
        [key for key in wanted if key not in have],
        "run these conditions and seeds before looking at any result",
    )
    identity = [*CELL, *QUESTION, *(["prompt"] if "prompt" in frame else [])]
    twice = frame[frame.duplicated(identity)]
    _refuse(
        "duplicated answers",
        list(twice[[*CELL, "seed", "program", "input"]].itertuples(index=False, name=None)),
        "keep one row per question",
    )
    asked = {key: frozenset(zip(have[key]["program"], have[key]["input"], strict=True)) for key in wanted}
    reference: dict[tuple, frozenset] = {}
    for key in wanted:
        reference[key[1:]] = reference.get(key[1:], frozenset()) | asked[key]
    short = [key for key in wanted if asked[key] != reference[key[1:]]]
    _refuse("incomplete: fewer programs or inputs than other conditions", short, "evaluate every condition on the same questions")


def _refuse(problem: str, cells: list[tuple], remedy: str) -> None:
    if cells:
        names = "; ".join("/".join(map(str, cell)) for cell in cells[:5])
        raise UsageError(f"{problem} in {len(cells)} places: {names}{' …' if len(cells) > 5 else ''}; {remedy}")


def _seed_text(seed: object) -> str:
    """A seed is text; a column that once held a gap comes back from a file as 0.0, which is still seed 0."""
    return str(int(seed)) if isinstance(seed, float) and seed.is_integer() else str(seed)


def per_program(cell: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns sums of `column` and numbers of answers, both (programs, seeds), programs and seeds sorted; and the seeds."""
    table = cell.groupby(["cluster", "seed"])[column].agg(["sum", "count"]).unstack("seed", fill_value=0)
    seeds = sorted(map(str, table["sum"].columns), key=lambda seed: (int(seed) if seed.isdigit() else 0, seed))
    return table["sum"][seeds].to_numpy(float), table["count"][seeds].to_numpy(float), seeds


def _line(totals: np.ndarray, counts: np.ndarray, parsed: np.ndarray, n_boot: int, seed: int) -> dict[str, object]:
    asked = counts.sum(axis=1) > 0  # in one seed: the programs of that seed
    totals, counts, parsed = totals[asked], counts[asked], parsed[asked]
    means = totals.sum(axis=0) / counts.sum(axis=0)
    interval = intervals.share_interval(totals, counts, n_boot=n_boot, seed=seed)
    seed_low, seed_high = intervals.t_interval(means)
    return {"n": int(counts.sum()), "n_programs": len(totals), "n_seeds": len(means), "accuracy": float(means.mean()),
            "low": interval.low, "high": interval.high, "interval": interval.kind,
            "parse_rate": float((parsed.sum(axis=0) / counts.sum(axis=0)).mean()), "seed_low": seed_low, "seed_high": seed_high}  # fmt: skip


def _commonest(golds: pd.Series) -> str:
    counts = golds.value_counts()
    tied = [str(gold) for gold in counts[counts == counts.max()].index]
    return min(tied, key=lambda gold: (abs(int(gold)) if gold.lstrip("-").isdigit() else 0, gold))


def _pairs(a: pd.DataFrame, b: pd.DataFrame, name_a: str, name_b: str, where: str) -> pd.DataFrame:
    """One row per question that both answered: seed, cluster, score_a, score_b. Several answers to one question are averaged."""
    for side, name in ((a, name_a), (b, name_b)):
        if side.empty:
            raise UsageError(f"no answers of condition {name!r} in {where}; run it, or leave it out of the comparison")
    keys = [*QUESTION, "cluster"]
    sides = (_in_all_seeds(a, name_a, b), _in_all_seeds(b, name_b, a))
    left, right = (side.groupby(keys)["score"].mean().reset_index() for side in sides)
    pairs = left.merge(right, on=keys, how="outer", suffixes=("_a", "_b"), indicator=True)
    alone = pairs["_merge"].value_counts()
    if alone["both"] < len(pairs):
        raise UsageError(f"{name_a!r} and {name_b!r} were not asked the same questions in {where}: {alone['left_only']} only of the first, "
                         f"{alone['right_only']} only of the second; evaluate both on the same programs and inputs")  # fmt: skip
    return pairs


def _in_all_seeds(side: pd.DataFrame, name: str, other: pd.DataFrame) -> pd.DataFrame:
    """An untrained condition that was run in fewer seeds, on the same programs, stands for all with its first seed."""
    seeds = sorted(set(other["seed"]))
    if name not in UNTRAINED or set(seeds) <= set(side["seed"]):
        return side
    first = side[side["seed"] == min(side["seed"])]
    return pd.concat([first.assign(seed=seed) for seed in seeds])
