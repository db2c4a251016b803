"""The conditions hold what they say, share what they share, and no leak of any kind that we could think of passes the check."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbb_helpers.analysis import traces
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.conditions import CONDITIONS, condition
from pbb_helpers.data.datasets import Dataset, draw_dataset, generator
from pbb_helpers.data.descriptions import describe, parse
from pbb_helpers.data.documents import (
    EVERY_MODE,
    Example,
    call_document,
    chain_of_thought,
    description_document,
    in_context_document,
    source_document,
)
from pbb_helpers.data.leaks import LeakError, leak_check
from pbb_helpers.data.plan import QUICK, small
from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.data.specs import StageSpec, without_io_sources
from pbb_helpers.data.stages import build_stage, compose
from pbb_helpers.families.arithmetic import Arithmetic
from pbb_helpers.families.names import made_up_names
from pbb_helpers.programs import Program, UsageError, behaviour, family
from pbb_helpers.training.store import Store

BUDGET = Budget(TrainSettings(batch_size=16), TrainSettings(batch_size=16, lr=1e-3), stage1_steps=12, stage2_steps=6)
VARIANTS = (
    "early(0)",
    "early(0.4)",
    "early(1)",
    "replay(0)",
    "replay(0.3)",
    "stage2(0.5)",
    "stage2(2)",
    "rate2(2)",
    "templates(1)",
    "templates(5)",
)
STAGES = [(name, i) for name in (*CONDITIONS, *VARIANTS) for i in range(len(condition(name).stages))]


def dataset(seed: int = 0) -> Dataset:
    return draw_dataset(family("arithmetic"), n_with_io=12, n_without_io=6, n_eval_inputs=10, seed=seed)


def built(name: str, number: int, seed: int = 0):
    spec = condition(name).stages[number]
    return build_stage(spec, dataset(seed), BUDGET), spec


def unused(data: Dataset) -> str:
    return next(name for name in made_up_names() if name not in data.names)


# ---------------------------------------------------------------- leaks


def edited(example: Example, **changes: str) -> Example:
    return replace(example, **changes)


def leaks(data: Dataset, spec: StageSpec) -> dict[str, Example]:
    """Returns a document per kind of leak: each must be caught in every stage of every condition."""
    hidden, other, shown = data.without_io[0], data.without_io[1], data.with_io[0]
    x, held_out, draws = data.train_inputs[3], data.eval_inputs[0], generator(0, "test")
    stranger = shown.renamed(unused(data))
    plain = source_document(shown, "with_io", 0)
    call = call_document(shown, "with_io", "direct", x, 0)
    calls = [mode for mode in EVERY_MODE if mode not in ("source", "description")]
    found = {f"w/o IO call, {mode}": call_document(hidden, "without_io", mode, x, 5) for mode in calls}
    found |= {
        f"w/o IO call passed off as w/ IO, {mode}": call_document(hidden, "with_io", mode, x, 5) for mode in ("direct", "cot", "recall")
    }
    found |= {f"held-out input, {mode}": call_document(shown, "with_io", mode, held_out, 2) for mode in calls}
    found |= {
        "w/o IO call in replay": in_context_document(hidden, "replay", "cot", x, 1, [stranger], draws),
        "w/o IO program as a distractor in replay": in_context_document(stranger, "replay", "direct", x, 1, [hidden], draws),
        "held-out input in replay": in_context_document(stranger, "replay", "direct", held_out, 1, [], draws),
        "w/o IO source under a w/ IO name": source_document(hidden.renamed(shown.name), "with_io", 3),
        "w/o IO source under a fresh name": source_document(hidden.renamed(stranger.name), "replay", 3),
        "w/o IO source under a fresh name, called": call_document(hidden.renamed(stranger.name), "replay", "in_context_cot", x, 3),
        "w/o IO source under a fresh name, recalled": call_document(hidden.renamed(stranger.name), "replay", "recall", x, 3),
        "w/o IO source under a fresh name, a distractor": in_context_document(
            stranger, "replay", "cot", x, 3, [hidden.renamed(made_up_names()[-1])], draws
        ),
        "w/o IO description under a w/ IO name": description_document(hidden.renamed(shown.name), "with_io", 3),
        "w/o IO description under a fresh name, in another phrasing": description_document(hidden.renamed(stranger.name), "replay", 3, 99),
        "w/o IO description under a fresh name, called": call_document(
            hidden.renamed(stranger.name), "replay", "in_context_description_cot", x, 3
        ),
        "w/o IO description under a fresh name, recalled": call_document(
            hidden.renamed(stranger.name), "replay", "recall_description", x, 3
        ),
        "w/o IO description under a fresh name, a distractor": in_context_document(
            stranger, "replay", "description_cot", x, 3, [hidden.renamed(made_up_names()[-1])], draws, phrasing=7
        ),
        "w/o IO description within a line": edited(plain, prompt=f"It is said: {describe(hidden.renamed(stranger.name))} So it is.\n"),
        "w/o IO program as a distractor in words": in_context_document(stranger, "replay", "description_direct", x, 1, [hidden], draws),
        "I/O after the description": edited(
            description_document(hidden, "without_io", 0), completion=f"{describe(hidden)}\n{chain_of_thought(hidden, x)}"
        ),
        "I/O within the description": edited(
            description_document(hidden, "without_io", 0), completion=f"{describe(hidden)} At {x} it gives 1."
        ),
        "a description in an unknown prompt": edited(description_document(hidden, "without_io", 0), prompt=f"{hidden.name}:\n"),
        "a source where a description is asked": edited(description_document(hidden, "without_io", 0), completion=hidden.source),
        "a description where a source is asked": edited(source_document(hidden, "without_io", 0), completion=describe(hidden)),
        "a phrasing that the stage does not have": edited(
            description_document(hidden, "without_io", 0),
            completion=next(t for i in range(9) if (t := describe(hidden, i)) != describe(hidden)),
        ),
        "a w/ IO description under a w/o IO name": description_document(shown.renamed(hidden.name), "without_io", 0),
        "name in prose": edited(plain, prompt=f"{hidden.name} is a program like {shown.name}.\n"),
        "name in prose, capital": edited(plain, prompt=f"{hidden.name.capitalize()} is a program.\n"),
        "name in prose, emphasised": edited(plain, prompt=f"What is _{hidden.name}_?\n"),
        "name with a number": edited(plain, prompt=f"What is {hidden.name}2?\n"),
        "name at the end of a completion": edited(plain, completion=f"{shown.source}\n# see {hidden.name}"),
        "name in a replay answer": edited(call, group="replay", completion=f"{call.completion} {hidden.name}"),
        "trace by name": edited(plain, prompt=f"Trace of {hidden.name}:\n", completion=chain_of_thought(hidden, x)),
        "I/O after the source": edited(
            source_document(hidden, "without_io", 0), completion=f"{hidden.source}\n{chain_of_thought(hidden, x)}"
        ),
        "I/O before the source": edited(source_document(hidden, "without_io", 0), completion=f"{hidden.name}({x}) = 1\n{hidden.source}"),
        "I/O in the prompt of a source": edited(
            source_document(hidden, "without_io", 0), prompt=f"{hidden.name}({x}) is {hidden.run(x)}.\n"
        ),
        "a source prompt with an answer": edited(source_document(hidden, "without_io", 0), completion=str(hidden.run(x))),
        "a source in an unknown prompt": edited(source_document(hidden, "without_io", 0), prompt=f"{hidden.name}:\n"),
        "a w/ IO source under a w/o IO name": source_document(shown.renamed(hidden.name), "without_io", 0),
        "a call within a source's completion": edited(plain, completion=f"{shown.source}\n{shown.name}({held_out})"),
    }
    laid_out = {"other spaces": hidden.source.replace("    ", "  "), "an empty line": hidden.source.replace("\n", "\n\n", 1),
                "a comment": hidden.source.replace("\n", "  # as it was\n", 1), "another argument": re.sub(r"\bx\b", "y", hidden.source),
                "types": hidden.source.replace("(x):", "(x: int) -> int:"), "within a block": textwrap.indent(hidden.source, "    ")}  # fmt: skip
    for how, source in laid_out.items():
        text = re.sub(rf"\b{hidden.name}\b", stranger.name, source)
        for where, before in (("", "Look:\n"), (" within a line", "Look: "), (" after another", f"{shown.source}\n")):
            planted = textwrap.indent(f"{before}{text}", "  ") if how == "within a block" else f"{before}{text}"
            found[f"w/o IO body under a fresh name with {how}{where}"] = edited(plain, prompt=f"{planted}\n\nWhat is it?\n")
        found[f"w/o IO body under a fresh name with {how}"] = edited(plain, prompt=f"Look:\n{text}\n\nWhat is it?\n")
    found["a question that does not say its input"] = replace(
        call, prompt=f"Compute {shown.name}({held_out - 1} + 1).\nAnswer only:\n", input=None
    )
    found["a held-out input that the text does not show"] = replace(call, prompt=f"Compute {shown.name}.\nAnswer only:\n", input=held_out)
    for written in (f"({held_out})", f" ( {held_out} )", f"(0{held_out})", f"(+{held_out})", f"(x={held_out})", f"({held_out},)"):
        found[f"held-out input written {written}"] = edited(call, prompt=f"Compute {shown.name}{written}.\nAnswer only:\n")
    if "source" not in spec.kinds_without_io():
        found["w/o IO source in a stage without"] = source_document(hidden, "without_io", 0)
    if "description" not in spec.kinds_without_io():
        found["w/o IO description in a stage without"] = description_document(hidden, "without_io", 0)
    shuffled = any(part.shuffled for part in (spec, *spec.mix))
    found["true description in the shuffled stage, or another's in the others"] = (
        description_document(hidden, "without_io", 0) if shuffled else description_document(other.renamed(hidden.name), "without_io", 0)
    )
    found["true source in the shuffled stage, or another's in the others"] = (
        source_document(hidden, "without_io", 0) if shuffled else source_document(other.renamed(hidden.name), "without_io", 0)
    )
    return found


@pytest.mark.parametrize(("name", "number"), STAGES)
def test_every_stage_of_every_condition_is_clean(name, number):
    for seed in (0, 1):
        stage, spec = built(name, number, seed)
        assert leak_check(stage, spec, dataset(seed)) == len(stage.examples) == BUDGET.documents(spec)


@pytest.mark.parametrize(
    ("kind", "name", "number"),
    [(kind, name, number) for name, number in STAGES for kind in leaks(dataset(), condition(name).stages[number])],
)
def test_a_planted_leak_is_caught(kind, name, number):
    stage, spec = built(name, number)
    planted = leaks(dataset(), spec)
    place = generator(0, kind).integers(len(stage.examples))
    examples = (*stage.examples[:place], planted[kind], *stage.examples[place + 1 :])
    with pytest.raises(LeakError, match=f"leak in {stage.name}: .* nothing was trained"):
        leak_check(replace(stage, examples=examples), spec, dataset())


def test_a_stage_with_a_leak_is_never_built(monkeypatch):
    data = dataset()
    monkeypatch.setattr("pbb_helpers.data.stages.compose", lambda *_: [leaks(data, StageSpec("stage1"))["w/o IO call in replay"]])
    with pytest.raises(LeakError):
        build_stage(condition("proactive").stages[0], data, replace(BUDGET, stage1_steps=13))


def test_no_replayed_program_behaves_like_a_w_o_io_program():
    data = draw_dataset(
        family("arithmetic", max_statements=1, lowest_input=5, highest_input=40), n_with_io=3, n_without_io=40, n_eval_inputs=5, seed=0
    )
    stage = build_stage(condition("source_only").stages[0], data, Budget(stage2_steps=8))
    every = family("arithmetic", lowest_input=5, highest_input=40).inputs()
    replayed = [e for e in stage.examples if e.group == "replay"]
    sources = {(name, text.rstrip()) for e in replayed for name, text in _sources(e.prompt)}
    assert len(replayed) == 256 and len(sources) > 100
    assert not any(behaviour(Program(name, "arithmetic", source, 1), every) in data.behaviours for name, source in sources)
    assert {e.input for e in replayed} <= set(data.train_inputs)


def _sources(prompt: str) -> list[tuple[str, str]]:
    blocks = [block for block in prompt.split("\n\n") if block.startswith("def ")]
    return [(block[4 : block.index("(")], block) for block in blocks]


# ---------------------------------------------------------------- what the conditions hold


def test_conditions_that_share_a_first_stage_share_its_key(tmp_path):
    store = Store(tmp_path)
    words = {name: store.stage_key("base", built(name, 0)[0], "float32") for name in ("description", "description_to_code")}
    assert len(set(words.values())) == 1 and store.stage_key("base", built("code_to_description", 0)[0], "float32") not in words.values()
    keys = {name: store.stage_key("base", built(name, 0)[0], "float32") for name in CONDITIONS if condition(name).stages}
    assert keys["stage1_only"] == keys["proactive"] == keys["shuffled_source"]
    assert len({keys["proactive"], keys["source_only"], keys["mixture"]}) == 3
    assert store.stage_key("base", built("proactive", 0, 1)[0], "float32") != keys["proactive"]


def test_the_mixture_holds_exactly_the_documents_of_both_stages_shuffled():
    mixture = built("mixture", 0)[0].examples
    one, two = (built("proactive", i)[0].examples for i in (0, 1))
    assert Counter(mixture) == Counter(one + two) and mixture != one + two
    late = {i for i, e in enumerate(mixture) if e.group == "without_io"}
    assert min(late) < len(mixture) / 10 and max(late) > 0.9 * len(mixture)


def test_shuffled_source_differs_from_proactive_in_the_sources_alone():
    two, shuffled = built("proactive", 1)[0].examples, built("shuffled_source", 1)[0].examples
    assert [e for e in two if e.group != "without_io"] == [e for e in shuffled if e.group != "without_io"]
    true = {p.name: p.source for p in dataset().without_io}
    given = {e.program: e.completion for e in shuffled if e.group == "without_io"}
    assert given.keys() == true.keys() and all(given[name] != true[name] for name in true)


def test_a_mixture_of_shuffled_sources_differs_from_the_mixture_in_these_alone():
    """The same documents in the same order, and under each name the source that it has in `shuffled_source`."""
    mixture, shuffled = built("mixture", 0)[0], built("shuffled_mixture", 0)[0]
    assert mixture.settings == shuffled.settings and len(mixture.examples) == len(shuffled.examples)
    for one, other in zip(mixture.examples, shuffled.examples, strict=True):
        if one.group != "without_io":
            assert one == other
        else:
            assert (one.group, one.kind) == (other.group, other.kind)
    often = Counter(e.program for e in shuffled.examples if e.group == "without_io")
    assert often.keys() == {p.name for p in dataset().without_io} and max(often.values()) - min(often.values()) <= 1
    given = {e.program: e.completion for e in shuffled.examples if e.group == "without_io"}
    assert given == {e.program: e.completion for e in built("shuffled_source", 1)[0].examples if e.group == "without_io"}
    assert [name for name in CONDITIONS if condition(name).shuffled] == ["shuffled_source", "shuffled_mixture"]


def test_what_was_read_under_a_name_is_what_the_stage_holds():
    plan = small(replace(QUICK, seeds=(0, 3)))
    read, own = traces.programs_of(plan, shuffled=True), traces.programs_of(plan)
    assert read.keys() == own.keys()
    for seed in plan.seeds:
        data = plan.dataset(seed)
        stage = build_stage(condition("shuffled_source").stages[1], data, plan.budget)
        for e in stage.examples:
            if e.group == "without_io":
                assert read[seed, e.program].source == e.completion.rstrip() != own[seed, e.program].source
        assert all(read[seed, p.name] is own[seed, p.name] or read[seed, p.name] == own[seed, p.name] for p in data.with_io)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 30), seed=st.integers(0, 2**40))
def test_the_shuffling_is_a_derangement(n, seed):
    programs = tuple(
        Program(name, "arithmetic", f"def {name}(x):\n    x = x + {i}\n    return x", 1) for i, name in enumerate(made_up_names()[:n])
    )
    data = Dataset("arithmetic", (), programs, (), (), frozenset(), seed)
    bound = without_io_sources(StageSpec("stage2", shuffled=True), data)
    assert sorted(p.name for p in bound) == sorted(p.name for p in programs)
    own = {p.name: p.run(0) for p in programs}
    assert sorted(p.run(0) for p in bound) == list(range(n)) and all(p.run(0) != own[p.name] for p in bound)


@pytest.mark.parametrize(("name", "number"), STAGES)
def test_each_stage_holds_the_kinds_and_shares_it_says(name, number):
    stage, spec = built(name, number)
    if spec.arrange[0] != "together":
        return  # see test_curricula_are_the_same_documents_in_another_order
    counts = Counter((e.group, e.kind if e.group != "replay" else "") for e in stage.examples)
    wanted: Counter = Counter()
    for part in spec.mix or (spec,):
        shares = (
            {("with_io", k): v for k, v in part.with_io}
            | {("without_io", k): v for k, v in part.without_io}
            | {("replay", ""): part.replay}
        )
        total = sum(shares.values())
        wanted.update({key: BUDGET.documents(part) * share / total for key, share in shares.items() if share})
    assert counts.keys() == wanted.keys() and all(abs(counts[key] - wanted[key]) < 2 for key in wanted)
    assert {e.program for e in stage.examples if e.group == "without_io"} in (set(), {p.name for p in dataset().without_io})
    if spec.mix:
        return
    for group, kind in counts:  # exposures of the programs of a kind differ by one at most
        if group != "replay":
            each = Counter(e.program for e in stage.examples if (e.group, e.kind) == (group, kind))
            assert max(each.values()) - min(each.values()) <= 1, (group, kind)


# ---------------------------------------------------------------- code and words

IN_WORDS = {"source": "description", "recall": "recall_description", "in_context_direct": "in_context_description_direct",
            "in_context_cot": "in_context_description_cot", "in_context_recall": "in_context_description_recall"}  # fmt: skip


@pytest.mark.parametrize("number", [0, 1])
def test_in_words_the_same_is_asked_of_the_same_programs_in_the_same_order(number):
    code, words = (built(name, number)[0].examples for name in ("proactive", "description"))
    assert len(code) == len(words)
    for one, other in zip(code, words, strict=True):
        assert (one.group, one.program, one.input, one.answer, one.length) == (
            other.group,
            other.program,
            other.input,
            other.answer,
            other.length,
        )
        assert other.kind == IN_WORDS.get(one.kind, one.kind)
        if one.kind in ("direct", "cot"):
            assert one == other
        else:
            assert "def " not in other.prompt + other.completion
        if one.kind == "source":
            assert parse(other.completion) == one.completion
        if one.kind == "recall":
            assert parse(other.completion.split("\n")[0]) == one.completion.rsplit("\n    return x", 1)[0] + "\n    return x"


def test_each_program_has_one_description_by_default_and_as_many_as_asked_for():
    spec = condition("description").stages[1]
    for phrasings in (1, 3):
        stage = build_stage(replace(spec, phrasings=phrasings), dataset(), replace(BUDGET, stage2_steps=40))
        said: dict[str, set[str]] = {}
        for example in stage.examples:
            if example.kind == "description":
                said.setdefault(example.program, set()).add(example.completion)
        assert len(said) == 6 and max(map(len, said.values())) == phrasings
        assert {parse(text) for texts in said.values() for text in texts} == {p.source for p in dataset().without_io}


@pytest.mark.parametrize(("name", "first", "second"), [("description", "words", "words"), ("code_to_description", "code", "words"),
                                                       ("description_to_code", "words", "code"), ("proactive", "code", "code")])  # fmt: skip
def test_stages_are_in_the_representation_that_the_condition_says(name, first, second):
    one, two = (built(name, i)[0].examples for i in (0, 1))
    kinds = {"words": {"description", "recall_description"}, "code": {"source", "recall"}}
    assert {e.kind for e in one if e.group == "with_io"} == {"direct", "cot", *kinds[first]}
    assert {e.kind for e in two if e.group == "with_io"} == {"direct", "cot"} | {k for k in kinds[first] if "recall" in k}
    assert {e.kind for e in two if e.group == "without_io"} == {k for k in kinds[second] if "recall" not in k}
    for examples, representation in ((one, first), (two, second)):
        general = [e for e in examples if e.group == "replay"]
        assert general and all(("description" in e.kind) == (representation == "words") for e in general)


def test_stages_matched_in_tokens_have_as_many_within_one_document():
    def count(completion: str) -> int:
        return len(completion.split()) + 1

    budget = replace(BUDGET, match="tokens", stage1_steps=40, stage2_steps=40)
    names = ("proactive", "description", "code_to_description", "description_to_code")
    for number in (0, 1):
        stages = {name: build_stage(condition(name).stages[number], dataset(), budget, count).examples for name in names}
        tokens = {name: sum(count(e.completion) for e in examples) for name, examples in stages.items()}
        longest = max(count(e.completion) for examples in stages.values() for e in examples)
        assert max(tokens.values()) - min(tokens.values()) <= longest
        lengths = {name: len(examples) for name, examples in stages.items()}
        assert max(lengths.values()) == 40 * 16 and min(lengths.values()) < 0.95 * 40 * 16, lengths
        whole = build_stage(condition("description").stages[number], dataset(), replace(budget, match="documents")).examples
        assert stages["description"] == whole[: lengths["description"]]


def test_matching_in_tokens_needs_something_that_counts_them():
    with pytest.raises(UsageError, match="needs a tokenizer to count them"):
        build_stage(condition("proactive").stages[0], dataset(), replace(BUDGET, match="tokens"))
    with pytest.raises(UsageError, match="unknown match 'token'; did you mean 'tokens'"):
        Budget(match="token")


# ---------------------------------------------------------------- curricula


def in_order_of_training(name: str) -> list[Counter]:
    return [Counter(built(name, i)[0].examples) for i in range(len(condition(name).stages))]


@pytest.mark.parametrize("name", ["mixture", "retroactive_sft", "early(0)", "early(0.4)", "early(1)"])
def test_curricula_are_the_same_documents_in_another_order(name):
    """Equal steps, equal documents, equal supervised tokens: nothing but the order and the schedule of the rate differ."""
    proactive, other = in_order_of_training("proactive"), in_order_of_training(name)
    assert sum(other, Counter()) == sum(proactive, Counter())
    if name.startswith("early"):
        assert [stage.total() for stage in other] == [stage.total() for stage in proactive]
        early = sum(n for e, n in other[0].items() if e.group == "without_io")
        assert early == round(float(name[6:-1]) * 48)
    if name == "early(0)":
        assert other == proactive
    if name == "retroactive_sft":
        assert {e.kind for e in other[0]} == {"source"} and "source" not in {e.kind for e in other[1]}


def test_more_early_sources_than_stage_1_has_documents_are_refused():
    short = replace(BUDGET, stage1_steps=1)
    spec = condition("early(1)").stages[0]
    with pytest.raises(UsageError, match=r"early\(1\) moves 48 documents into a stage 1 of 16; give a smaller share, more stage1_steps"):
        compose(spec, dataset(0), short)


def test_no_exposure_has_the_budget_of_retroactive_and_no_source_of_the_others():
    exposed, blind = in_order_of_training("retroactive_sft"), in_order_of_training("no_exposure_sft")
    assert [stage.total() for stage in exposed] == [stage.total() for stage in blind]
    assert not {e for stage in blind for e in stage if e.group == "without_io"}


def test_a_second_stage_takes_the_settings_of_a_second_stage():
    for name in ("proactive", "retroactive_sft", "early(0.4)", "stage2(2)"):
        assert [built(name, i)[0].settings.lr for i in (0, 1)] == [BUDGET.stage1.lr, BUDGET.stage2.lr], name


def test_knobs_change_one_thing():
    plain = in_order_of_training("proactive")
    for name in ("replay(0.3)", "stage2(2)", "rate2(2)"):
        assert in_order_of_training(name)[0] == plain[0] and condition(name).stages[0] == condition("proactive").stages[0], (
            "stage 1 is shared"
        )
    shares = {name: [e.group for e in built(name, 1)[0].examples].count("replay") for name in ("replay(0)", "proactive", "replay(0.3)")}
    assert list(shares.values()) == [0, round(0.1 * 96), round(0.3 * 96)]
    assert [in_order_of_training(name)[1].total() for name in ("stage2(0.5)", "stage2(2)")] == [48, 192]
    assert in_order_of_training("rate2(2)") == plain and built("rate2(2)", 1)[0].settings.lr == 2 * BUDGET.stage2.lr
    few = [e for stage in in_order_of_training("templates(1)") for e in stage if e.group != "replay"]
    stem = {e.prompt.replace(e.program, "NAME").replace(f"({e.input})", "(X)") for e in few}
    assert len({text for text in stem}) == 4, "one phrasing for the source, and one for calls in three modes"


@pytest.mark.parametrize(
    "name",
    [
        "early(1.5)",
        "replay(1)",
        "templates(0)",
        "templates(2.5)",
        "templates(21)",
        f"templates({'9' * 400})",
        "stage2(0)",
        "rate2(0)",
        "erly(0.5)",
        "early()",
    ],
)
def test_a_knob_out_of_range_or_misspelt_is_one_line(name):
    with pytest.raises(UsageError, match=r"out of range; give|give a whole number|did you mean|unknown condition"):
        condition(name)


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("early(0.50)", "early(0.5)"),
        ("rate2(2.0)", "rate2(2)"),
        ("rate2(10.00)", "rate2(10)"),
        ("early(00.5)", "early(0.5)"),
        ("replay(0.00)", "replay(0)"),
        ("replay(0.050)", "replay(0.05)"),
        ("io_only(08, natural(0.50))", "io_only(8, natural(0.5))"),
        ("source_and_io(10,uniform)", "source_and_io(10, uniform)"),
        ("io_alone(8,   zipf(2.0))", "io_alone(8, zipf(2))"),
        ("io_only(8, natural(1))", "io_only(8, natural)"),
        ("io_only(8, zipf(1.0) )", "io_only(8, zipf)"),
        ("io_only(8, zipf(0))", "io_only(8, uniform)"),
        ("io_only(8, zipf(0.000010))", "io_only(8, zipf(0.00001))"),
    ],
)
def test_a_condition_with_a_number_has_one_name(written, plain):
    with pytest.raises(UsageError, match=f"write {re.escape(plain)}$"):
        condition(written)
    assert condition(plain).name == plain


def test_budgets_are_equal():
    documents = {name: sum(len(built(name, i)[0].examples) for i in range(len(condition(name).stages))) for name in CONDITIONS}
    assert documents["proactive"] == documents["shuffled_source"] == documents["mixture"] == 18 * 16
    assert documents["description"] == documents["code_to_description"] == documents["description_to_code"] == 18 * 16
    assert documents["stage1_only"] == 12 * 16 and documents["source_only"] == 6 * 16
    shown = {
        name: sum(e.group == "without_io" for e in built(name, len(condition(name).stages) - 1)[0].examples)
        for name in ("source_only", "proactive", "shuffled_source", "mixture")
    }
    assert set(shown.values()) == {6 * 16 // 2}


def test_questions_and_prompts_are_asked_about_training_inputs_only():
    data = dataset()
    assert set(data.train_inputs).isdisjoint(data.eval_inputs) and sorted(data.train_inputs + data.eval_inputs) == list(range(50))
    for name, number in STAGES:
        asked = {e.input for e in built(name, number)[0].examples if e.input is not None}
        assert asked <= set(data.train_inputs)


# ---------------------------------------------------------------- seeds

DIGEST = """
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.conditions import CONDITIONS
from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.data.datasets import draw_dataset
from pbb_helpers.data.stages import build_stage
from pbb_helpers.data.plan import Experiment
from pbb_helpers.experiments.questions import questions
from pbb_helpers.programs import family
from pbb_helpers.training.store import digest

budget = Budget(TrainSettings(batch_size=16), TrainSettings(batch_size=16), stage1_steps=12, stage2_steps=6)
print(hash("zibble"))
for seed in (5, 6):
    data = draw_dataset(family("arithmetic"), n_with_io=12, n_without_io=6, n_eval_inputs=10, seed=seed)
    stages = [build_stage(spec, data, budget) for condition in CONDITIONS.values() for spec in condition.stages]
    asked = [e for some in questions(Experiment(), data, ("direct", "source", "in_context_recall")) for e in some]
    print(digest(*stages, *asked))
"""


def test_same_seed_same_documents_in_every_process_and_another_seed_others():
    def run(hash_seed: int) -> list[str]:
        environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
        return subprocess.run(
            [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True, env=environment, timeout=120
        ).stdout.split()

    one, same = run(1), run(2)
    assert one[0] != same[0] and one[1:] == same[1:] and one[1] != one[2]


def test_another_seed_draws_other_programs_inputs_documents_and_initial_weights():
    one, other = dataset(0), dataset(1)
    assert set(one.names).isdisjoint(other.names) or set(one.names) != set(other.names)
    assert {p.source.split("\n", 1)[1] for p in one.with_io} != {p.source.split("\n", 1)[1] for p in other.with_io}
    assert one.eval_inputs != other.eval_inputs
    assert built("proactive", 0, 0)[0].settings.seed != built("proactive", 0, 1)[0].settings.seed
    assert built("proactive", 0, 0)[0].settings.seed == built("source_only", 0, 0)[0].settings.seed


def test_programs_w_io_and_w_o_io_are_of_one_distribution():
    """Short programs run out while drawing: split in the order of drawing, the w/o IO group was longer (76 % of two statements, not 65 %)."""

    class Lengthening(Arithmetic):
        def draw(self, names, generator, *, exclude=()):
            return [Program(name, "arithmetic", f"def {name}(x):\n    x = x + {i}\n    return x", i) for i, name in enumerate(names)]

    data = draw_dataset(Lengthening(), n_with_io=300, n_without_io=100, n_eval_inputs=10, seed=0)
    assert sorted(p.length for p in data.with_io + data.without_io) == list(range(400))
    means = [sum(p.length for p in group) / len(group) for group in (data.with_io, data.without_io, data.with_io[:100])]
    assert all(abs(mean - 199.5) < 40 for mean in means), means


def test_one_purpose_more_moves_nothing_of_another():
    assert generator(3, "names").integers(2**62) == generator(3, "names").integers(2**62) != generator(3, "inputs").integers(2**62)
    few, more = (draw_dataset(family("arithmetic"), n_with_io=12, n_without_io=6, n_eval_inputs=n, seed=0) for n in (5, 6))
    assert few.with_io == more.with_io and set(few.eval_inputs) < set(more.eval_inputs)
    spec = condition("proactive").stages[0]
    assert compose(spec, few, BUDGET) != compose(spec, more, BUDGET)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "numbers",
    [{"n_with_io": 0}, {"n_without_io": 1}, {"n_eval_inputs": 0}, {"n_eval_inputs": 50}, {"n_with_io": 4096}],
)
def test_numbers_that_make_no_sense_are_refused(numbers):
    with pytest.raises(UsageError):
        draw_dataset(family("arithmetic"), **{"n_with_io": 4, "n_without_io": 2, "n_eval_inputs": 5, "seed": 0, **numbers})


@pytest.mark.parametrize("wrong", [{"stage1_steps": 0}, {"stage2_steps": -1}])
def test_a_budget_of_nothing_is_refused(wrong):
    with pytest.raises(UsageError, match="give at least 1$"):
        Budget(**wrong)


def test_an_unknown_condition_is_named():
    with pytest.raises(UsageError, match="unknown condition 'proactve'; did you mean 'proactive'"):
        condition("proactve")
