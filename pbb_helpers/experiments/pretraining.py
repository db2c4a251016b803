"""What notebook 00 shows of a shipped model: its documents, its card, its curve, and what it can run of programs it never saw."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pbb_helpers import notebook
from pbb_helpers.analysis import intervals, reading, robustness, statistics
from pbb_helpers.data.corpus import documents
from pbb_helpers.data.datasets import generator
from pbb_helpers.data.documents import call_document, way_of_answering
from pbb_helpers.families.names import POOL, draw_names
from pbb_helpers.programs import UsageError, did_you_mean, family
from pbb_helpers.training.pretrain import pretrain
from pbb_helpers.training.recipes import LADDER, PretrainSettings

MODES = ("direct", "cot", "recall")
LENGTHS = (1, 2, 3, 4)
MOST_PROGRAMS = POOL // len(LENGTHS)
TOY = PretrainSettings(name="toy", hidden=32, layers=1, intermediate=64, steps=32, batch_size=8, evaluate_every=16, compile=False, threads=1,
                       dtype="float32", questions=20)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a profile of the notebook does.

    Attributes:
        name: The model that is looked at.
        settings: How a model is made here; None when the model is taken as it is.
        n_programs: Fresh programs per number of statements.
        trust_remote_code: Whether Python code that a model brings with it is run.
    """

    name: str
    settings: PretrainSettings | None
    n_programs: int
    trust_remote_code: bool = False

    def facts(self) -> str:
        """Returns the plan in words."""
        made = f"made here in {self.settings.steps:,} steps of {self.settings.batch_size} documents" if self.settings else "as it is"
        return f"{self.settings.name if self.settings else self.name}, {made}; {self.n_programs} fresh programs per number of statements"

    def model(self, progress: Any = None) -> tuple[dict[str, Any] | None, Any]:
        """Returns the card, None of a model that was not pretrained here, and the loaded model, made first if that is the plan."""
        from pbb_helpers.training import models
        from pbb_helpers.training.model_files import find

        if self.settings is None:
            card = find(self.name, trust_remote_code=self.trust_remote_code)[0] / "card.json"
            loaded = models.load(self.name, trust_remote_code=self.trust_remote_code)
            return (json.loads(card.read_text()) if card.is_file() else None), loaded
        made_of = hashlib.sha256(json.dumps(dataclasses.asdict(self.settings), sort_keys=True).encode()).hexdigest()[:8]
        folder = notebook.runs_root() / "pretrain" / f"{self.settings.name}-{self.settings.steps}-{made_of}"
        if not (folder / "card.json").exists():
            pretrain(self.settings, folder, log=lambda line: None, progress=progress)
        return json.loads((folder / "card.json").read_text()), models.load(str(folder))


def plan(values: Mapping[str, Any]) -> Plan:
    """Returns what the parameters of the notebook ask for.

    Raises:
        UsageError: There is no such profile or model, one of another recipe than ours is to be made, or a number is below one.
    """
    from pbb_helpers.training.model_files import find

    kinds = {"n_programs": int | None, "steps": int | None, "seed": int, "trust_remote_code": bool}
    given = notebook.parameters({"profile": ("smoke", "quick", "full"), "model": str} | kinds, values)
    made_anew = given.profile == "full" or given.steps is not None
    if made_anew and given.model not in LADDER:
        raise did_you_mean("model to make", given.model, LADDER)
    if not made_anew:
        find(given.model, trust_remote_code=given.trust_remote_code)
    if any(number is not None and number < 1 for number in (given.n_programs, given.steps)):
        raise UsageError(f"n_programs={given.n_programs}, steps={given.steps}; give at least 1")
    if given.n_programs is not None and given.n_programs > MOST_PROGRAMS:
        raise UsageError(f"n_programs={given.n_programs}; give at most {MOST_PROGRAMS}: there are names for as many of each length")
    if given.seed < 0:
        raise UsageError(f"seed={given.seed}; give a whole number from 0")
    ours = LADDER.get(given.model)
    settings = {"smoke": TOY if ours else None, "quick": None, "full": ours}[given.profile]
    if given.steps is not None:
        settings = dataclasses.replace(settings or LADDER[given.model], steps=given.steps)
    n_programs = given.n_programs or {"smoke": 4, "quick": 100, "full": 200}[given.profile]
    return Plan(given.model, settings, n_programs, given.trust_remote_code)


def sample_documents(plan: Plan, count: int, *, seed: int) -> str:
    """Returns documents of the stream that the plan's model is pretrained on, the completion after >>>."""
    settings = plan.settings or LADDER.get(plan.name)
    if settings is None:
        return f"{plan.name} was not pretrained here."
    shown = itertools.islice(documents(settings.mix, seed), 0, 3 * count, 3)
    return "\n\n".join(f"=== {e.kind}\n{e.prompt}>>> " + e.completion.replace("\n", "\n    ") for e in shown)


def _architecture(settings: Mapping[str, Any]) -> str:
    passes = settings.get("passes")
    return "Llama" if passes is None else f"HrmText, layers run {passes} time{'' if passes == 1 else 's'}"


def card_table(card: Mapping[str, Any]) -> pd.DataFrame:
    """Returns a card as a table of two columns."""
    settings = card["settings"]
    lines = {"name": card["name"], "parameters": f"{card['parameters']:,}", "training tokens": f"{card['tokens']:,}",
             "hours": card["hours"], "hardware": card["hardware"],
             "shape": f"{_architecture(settings)}, hidden {settings['hidden']}, {settings['layers']} layers, MLP {settings['intermediate']}, tied embeddings",
             "steps": f"{settings['steps']:,} of {settings['batch_size']} documents, learning rate {settings['lr']:g}",
             "mix": json.dumps(settings["mix"])}  # fmt: skip
    return reading.facts(lines)


def curve(card: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the card's curve in long form: tokens, step, mode, accuracy, n."""
    return pd.DataFrame([
        {"tokens": point["tokens"], "step": point["step"], "mode": mode, "accuracy": point[mode], "n": card["in_context_n"]}
        for point in card["curve"] for mode in card.get("in_context", MODES)
    ])  # fmt: skip


def curve_alt(points: pd.DataFrame) -> str:
    """Returns the curve's end in words."""
    last = points[points["tokens"] == points["tokens"].max()]
    ends = ", ".join(f"{row.mode} {100 * row.accuracy:.0f} %" for row in last.itertuples())
    return f"In-context exact match against training tokens, one line per mode. At {last['tokens'].max() / 1e6:.1f} million tokens: {ends}."


def reads_words(card: Mapping[str, Any] | None) -> bool:
    """Returns whether a model was pretrained here on descriptions too."""
    return card is not None and card["settings"]["mix"].get("language", 0) > 0


def other_families(card: Mapping[str, Any] | None) -> list[str]:
    """Returns the families beside Random Arithmetic that a model was pretrained on here."""
    families = card["settings"]["mix"].get("families", {}) if card else {}
    return [kind for kind, share in families.items() if share and kind != "arithmetic"]


def ask(loaded: Any, *, n_programs: int, seed: int, language: bool = False, kind: str = "arithmetic", lengths: Sequence[int] = LENGTHS,
        progress: Any = None) -> pd.DataFrame:  # fmt: skip
    """Returns rows of fresh programs of each length, asked once in each mode with the source in the prompt.

    With `language` they are asked once more with the description in its place: condition "in_context_description".
    """
    from pbb_helpers.training import evaluate

    rows: list[dict[str, Any]] = []
    modes = [f"in_context_{words}{way}" for words in ("", "description_")[: 1 + language] for way in MODES]
    names = draw_names(n_programs * len(lengths), generator(seed, "fresh names"))
    for i, length in enumerate(lengths):
        draws = generator(seed, f"fresh programs {length}")
        drawn_from = family(kind, min_statements=length, max_statements=length)
        programs = drawn_from.draw(names[i * n_programs : (i + 1) * n_programs], draws)
        valid = drawn_from.inputs()
        inputs = [valid[place] for place in draws.integers(0, len(valid), size=n_programs)]
        for mode in modes:
            way, shown = way_of_answering(mode)
            condition = "in_context_description" if shown == "description" else "in_context"
            asked = [
                call_document(p, "without_io", mode, x, k % 20, phrasing=k) for k, (p, x) in enumerate(zip(programs, inputs, strict=True))
            ]
            rows += [row | {"mode": way, "condition": condition} for row in evaluate.evaluate(loaded, loaded.model, asked)]
            if progress is not None:
                progress.update(len(rows), total=n_programs * len(lengths) * len(modes), note=f"{length} statements, {mode}")
    common = {
        "run": loaded.key[:16],
        "model": loaded.name,
        "family": kind,
        "seed": seed,
        "stage": "untuned",
    }
    return pd.DataFrame([common | row for row in rows])


def letters(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns, for each mode, the share of answers and of letters (digits) that are right, with its 95 % interval over programs.

    Columns: mode, n, accuracy, letters, low, high (of letters).
    """
    frame = statistics.prepare(robustness.with_values(rows))
    lines = []
    for mode, cell in frame.groupby("mode", sort=False):
        totals, counts, _ = statistics.per_program(cell, "letters")
        interval = intervals.cluster_bootstrap(totals, counts, n_boot=2000, seed=0)
        lines.append({"mode": mode, "n": len(cell), "accuracy": cell["score"].mean(), "letters": cell["letters"].mean(),
                      "low": interval.low, "high": interval.high})  # fmt: skip
    return pd.DataFrame(lines)


def answers(rows: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Returns ten answers, wrong ones first."""
    return reading.answers(rows, condition="in_context", seed=seed)


def sentences(table: pd.DataFrame, short: pd.DataFrame, points: pd.DataFrame | None) -> list[str]:
    """Returns what the numbers say of a model; of one that was pretrained here also of its two targets and of programs longer than any in pretraining.

    Args:
        table: Results by length.
        short: Results over the lengths of one and two statements, as many programs of each.
        points: The card's curve; None of a model without one.
    """
    in_code, short = (t[(t["condition"] == "in_context") & (t["seed"] == "all")] for t in (table, short))
    cells = {row.mode: row for row in short.itertuples()}
    said = [
        "With the source in its prompt, on fresh programs, half of one statement and half of two, the model answers "
        + ", ".join(f"{100 * cells[m].accuracy:.1f} % ({100 * cells[m].low:.0f} to {100 * cells[m].high:.0f} %) by {m}" for m in MODES)
        + f"; n = {cells['direct'].n} programs, one input each."
    ]
    if points is None:
        return [
            *said,
            "What it cannot run with the source in its prompt, finetuning on the source alone will hardly make it run.",
        ]
    for mode, target in (("cot", 0.95), ("direct", 0.75)):
        low, high = cells[mode].low, cells[mode].high
        verdict = "is above" if low >= target else "is below" if high < target else "is not told apart from"
        said.append(f"{mode} {verdict} the target of {100 * target:.0f} % (interval {100 * low:.0f} to {100 * high:.0f} %).")
    last = points[points["step"] == points["step"].max()]
    said.append("On the mix of lengths that the quick profile draws (fewer of one statement, for those run out), by exact match of the whole completion: "
                + ", ".join(f"{row.mode} {100 * row.accuracy:.0f} %" for row in last.itertuples()) + f"; n = {last['n'].max()}.")  # fmt: skip
    by_length = {(row.mode, row.length): row.accuracy for row in in_code.itertuples()}
    said.append("At four statements, more than in any pretraining document: "
                + ", ".join(f"{m} {100 * by_length[m, 4]:.0f} % (at three {100 * by_length[m, 3]:.0f} %)" for m in MODES) + ".")  # fmt: skip
    return said
