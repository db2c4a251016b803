"""How many I/O pairs one source is worth: where accuracy against the number of pairs crosses that of source alone, and what both cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pbb_helpers.analysis import intervals, statistics
from pbb_helpers.data.conditions import condition
from pbb_helpers.data.demonstrations import SHOWN, different_pairs
from pbb_helpers.data.demonstrations import pairs as drawn_pairs
from pbb_helpers.data.documents import Example
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.stages import build_stage
from pbb_helpers.programs import UsageError, written

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pbb_helpers.data.settings import Stage

SOURCE = "proactive"


def crossing(counts: Sequence[int], accuracies: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Returns the number of pairs at which accuracy reaches `level`, for each row; -inf or inf where it does so below or beyond all of them.

    More pairs are taken to be worth no less, so each row is first made never to fall (isotonic regression): otherwise the first noisy point
    above the level would be the crossing. Between two numbers accuracy is taken to be straight in the logarithm; beyond them nothing is.

    Args:
        counts: Numbers of pairs, rising.
        accuracies: (rows, counts).
        level: (rows,) what is to be reached.

    >>> crossing([1, 4, 16], np.array([[0.0, 0.2, 0.4], [0.5, 0.6, 0.7], [0.0, 0.0, 0.1]]), np.array([0.3, 0.2, 0.2])).round(6).tolist()
    [8.0, -inf, inf]
    """
    logs, found = np.log(np.asarray(counts, dtype=float)), np.empty(len(level))
    for row, (curve, aim) in enumerate(zip(accuracies, level, strict=True)):
        rising = _rising(curve)
        first = int(np.searchsorted(rising, aim))  # the first that is not below the level
        if first == len(rising):
            found[row] = math.inf
        elif first == 0:
            found[row] = counts[0] if rising[0] == aim else -math.inf
        else:
            part = (aim - rising[first - 1]) / (rising[first] - rising[first - 1])
            found[row] = math.exp(logs[first - 1] + part * (logs[first] - logs[first - 1]))
    return found


def _rising(curve: Sequence[float]) -> np.ndarray:
    """Returns the nearest curve that never falls, by least squares (pool adjacent violators).

    >>> _rising([0.1, 0.4, 0.2, 0.5]).round(6).tolist()
    [0.1, 0.3, 0.3, 0.5]
    """
    blocks: list[tuple[float, int]] = []
    for point in curve:
        mean, size = float(point), 1
        while blocks and blocks[-1][0] > mean:
            last, length = blocks.pop()
            mean, size = (mean * size + last * length) / (size + length), size + length
        blocks.append((mean, size))
    return np.repeat([mean for mean, _ in blocks], [size for _, size in blocks])


def worth(rows: pd.DataFrame, counts: Sequence[int], *, modes: Sequence[str], score: str = "score", floor: float = -1.0, group: str = "without_io",
          n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:  # fmt: skip
    """Returns, for each mode, how many I/O pairs the source is worth, with a 95 % interval: programs are resampled, the same in every condition.

    Args:
        rows: The answers; of `robustness.with_own_way` for mode "own".
        counts: The numbers of pairs, rising; each has its condition io_only(k, uniform).
        modes: Ways of answering.
        score: "score" (exactly right) or "letters" (a column with shares).
        floor: What needs no knowledge of the program: a source that is not above it with its whole interval is worth no number of pairs.

    Returns:
        mode, source (the accuracy of proactive), pairs, low, high (-inf below the fewest pairs, inf beyond the most; NaN where the source is not
        above the floor, NaN ends with fewer programs than can be resampled), said (the three in words), n, n_programs, n_seeds.

    Raises:
        UsageError: The conditions were not asked the same questions.
    """
    frame = statistics.prepare(rows[rows["group"] == group])
    lines = []
    for mode in modes:
        cells = [
            frame[(frame["mode"] == mode) & (frame["condition"] == name)] for name in (SOURCE, *(f"io_only({k}, uniform)" for k in counts))
        ]
        asked = [sorted(zip(*(cell[column] for column in ("seed", "program", "input")), strict=True)) for cell in cells]
        if not asked[0] or any(some != asked[0] for some in asked):
            raise UsageError(f"{SOURCE} and io_only were not asked the same questions in mode {mode}; run all with the same sizes")
        tables = [statistics.per_program(cell, score) for cell in cells]
        once = _curves(np.ones((1, len(tables[0][0]))), tables)
        pairs = float(crossing(counts, once[:, 1:], once[:, 0])[0])
        low = high = math.nan
        if len(tables[0][0]) >= intervals.MIN_PROGRAMS:
            drawn = _curves(intervals.bootstrap_weights(len(tables[0][0]), n_boot, seed), tables)
            drawn = drawn[~np.isnan(drawn).any(axis=1)]
            # An end is one of the resamples' own numbers: between one and infinity there is nothing to interpolate.
            low, high = np.quantile(crossing(counts, drawn[:, 1:], drawn[:, 0]), [0.025, 0.975], method="nearest").tolist()
        said = f"{in_words(pairs, counts)} (95 % interval: {in_words(low, counts)} to {in_words(high, counts)})"
        said = f"{in_words(pairs, counts)} (no interval: few programs)" if math.isnan(low) else said
        if once[0, 0] <= floor or (not math.isnan(low) and np.quantile(drawn[:, 0], 0.025) <= floor):
            pairs, low, high, said = math.nan, math.nan, math.nan, "nothing: not above the floor"
        lines.append({"mode": mode, "source": float(once[0, 0]), "pairs": pairs, "low": low, "high": high,
                      "said": said, "n": len(cells[0]), "n_programs": len(tables[0][0]), "n_seeds": len(tables[0][2])})  # fmt: skip
    return pd.DataFrame(lines)


def _curves(weights: np.ndarray, tables: Sequence[tuple[np.ndarray, np.ndarray, list[str]]]) -> np.ndarray:
    """Returns the accuracy of each condition in each resample, (resamples, conditions): the mean of the seeds' means."""
    return np.stack([intervals.mean_of_seeds(weights @ totals, weights @ n) for totals, n, _ in tables], axis=1)


def in_words(pairs: float, counts: Sequence[int]) -> str:
    """Returns a number of pairs in words; one that was not reached is not made up.

    >>> in_words(11.6, [1, 128]), in_words(float("inf"), [1, 128]), in_words(float("-inf"), [1, 128])
    ('12', 'more than 128', 'less than 1')
    """
    if math.isinf(pairs):
        return f"more than {counts[-1]}" if pairs > 0 else f"less than {counts[0]}"
    return f"{pairs:.0f}" if pairs >= 10 else f"{pairs:.2g}"


def headline(
    table: pd.DataFrame, counts: Sequence[int], floor: float, spent: pd.DataFrame, most: float, known: pd.DataFrame, mode: str = "own"
) -> str:
    """Returns one line on what a source is worth, from the table of `worth`; where the source is not above the floor, that it has no worth to state.

    Args:
        table: From `worth`.
        counts: The numbers of pairs.
        floor: What needs no knowledge of the program.
        spent: From `costs`.
        most: The accuracy of the most pairs, without which "more than the most" says little.
        known: From `learned`: pairs that were not learned themselves say little about what pairs are worth.
        mode: Way of answering.
    """
    line = table[table["mode"] == mode].iloc[0]
    behind = f"n = {line['n']} answers over {line['n_programs']} programs, {line['n_seeds']} seed{'' if line['n_seeds'] == 1 else 's'}"
    level = (
        f"source after stage 1 answers {100 * line['source']:.0f} % of calls of w/o IO programs in recall mode (floor {100 * floor:.0f} %)"
    )
    if math.isnan(line["pairs"]):
        return f"{level}: not above the floor, so that it is worth no number of examples; {behind}"
    name = f"io_only({counts[-1]}, uniform)"
    different, shown = spent.set_index("condition").loc[name, "different pairs"], known.set_index("condition").loc[name, "shown"]
    return (f"{level}: one source is worth {line['said']} I/O pairs answered directly, stage 1 not counted; drawn with repeats, {counts[-1]} pairs are "
            f"{different:.0f} different ones and answer {100 * most:.0f} %, of the pairs that were shown {100 * shown:.0f} %; {behind}")  # fmt: skip


def costs(plan: Experiment, counts: Sequence[int]) -> pd.DataFrame:
    """Returns what source and pairs cost, with the first seed: a line per condition.

    Columns: condition; stage 1, stage 2 (documents trained on); different pairs (I/O pairs of a w/o IO program that differ, mean); times each
    (how often a pair, or the source, is trained on, mean); tokens of a program (tokens of what somebody would have to write down of one w/o
    IO program: its source, or inputs and outputs, each different pair once); tokens of stage 1 (supervised tokens of the different documents
    of all w/ IO programs, templates not counted); with stage 1 (tokens of a program, and its share of those of stage 1); weight in the loss
    (of the last stage; see `weight_in_the_loss`).
    """
    tokenizer = _tokenizer(plan)
    count = _counter(tokenizer)
    dataset = plan.dataset(plan.seeds[0])

    shown = build_stage(condition(SOURCE).stages[0], dataset, plan.budget, count).examples
    first = sum(count(e.completion) for e in _distinct([e for e in shown if e.group == "with_io"]))
    n, lines = len(dataset.without_io), []
    for name in (SOURCE, *(f"io_only({k}, uniform)" for k in counts), f"io_alone({counts[-1]}, uniform)"):
        *before, last = condition(name).stages
        stages = [build_stage(spec, dataset, plan.budget, count) for spec in (*before, last)]
        trained_on = stages[-1].examples
        inputs = drawn_pairs(last, dataset) if last.pairs else {}
        own = (
            [f"{written(x)} {p.run(x)}" for p in dataset.without_io for x in set(inputs[p.name])]
            if inputs
            else [p.source for p in dataset.without_io]
        )
        program, paid = sum(map(count, own)), first if before else 0
        lines.append({
            "condition": name, "stage 1": sum(len(stage.examples) for stage in stages[:-1]), "stage 2": len(trained_on), "different pairs": different_pairs(last, dataset),
            "times each": _times_each(trained_on),
            "tokens of a program": program / n, "tokens of stage 1": paid, "with stage 1": (program + paid) / n, "weight in the loss": weight_in_the_loss(stages[-1], tokenizer),
        })  # fmt: skip
    return pd.DataFrame(lines)


def weights(plan: Experiment) -> pd.DataFrame:
    """Returns, with the first seed, what the last stage of each condition is about: equal documents are not equal weight.

    Columns: condition, documents, different pairs (I/O pairs of a w/o IO program that differ, mean), times each (how often a pair, or the source,
    is trained on, mean), supervised tokens, weight in the loss (see `weight_in_the_loss`).
    """
    tokenizer = _tokenizer(plan)
    count = _counter(tokenizer)
    dataset, lines = plan.dataset(plan.seeds[0]), []
    for chosen in (condition(name) for name in plan.conditions):
        if chosen.stages:
            last = chosen.stages[-1]
            stage = build_stage(last, dataset, plan.budget, count)
            examples = stage.examples
            lines.append({"condition": chosen.name, "documents": len(examples), "different pairs": different_pairs(last, dataset), "times each": _times_each(examples), "supervised tokens": sum(count(e.completion) for e in examples),
                          "weight in the loss": weight_in_the_loss(stage, tokenizer)})  # fmt: skip
    return pd.DataFrame(lines)


def weight_in_the_loss(stage: Stage, tokenizer: PreTrainedTokenizerBase) -> float:
    """Returns which share of a step's loss is about w/o IO programs, on average over the steps, in [0, 1].

    Every step counts the same, its loss is the mean over the supervised tokens of its batch, and documents of like length share a batch.
    So short pairs beside long answers weigh more than their share of the stage's tokens.
    """
    from pbb_helpers.training import batches, models, train

    rows = [(example.group == "without_io", *map(len, models.encode(tokenizer, example))) for example in stage.examples]
    windows = batches.by_length(rows, stage.settings.batch_size, train.WINDOW, length=lambda row: row[1] + row[2])
    shares = [sum(n for own, _, n in batch if own) / sum(n for _, _, n in batch) for batch in itertools.chain.from_iterable(windows)]
    return sum(shares) / len(shares)


def _tokenizer(plan: Experiment) -> PreTrainedTokenizerBase:
    from pbb_helpers.training import models

    return models.load_tokenizer(plan.model, trust_remote_code=plan.trust_remote_code)


def _counter(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], int]:
    from pbb_helpers.training import models

    return models.token_counter(tokenizer)


def _times_each(examples: Sequence[Example]) -> float:
    """Returns how often each different thing that is said of a w/o IO program, a pair or a source, is trained on, on average."""
    said = [(e.program, e.kind, e.input) for e in examples if e.group == "without_io"]
    return len(said) / max(1, len(set(said)))


def learned(table: pd.DataFrame, spent: pd.DataFrame) -> pd.DataFrame:
    """Returns whether pairs were learned at all: direct answers on pairs that were trained on, beside those on held-out inputs.

    Args:
        table: From `statistics.results`, with the rows of group "shown".
        spent: From `costs` or `weights`.

    Returns:
        condition, different pairs, times each, and of both kinds of question the accuracy in [0, 1] with its interval: shown, shown_low,
        shown_high, held_out, held_out_low, held_out_high.
    """
    direct = table[(table["seed"] == "all") & (table["mode"] == "direct")]
    found = spent.set_index("condition")[["different pairs", "times each"]]
    found = found[found["different pairs"] > 0]
    for name, group in (("shown", SHOWN), ("held_out", "without_io")):
        its = direct[direct["group"] == group].set_index("condition")[["accuracy", "low", "high"]]
        found = found.join(its.set_axis([name, f"{name}_low", f"{name}_high"], axis=1), how="inner")
    return found.reset_index()


def _distinct(examples: Sequence[Example]) -> list[Example]:
    """Returns one document for each program, kind and input: templates apart, the others say the same again."""
    return list({(e.program, e.kind, e.input): e for e in examples}.values())


def with_stage1(spent: pd.DataFrame, table: pd.DataFrame, counts: Sequence[int], *, beats_alone: bool, mode: str = "own") -> str:
    """Returns what is left of a source's worth when the data of stage 1 is counted, in words, in tokens of different documents.

    An upper bound on how many programs pay stage 1 back: the pairs that a source is worth are those of a model that went through stage 1 too,
    and pairs without it are only known, by `beats_alone`, not to reach the source.

    Args:
        spent: From `costs`.
        table: From `worth`.
        counts: The numbers of pairs.
        beats_alone: Whether the source is shown to be above pairs that take the budget of both stages: else stage 1 buys nothing.
    """
    costs_of = spent.set_index("condition")
    source, first = (float(costs_of.loc[SOURCE, column]) for column in ("tokens of a program", "tokens of stage 1"))
    most = costs_of.loc[f"io_only({counts[-1]}, uniform)"]
    pair = float(most["tokens of a program"] / most["different pairs"])
    pairs = float(table[table["mode"] == mode].iloc[0]["pairs"])
    said = f"A source has {source:.0f} tokens, an I/O pair {pair:.1f}, input and output; stage 1 has {first:,.0f} in different documents."
    if math.isnan(pairs):
        return f"{said} As the source is not above the floor, stage 1 is not paid back."
    if pairs < 0:
        return f"{said} As a source is worth less than {counts[0]} pairs, stage 1 is never paid back."
    if not beats_alone:
        return f"{said} As the source is not shown to beat pairs with the budget of both stages and no stage 1, no payback is claimed."
    beyond = math.isinf(pairs)
    different = [float(costs_of.loc[f"io_only({k}, uniform)", "different pairs"]) for k in counts]
    saved = float(np.interp(min(pairs, counts[-1]), counts, different)) * pair - source
    if saved <= 0:
        so_many = f"{counts[-1]}, the most that were tried," if beyond else in_words(pairs, counts)
        return f"{said} {so_many} pairs have no more tokens than one source: counted in tokens, no saving is shown."
    programs = f"at most {math.ceil(first / saved):,} programs"
    return f"{said} Each program given by its source saves {saved:.0f} tokens{' or more' if beyond else ''}, so that stage 1 is paid back after {programs}."
