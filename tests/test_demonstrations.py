"""Conditions with I/O pairs of w/o IO programs: what they hold, what they share, and that nobody else may hold it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pbb_helpers.analysis import statistics
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.conditions import CONDITIONS, condition
from pbb_helpers.data.datasets import Dataset, draw_dataset
from pbb_helpers.data.demonstrations import pairs
from pbb_helpers.data.distributions import value
from pbb_helpers.data.documents import (
    EVERY_MODE,
    call_document,
    chain_of_thought,
    description_document,
    in_context_document,
    source_document,
)
from pbb_helpers.data.leaks import LeakError, leak_check
from pbb_helpers.data.plan import Experiment, small
from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments.jobs import jobs, run_job
from pbb_helpers.experiments.questions import SHOWN, floors, modes_of, questions
from pbb_helpers.families.names import made_up_names
from pbb_helpers.programs import Program, UsageError, behaviour, family, from_cell

BUDGET = Budget(TrainSettings(batch_size=16), TrainSettings(batch_size=16, lr=1e-3), stage1_steps=8, stage2_steps=20)
SHOWING = (
    "io_only(4, uniform)",
    "io_alone(4, uniform)",
    "io_only(1, zipf)",
    "source_and_io(4, uniform)",
    "io_only(6, natural)",
    "source_and_io(6, natural(0.5))",
)
PER_FAMILY = [(kind, name) for name in SHOWING for kind in ("arithmetic", "ciphers") if kind == "ciphers" or "natural" not in name]


def dataset(kind: str, seed: int = 0) -> Dataset:
    held_out = {"arithmetic": 10, "ciphers": 5}[kind]
    return draw_dataset(family(kind), n_with_io=12, n_without_io=6, n_eval_inputs=held_out, seed=seed)


def built(name: str, data: Dataset, budget: Budget = BUDGET, count=None):
    return [build_stage(spec, data, budget, count) for spec in condition(name).stages]


@pytest.mark.parametrize(("kind", "name"), PER_FAMILY)
def test_the_pairs_and_no_others_are_shown(kind, name):
    data = dataset(kind)
    *first, second = built(name, data)
    plain, alone = built("proactive", data), name.startswith("io_alone")
    assert first == ([] if alone else plain[:1]), "stage 1 is that of proactive, trained once, or there is none"
    own = [e for e in second.examples if e.group == "without_io"]
    if alone:
        assert len(second.examples) == sum(len(stage.examples) for stage in plain)
    else:
        assert len(own) == sum(e.group == "without_io" for e in plain[1].examples) and len(second.examples) == len(plain[1].examples)
    assert {e.kind for e in own} == ({"direct", "source"} if name.startswith("source_and_io") else {"direct"})
    chosen, spec = pairs(condition(name).stages[-1], data), condition(name).stages[-1]
    asked = [e for e in own if e.kind == "direct"]
    for program in data.without_io:
        shown = Counter(e.input for e in asked if e.program == program.name)
        assert set(shown) == set(chosen[program.name]) and len(chosen[program.name]) == spec.pairs
        turns = [shown[x] / chosen[program.name].count(x) for x in shown]
        assert max(turns) - min(turns) <= 1 + 1e-9
    assert all(e.answer == str(next(p for p in data.without_io if p.name == e.program).run(e.input)) == e.completion for e in asked)
    assert not {e.input for e in asked} & set(data.eval_inputs)


def test_pairs_are_nested_and_shared():
    data = dataset("ciphers")
    few, many = (pairs(condition(f"io_only({k}, natural)").stages[1], data) for k in (3, 9))
    assert all(many[name][:3] == few[name] for name in few)
    assert pairs(condition("source_and_io(3, natural)").stages[1], data) == few
    assert pairs(condition("io_only(3, uniform)").stages[1], data) != few


def test_inputs_follow_the_distribution():
    data = dataset("ciphers")
    shifts = {
        name: Counter(value(x) for own in pairs(condition(f"io_only(200, {name})").stages[1], data).values() for x in own)
        for name in ("natural", "natural(0.5)", "uniform")
    }
    n = 200 * 6
    assert abs(shifts["natural"][13] / n - 0.802) < 0.05 and abs(shifts["natural(0.5)"][13] / n - 0.421) < 0.06
    assert shifts["uniform"][13] / n < 0.08 and len(shifts["uniform"]) == 25


def tokens(text: str) -> int:
    return len(text) + 1


@pytest.mark.parametrize("kind", ["arithmetic", "ciphers"])
def test_equal_documents_or_equal_tokens(kind):
    data = dataset(kind)
    names = ("proactive", "io_only(4, uniform)", "source_and_io(4, uniform)")
    equal = {name: built(name, data)[1].examples for name in names}
    assert len({len(examples) for examples in equal.values()}) == 1
    spent = {name: sum(tokens(e.completion) for e in examples) for name, examples in equal.items()}
    assert spent["io_only(4, uniform)"] < spent["source_and_io(4, uniform)"] < spent["proactive"]
    matched = {name: built(name, data, replace(BUDGET, match="tokens"), tokens)[1].examples for name in names}
    spent = {name: sum(tokens(e.completion) for e in examples) for name, examples in matched.items()}
    longest = max(tokens(e.completion) for examples in matched.values() for e in examples)
    assert max(spent.values()) - min(spent.values()) < longest
    assert len(matched["io_only(4, uniform)"]) > len(matched["source_and_io(4, uniform)"]) > len(matched["proactive"])
    share = sum(e.group == "without_io" for e in matched["io_only(4, uniform)"]) / len(matched["io_only(4, uniform)"])
    assert 0.4 < share < 0.6, "cut from a mix, not from one kind of document"


# ---------------------------------------------------------------- leaks


def planted(data: Dataset, name: str) -> dict[str, object]:
    """Returns documents that a stage with I/O pairs must not hold."""
    hidden, other, shown = data.without_io[0], data.without_io[1], data.with_io[0]
    spec = condition(name).stages[-1]
    own = pairs(spec, data)[hidden.name]
    unshown = next(x for x in data.train_inputs if x not in own)
    held_out, x = data.eval_inputs[0], own[0]
    stranger = shown.renamed(next(n for n in made_up_names() if n not in data.names))
    right = call_document(hidden, "without_io", "direct", x, 0)
    found = {f"an I/O pair answered as {mode}": call_document(hidden, "without_io", mode, x, 3)
             for mode in EVERY_MODE if mode not in ("source", "description", "direct")}  # fmt: skip
    found |= {
        "a pair that was not drawn": call_document(hidden, "without_io", "direct", unshown, 0),
        "a held-out input": call_document(hidden, "without_io", "direct", held_out, 0),
        "a held-out input of a w/ IO program": call_document(shown, "with_io", "cot", held_out, 0),
        "a wrong output": replace(right, completion=f"{right.completion}1"),
        "steps after the output": replace(right, completion=f"{right.completion}\n{chain_of_thought(hidden, x)}"),
        "another prompt": replace(right, prompt=f"{right.prompt} "),
        "the description": description_document(hidden, "without_io", 0),
        "another's source": source_document(other.renamed(hidden.name), "without_io", 0),
        "the source under a w/ IO name": source_document(hidden.renamed(shown.name), "with_io", 0),
        "the source in replay": in_context_document(stranger, "replay", "cot", x, 0, [hidden], np.random.default_rng(0)),
    }
    if not name.startswith("source_and_io"):
        found["the source"] = source_document(hidden, "without_io", 0)
    return found


@pytest.mark.parametrize(
    ("kind", "name", "what"),
    [
        (k, n, what)
        for k, n in [*PER_FAMILY, ("arithmetic", "io_alone(4, uniform)"), ("ciphers", "io_alone(4, natural)")]
        for what in planted(dataset(k), n)
    ],
)
def test_a_planted_leak_is_caught(kind, name, what):
    data, spec = dataset(kind), condition(name).stages[-1]
    stage = built(name, data)[-1]
    assert leak_check(stage, spec, data) == len(stage.examples)
    with pytest.raises(LeakError, match="leak in (stage2|io_alone): .* nothing was trained"):
        leak_check(replace(stage, examples=(*stage.examples[1:], planted(data, name)[what])), spec, data)


@pytest.mark.parametrize("kind", ["arithmetic", "ciphers"])
def test_an_allowed_pair_is_a_leak_everywhere_else(kind):
    data, showing = dataset(kind), condition("io_only(4, uniform)").stages[1]
    hidden = data.without_io[0]
    pair = call_document(hidden, "without_io", "direct", pairs(showing, data)[hidden.name][0], 0)
    specs = {(name, spec) for name in (*CONDITIONS, "early(0.5)", "stage2(2)") for spec in condition(name).stages}
    specs |= {("stage 1", condition("io_only(4, uniform)").stages[0]), ("unnamed", replace(showing, pairs=0))}
    assert len(specs) > 15
    for name, spec in specs:
        if name != "unnamed":
            stage = build_stage(spec, data, BUDGET)
            assert leak_check(stage, spec, data) == len(stage.examples)
        else:
            stage = built("proactive", data)[1]
        with pytest.raises(LeakError):
            leak_check(replace(stage, examples=(*stage.examples[1:], pair)), spec, data)


@pytest.mark.parametrize(
    "written", ['("{0}", {1})', "('{0}', {1})", '( "{0}" , {1} )', '("{0}", 0{1})', '(t="{0}", k={1})', '("{0}", +{1},)']
)
def test_a_held_out_text_and_shift_is_caught_however_it_is_written(written):
    data = dataset("ciphers")
    stage, spec = built("proactive", data)[1], condition("proactive").stages[1]
    question = call_document(data.with_io[0], "with_io", "direct", data.train_inputs[0], 0)
    bad = replace(question, prompt=f"Compute {data.with_io[0].name}{written.format(*data.eval_inputs[0])}.\nAnswer only:\n")
    with pytest.raises(LeakError, match="held-out input"):
        leak_check(replace(stage, examples=(*stage.examples[1:], bad)), spec, data)
    fine = replace(question, prompt=f"Compute {data.with_io[0].name}{written.format(*data.train_inputs[0])}.\nAnswer only:\n")
    assert leak_check(replace(stage, examples=(*stage.examples[1:], fine)), spec, data) == len(stage.examples)


def test_an_enciphered_word_that_reads_like_a_name_is_no_pointer():
    data = dataset("ciphers")
    stage, spec = built("proactive", data)[1], condition("proactive").stages[1]
    question = call_document(data.with_io[0], "with_io", "direct", data.train_inputs[0], 0)
    name = data.without_io[0].name
    fine = replace(question, completion=name.upper())
    assert leak_check(replace(stage, examples=(*stage.examples[1:], fine)), spec, data) == len(stage.examples)
    for spelt in (name, name.capitalize(), f"_{name}_", f"{name}2"):
        with pytest.raises(LeakError):
            leak_check(replace(stage, examples=(*stage.examples[1:], replace(question, completion=spelt))), spec, data)


# ---------------------------------------------------------------- replay, questions, bad input


def test_replay_beside_ciphers_is_of_ciphers_and_of_none_that_behaves_like_a_w_o_io_one():
    data = dataset("ciphers")
    replayed = [e for e in build_stage(condition("source_only").stages[0], data, BUDGET).examples if e.group == "replay"]
    sources = [block for e in replayed for block in e.prompt.split("\n\n") if block.startswith("def ")]
    assert len(replayed) == 160 and all("(t, k):" in source for source in sources)
    assert {e.input for e in replayed} <= set(data.train_inputs)
    every = family("ciphers").inputs()
    made = [Program(source[4 : source.index("(")], "ciphers", source.rstrip(), 1) for source in dict.fromkeys(sources)]
    assert not any(behaviour(program, every) in data.behaviours for program in made[:60])


def test_an_experiment_on_ciphers_asks_held_out_inputs_and_has_floors():
    experiment = Experiment(
        family="ciphers", conditions=("io_only(4, natural)",), n_with_io=12, n_without_io=6, n_eval_inputs=5, n_with_io_asked=3
    )
    data = experiment.dataset(0)
    asked = [e for some in questions(experiment, data, condition("io_only(4, natural)").modes) for e in some]
    assert {e.input for e in asked if e.kind != "source"} <= set(data.eval_inputs) and {e.kind for e in asked} == {
        "direct",
        "cot",
        "recall",
        "source",
    }
    table = floors(experiment)
    assert set(table["floor"]) == {"best constant", "identity", "best answer given the input"} and table["accuracy"].between(0, 1).all()


@pytest.mark.parametrize("match", ["documents", "tokens"])
def test_an_experiment_on_ciphers_runs_through(shipped_like, tmp_path, match):
    names = ("in_context", "proactive", "io_only(2, natural)", "source_and_io(2, natural)")
    plan = small(Experiment(model=str(shipped_like), family="ciphers", conditions=names))
    plan = replace(plan, budget=replace(plan.budget, stage1_steps=2, stage2_steps=3, match=match))
    rows, _ = zip(*(run_job(job, tmp_path) for job in jobs(plan)), strict=True)
    table = pd.DataFrame([row for some in rows for row in some])
    statistics.require_complete(
        table, conditions=names, seeds=(0,), modes={name: modes_of(name) for name in names}, groups=["without_io", "with_io"]
    )
    data = plan.dataset(0)
    asked = table[(table["mode"] != "source") & (table["group"] != SHOWN)]
    assert {from_cell(x) for x in asked["input"]} <= set(data.eval_inputs) and asked["gold"].str.fullmatch("[A-Z]+").all()
    drawn = pairs(condition("io_only(2, natural)").stages[-1], data)  # the same ones stand beside the source
    for row in table[table["group"] == SHOWN].itertuples():
        assert from_cell(row.input) in drawn[row.program] and row.mode == "direct"
    assert set(table[table["group"] == SHOWN]["condition"]) == set(names[2:])
    assert not statistics.results(table, n_boot=20).empty
    again = [run_job(job, tmp_path)[0] for job in jobs(plan)]
    assert list(rows) == again, "read back from the store as they were written"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("io_only", "write io_only(8, uniform) or io_only(8, natural(0.5))"),
        ("io_only()", "takes a number of I/O pairs"),
        ("io_only(8)", "takes a number of I/O pairs"),
        ("io_only(0, uniform)", "takes a number of I/O pairs, 1 to 10,000"),
        ("io_only(1.5, uniform)", "takes a number of I/O pairs"),
        ("source_and_io(99999, uniform)", "takes a number of I/O pairs"),
        ("io_only(8, natual)", "unknown distribution 'natual'; did you mean 'natural'?"),
        ("io_only(8, natural(2))", "give a share from 0"),
        ("io_onli(8, natural)", "unknown condition 'io_onli(8, natural)'; choose from answers_only"),
        ("io_only(8, natural)", "natural is over shifts from 0 to 25, not over 0 to 49"),
    ],
)
def test_what_is_no_such_condition_is_one_clear_line_before_anything_is_trained(name, message):
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        Experiment(conditions=("base", name))
    assert "\n" not in str(error.value)
