"""Compositions run as Python runs them, leak nothing, and are held against the right product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pbb_helpers.analysis import verdicts
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.compositions import KINDS, SHOWN, compose, kind, with_compositions
from pbb_helpers.data.conditions import condition
from pbb_helpers.data.datasets import Dataset, draw_dataset, generator
from pbb_helpers.data.documents import MODES, call_document, chain_of_thought, source_document
from pbb_helpers.data.leaks import LeakError, leak_check
from pbb_helpers.data.plan import Experiment
from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.data.stages import build_stage
from pbb_helpers.experiments import composition_plan, composition_results, profiles
from pbb_helpers.experiments.leak_report import leak_report
from pbb_helpers.experiments.questions import calls_asked, floors, questions
from pbb_helpers.families.arithmetic import Arithmetic
from pbb_helpers.figures import plots_composition
from pbb_helpers.programs import BUILTINS, Program, UsageError, behaviour, family

BUDGET = Budget(TrainSettings(batch_size=16), TrainSettings(batch_size=16, lr=1e-3), stage1_steps=12, stage2_steps=6)
PLAN = replace(composition_plan.SMOKE, n_with_io=16, n_without_io=10, n_eval_inputs=10, inputs_per_program=2, n_composed_with_io=8,
               n_composed_without_io=4, budget=BUDGET)  # fmt: skip
GOLDS = {"g": "def g(x):\n    x = x + 3\n    return x", "f": "def f(x):\n    x = x * 2\n    return x"}
INNER, OUTER = (Program(name, "arithmetic", source, 1) for name, source in GOLDS.items())


def data(seed: int = 0) -> Dataset:
    return PLAN.dataset(seed)


def composed(dataset: Dataset) -> list[Program]:
    return [program for program in dataset.with_io + dataset.without_io if program.calls]


# ---------------------------------------------------------------- execution


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), x=st.integers(0, 49))
def test_answer_and_steps_are_those_of_python_on_the_concatenated_sources(seed: int, x: int) -> None:
    inner, outer = Arithmetic(max_statements=3).draw(["quorn", "florp"], generator(seed, "test"))
    program = compose("mantix", outer, inner)
    namespace: dict = {"__builtins__": BUILTINS}
    exec("\n\n".join([inner.source, outer.source, program.source]), namespace)  # noqa: S102 - the oracle
    value, result = namespace["quorn"](x), namespace["mantix"](x)
    assert result == namespace["florp"](value) == program.run(x)
    assert program.called(x) == [(inner, x), (outer, value)]
    steps = f"quorn({x})\n{chain_of_thought(inner, x)}\nflorp({value})\n{chain_of_thought(outer, value)}"
    assert chain_of_thought(program, x) == steps and steps.endswith(f"\nreturn {result}")
    assert [(step.line, step.value) for step in program.trace(x)] == [("return florp(quorn(x))", result)]
    recalled = [call_document(p, "with_io", "recall", v, 0).completion for p, v in ((inner, x), (outer, value))]
    completion = call_document(program, "with_io", "recall", x, 0).completion
    assert completion == f"{program.source}\nquorn({x})\n{recalled[0]}\nflorp({value})\n{recalled[1]}"


def test_a_renamed_composition_still_calls_its_parts() -> None:
    program = compose("h", OUTER, INNER).renamed("other")
    assert program.source == "def other(x):\n    return f(g(x))" and program.run(5) == 16 and program.called(5) == [(INNER, 5), (OUTER, 8)]


def test_all_three_sources_stand_in_the_prompt() -> None:
    program = compose("h", OUTER, INNER)
    prompt = call_document(program, "without_io", "in_context_cot", 5, 0).prompt
    assert prompt.startswith(f"{INNER.source}\n\n{OUTER.source}\n\n{program.source}\n\nWhat does h(5) return?")


# ---------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("seed", range(3))
def test_every_kind_is_drawn_and_all_programs_differ(seed: int) -> None:
    dataset = data(seed)
    every = sorted(dataset.train_inputs + dataset.eval_inputs)
    counts = Counter(kind(p, dataset) for p in dataset.with_io + dataset.without_io)
    assert counts == {"with_io": 16, "without_io": 10, SHOWN: 8, **dict.fromkeys(KINDS, 4)}
    behaviours = [behaviour(p, every) for p in dataset.with_io + dataset.without_io]
    assert len(set(behaviours)) == len(behaviours) and len(set(dataset.names)) == len(dataset.names)
    assert dataset.behaviours == {behaviour(p, every) for p in dataset.without_io}
    hidden = {p.name for p in dataset.without_io}
    for program in composed(dataset):
        shown = [part.name not in hidden for part in program.calls]
        expected = {SHOWN: 2, KINDS[0]: 2, KINDS[1]: 1, KINDS[2]: 0}[kind(program, dataset)]
        assert sum(shown) == expected and program.length == sum(part.length for part in program.calls)
        assert len(dataset.held_out_of(program)) >= PLAN.inputs_per_program and dataset.inputs_of(program)
    orders = {part.name in hidden for p in composed(dataset) if kind(p, dataset) == KINDS[1] for part in p.calls[:1]}
    assert orders == {True, False}, "either part of one of each may be the inner one"
    for name in KINDS:
        parts = Counter(part.name for p in composed(dataset) if kind(p, dataset) == name for part in p.calls)
        assert max(parts.values()) <= 2


def test_parts_are_the_same_with_and_without_compositions() -> None:
    plain = replace(PLAN, n_composed_with_io=0, n_composed_without_io=0).dataset(0)
    assert data().with_io[:16] == plain.with_io and data().without_io[:10] == plain.without_io
    assert (data().train_inputs, data().eval_inputs) == (plain.train_inputs, plain.eval_inputs)
    assert not composed(plain) and plain.inputs_of(plain.with_io[0]) == plain.train_inputs


def test_too_many_compositions_are_refused_in_one_line() -> None:
    few = draw_dataset(family("arithmetic"), n_with_io=3, n_without_io=2, n_eval_inputs=5, seed=0)
    with pytest.raises(UsageError, match="ask for fewer or draw more programs"):
        with_compositions(few, n_with_io=20, n_each=1, fewest=1)
    with pytest.raises(UsageError, match="names are left; ask for fewer"):
        with_compositions(few, n_with_io=5000, n_each=1, fewest=1)
    for numbers in ({"n_composed_with_io": -1}, {"n_composed_with_io": 2, "n_composed_without_io": 0}):
        with pytest.raises(UsageError, match="compositions w/ IO"):
            replace(PLAN, **numbers)


# ---------------------------------------------------------------- leaks

STAGES = [(name, i) for name in composition_plan.FULL.conditions for i in range(len(condition(name).stages))]


@pytest.mark.parametrize(("name", "number"), STAGES)
def test_every_stage_is_clean_and_no_intermediate_value_is_held_out(name: str, number: int) -> None:
    dataset = data()
    stage = build_stage(condition(name).stages[number], dataset, BUDGET)
    programs = {p.name: p for p in composed(dataset)}
    asked = [e for e in stage.examples if e.program in programs and e.input is not None]
    assert asked and all(e.group == "with_io" for e in asked)
    passed_on = {value for e in asked for _, value in programs[e.program].called(e.input)}
    assert passed_on <= set(dataset.train_inputs)


def planted(dataset: Dataset) -> dict:
    shown = next(p for p in dataset.with_io if p.calls)
    hidden = {name: next(p for p in dataset.without_io if kind(p, dataset) == name) for name in KINDS}
    candidates = [p for p in dataset.with_io if p.calls]
    passing, x = next((p, x) for p in candidates for x in dataset.train_inputs if p.calls[0].run(x) in dataset.eval_inputs)
    found = {
        f"held-out value passed on, {mode}": call_document(passing, "with_io", mode, x, 3)
        for mode in ("direct", "cot", "recall", "in_context_direct")
    }
    found |= {
        f"I/O of {name}, {mode}": call_document(p, "without_io", mode, dataset.inputs_of(p)[0], 1)
        for name, p in hidden.items()
        for mode in ("direct", "cot", "recall")
    }
    found["a w/o IO composition under a w/ IO name"] = source_document(hidden[KINDS[0]].renamed(shown.name), "with_io", 0)
    stranger = compose(shown.name, hidden[KINDS[2]].calls[1], shown.calls[0])
    found["a w/o IO part inside a demonstrated composition"] = call_document(stranger, "with_io", "cot", 3, 0)
    found["a held-out input"] = call_document(shown, "with_io", "direct", dataset.held_out_of(shown)[0], 0)
    return found  # fmt: skip


@pytest.mark.parametrize("leak", planted(data()))
def test_a_planted_leak_is_caught(leak: str) -> None:
    dataset, spec = data(), condition("proactive").stages[0]
    stage = build_stage(spec, dataset, BUDGET)
    with pytest.raises(LeakError, match="nothing was trained"):
        leak_check(replace(stage, examples=(*stage.examples[1:], planted(dataset)[leak])), spec, dataset)


def test_a_demonstrated_composition_of_a_hidden_part_is_a_leak_even_where_no_part_is_named() -> None:
    dataset = data()
    ill = compose("h", next(p for p in dataset.without_io if not p.calls), dataset.with_io[0])
    dataset, spec = replace(dataset, with_io=(*dataset.with_io, ill)), condition("stage1_only").stages[0]
    x = dataset.inputs_of(ill)[0]
    stage = replace(build_stage(spec, data(), BUDGET), examples=(call_document(ill, "with_io", "direct", x, 0),))
    assert ill.calls[1].name not in stage.examples[0].prompt + stage.examples[0].completion
    with pytest.raises(LeakError, match="names a w/o IO program"):
        leak_check(stage, spec, dataset)


def test_compositions_may_be_given_by_pairs_too() -> None:
    for spec in condition("io_only(8, uniform)").stages:
        build_stage(spec, data(), BUDGET)


def test_whether_a_base_model_has_read_calls_stands_on_its_card() -> None:
    models = ("pbb-m-calls", "pbb-m-calls-seed1", "pbb-m", "pbb-small")
    assert [composition_plan.has_read_calls(replace(composition_plan.QUICK, model=model)) for model in models] == [True, True, False, False]


@pytest.mark.parametrize(("notebook", "changes", "message"), [
    (composition_plan.plan, {"n_composed_with_io": 0, "n_composed_without_io": 0}, "n_composed_without_io 0; give at least 1"),
    (profiles.experiment, {"conditions": ["proactive", "shuffled_calls"]}, "shuffled_calls is proactive itself"),
    (composition_plan.plan, {"conditions": ["proactive", "description"]}, "conditions description: .* has no description in words"),
    (composition_plan.plan, {"conditions": ["proactive", "in_context_description", "description_to_code"]}, "in_context_description, desc"),
    (profiles.curricula, {"conditions": ["mixture_named"], "sizes": []}, "conditions mixture_named: none of them is asked for"),
    (profiles.curricula, {"conditions": ["description"], "sizes": []}, "conditions description: none of them is asked for its programs' source"),
    (profiles.proactive, {"conditions": ["description", "in_context"]}, "conditions in_context, description: none of them is asked for"),
    (composition_plan.plan, {"conditions": ["proactive_named"]}, "conditions proactive_named: add one that is trained and asked as it is"),
])  # fmt: skip
def test_an_experiment_that_could_show_nothing_is_refused(notebook: Callable, changes: dict, message: str) -> None:
    values = {"profile": "smoke", "model": "pbb-small", "n_composed_with_io": None, "n_composed_without_io": None, "train_unread": False}
    with pytest.raises(UsageError, match=message):
        notebook(values | changes)


def test_shuffled_calls_differ_from_proactive_in_the_compositions_alone() -> None:
    two, shuffled = (build_stage(condition(name).stages[1], data(), BUDGET).examples for name in ("proactive", "shuffled_calls"))
    programs = {p.name: p for p in data().without_io}
    assert len(two) == len(shuffled)
    for one, other in zip(two, shuffled, strict=True):
        moved = one.group == "without_io" and programs[one.program].calls
        assert (one.program, one.prompt) == (other.program, other.prompt) and (one.completion != other.completion) == bool(moved)
    own = {e.completion.split("\n")[1] for e in two if e.group == "without_io" and programs[e.program].calls}
    assert own == {e.completion.split("\n")[1] for e in shuffled if e.group == "without_io" and programs[e.program].calls}


# ---------------------------------------------------------------- what is asked


def test_parts_are_asked_at_exactly_the_inputs_of_the_compositions() -> None:
    dataset = data()
    asked = [call for calls in calls_asked(PLAN, dataset).values() for call in calls]
    calls = [(p, x) for p, x in asked if p.calls]
    assert len(calls) == 2 * (3 * 4 + PLAN.n_with_io_asked) and all(x in dataset.eval_inputs for _, x in calls)
    parts = [(p.name, x) for p, x in asked if not p.calls]
    assert len(set(parts)) == len(parts) and set(parts) == {(part.name, x) for p, v in calls for part, x in p.called(v)}
    assert all(0 <= x <= 49 for _, x in parts)
    every = [e for some in questions(PLAN, dataset, MODES) for e in some]
    assert {e.group for e in every} == {"with_io", "without_io"} and len({(e.kind, e.program, e.input) for e in every}) == len(every)


def test_questions_are_counted_as_they_are_asked() -> None:
    from pbb_helpers.experiments.jobs import jobs

    asked = sum(len(some) for seed in PLAN.seeds for name in PLAN.conditions for some in questions(PLAN, data(seed), condition(name).modes))
    assert sum(job.questions for job in jobs(PLAN)) == asked


def test_floors_are_fitted_on_demonstrated_compositions_and_scored_by_kind() -> None:
    table = composition_results.floors_by_kind(PLAN)
    names = ["best constant", "identity", "best answer given the input", "inner part alone", "outer part alone"]
    assert sorted(table["floor"]) == sorted(names * 3) and set(table["kind"]) == set(KINDS) and (table["n"] == 8).all()
    calls = [(p, x) for p, x in calls_asked(PLAN, data())["without_io"] if p.calls and kind(p, data()) == KINDS[2]]
    shortcut = table.set_index(["kind", "floor"])["accuracy"][KINDS[2], "outer part alone"]
    assert shortcut == sum(p.calls[1].run(x) == p.run(x) for p, x in calls) / len(calls)
    assert floors(PLAN)["n"].iloc[0] == 3 * 4 * 2, "w/o IO compositions alone"


# ---------------------------------------------------------------- the product of the parts


def by_hand() -> pd.DataFrame:
    """Returns answers whose product is known: 4 questions, inner right in 3, outer in 2, both in 2, the composition in 1 of these."""
    right = [(1, 1, 1), (1, 1, 0), (1, 0, 0), (0, 0, 0)]  # inner, outer, composition
    return pd.DataFrame([
        {"condition": "proactive", "seed": 0, "group": "without_io", "mode": "recall", "program": f"p{i}", "input": 5.0, "gold": "1", "answer": "1",
         "correct": bool(c), "kind": KINDS[0], "inner": float(a), "outer": float(b), "product": float(a * b), "place": "right" if c else "outer part"}
        for i, (a, b, c) in enumerate(right)
    ])  # fmt: skip


def test_the_product_is_taken_question_by_question() -> None:
    line = composition_results.products(by_hand()).iloc[0]
    assert line[["composed", "product", "inner", "outer", "difference"]].tolist() == [0.25, 0.5, 0.75, 0.5, -0.25]
    assert line["product"] != line["inner"] * line["outer"], "3/8 would take the parts for independent"
    assert line[["executed", "own_source"]].tolist() == [0.25, 1.0]
    assert line[["n", "n_programs", "n_both", "given_both"]].tolist() == [4, 4, 2, 0.5]
    assert line["low"] < -0.25 < line["high"] and not line["apart"]


def test_a_composition_that_always_fails_where_its_parts_succeed_is_below_its_product() -> None:
    many = pd.concat([by_hand().assign(program=[f"p{i}_{j}" for j in range(4)]) for i in range(20)], ignore_index=True)
    table = composition_results.products(many.assign(correct=False))
    line = table.iloc[0]
    assert (line["difference"], line["apart"], line["n_programs"]) == (-0.5, True, 80) and line["high"] < 0
    floors_ = pd.DataFrame({"kind": [KINDS[0]], "floor": ["best constant"], "n": [80], "accuracy": [0.3]})
    expected = [
        composition_results.Expected("price", "proactive", KINDS[0], "recall", "product", "below"),
        composition_results.Expected("free", "proactive", KINDS[0], "recall", "product", "no difference shown"),
        composition_results.Expected("null", "proactive", KINDS[0], "recall", "floor", "not above"),
        composition_results.Expected("elsewhere", "proactive", KINDS[1], "recall", "floor", "above"),
    ]
    assert verdicts.outcomes(composition_results.claims(expected, table, floors_))["came true"].tolist() == ["yes", "no", "yes", "-"]
    high = floors_.assign(accuracy=0.6)  # above what free composing would give
    assert composition_results.claims(expected[2:3], table, high)["came_true"].tolist() == ["-"], (
        "a null that could not fail has not come true"
    )
    said = composition_results.sentences(table, floors_)
    assert (
        len(said) == 1 and "below the product" in said[0] and "n = 80 questions over 80 compositions" in said[0] and "floor 30 %" in said[0]
    )
    assert "two w/ IO parts 0 % (0 to 5 %) against a product of 50 % (shown)" in composition_results.headline(table)


def test_parts_are_found_in_the_same_condition_seed_and_mode() -> None:
    """Rows in which each answer is right by a rule of its own: what stands beside a composition must be that of its own cell.

    Answers at inputs of I/O pairs that were shown are about no question that parts were asked.
    """
    dataset = data()
    asked = [(group, p, x) for group, calls in calls_asked(PLAN, dataset).items() for p, x in calls]
    rows = pd.DataFrame([
        {"condition": c, "seed": 0, "mode": m, "group": group, "program": p.name, "input": x, "gold": str(p.run(x)), "answer": str(p.run(x)),
         "correct": (x + len(p.name) + len(c) + len(m)) % 3 > 0, "generated": chain_of_thought(p, x)}
        for c in ("proactive", "stage1_only") for m in ("direct", "cot", "in_context_cot") for group, p, x in asked
    ] + [{"condition": "proactive", "seed": 0, "mode": "source", "group": "with_io", "program": p.name, "input": None, "gold": "", "answer": "",
          "correct": True, "generated": ""} for _, p, _ in asked[:3]]
      + [{"condition": "proactive", "seed": 0, "mode": "direct", "group": "shown", "program": p.name, "input": 1000, "gold": "", "answer": "",
          "correct": True, "generated": ""} for _, p, _ in asked if p.calls])  # fmt: skip
    answers = composition_results.beside_parts(rows, PLAN)
    programs = {p.name: p for p in composed(dataset)}
    assert len(answers) == 6 * sum(bool(p.calls) for _, p, _ in asked)
    for row in answers.itertuples():
        (inner, x), (outer, value) = programs[row.program].called(int(row.input))
        scores = [float((v + len(p.name) + len(row.condition) + len(row.mode)) % 3 > 0) for p, v in ((inner, x), (outer, value))]
        assert [row.inner, row.outer, row.product] == [*scores, scores[0] * scores[1]]
        assert pd.isna(row.place) if row.mode == "direct" else row.place == "right"
        assert row.kind == kind(programs[row.program], dataset)


RIGHT = ["def h(x):", "    return f(g(x))", "g(5)", "def g(x):", "    x = x + 3", "    return x", "x = 5 + 3 = 8", "return 8", "f(8)",
         "def f(x):", "    x = x * 2", "    return x", "x = 8 * 2 = 16", "return 16"]  # fmt: skip
PLACE_OF_LINE = ["own source"] * 2 + ["inner call"] + ["inner part"] * 5 + ["outer call"] + ["outer part"] * 5


@pytest.mark.parametrize("number", range(len(RIGHT)))
def test_the_place_of_the_first_wrong_line_is_named(number: int) -> None:
    program = compose("h", OUTER, INNER)
    assert call_document(program, "with_io", "recall", 5, 0).completion.split("\n") == RIGHT
    for lines in ([*RIGHT[:number], "nonsense", *RIGHT[number + 1 :]], RIGHT[:number]):
        text = "\n".join(lines)
        assert composition_results.first_wrong(program, 5, "recall", text) == PLACE_OF_LINE[number]
        assert composition_results.first_wrong(program, 5, "in_context_recall", text) == PLACE_OF_LINE[number]


def test_a_right_execution_is_right_and_one_that_goes_on_is_not() -> None:
    program, text = compose("h", OUTER, INNER), "\n".join(RIGHT)
    assert composition_results.first_wrong(program, 5, "recall", text + "\n") == "right"
    assert composition_results.first_wrong(program, 5, "recall", text + "\nreturn 16") == "outer part"
    assert composition_results.first_wrong(program, 5, "cot", chain_of_thought(program, 5)) == "right"


# ---------------------------------------------------------------- plan and figures

DEFAULTS = {
    "profile": "smoke",
    "model": "pbb-small",
    "trust_remote_code": False,
    "train_unread": False,
    "n_composed_with_io": None,
    "n_composed_without_io": None,
}


def test_parameters_of_the_notebook() -> None:
    for name, wanted in composition_plan.PROFILES.items():
        assert composition_plan.plan(DEFAULTS | {"profile": name}) == wanted
    changed = composition_plan.plan(DEFAULTS | {"n_composed_with_io": 0, "n_composed_without_io": 5, "n_without_io": 9})
    assert (changed.n_composed_with_io, changed.n_composed_without_io, changed.n_without_io) == (0, 5, 9)
    assert isinstance(changed, Experiment) and changed.n_with_io_asked == composition_plan.SMOKE.n_with_io_asked
    with pytest.raises(UsageError, match="at least 1 w/o IO"):
        composition_plan.plan(DEFAULTS | {"n_composed_without_io": 0})
    said = composition_plan.facts(composition_plan.QUICK)
    assert said["compositions w/ IO, of two w/ IO programs, per seed"] == composition_plan.QUICK.n_composed_with_io


def test_the_leak_report_and_the_examples_read_a_composition_experiment() -> None:
    assert (leak_report(PLAN)["leaks"] == 0).all()
    table = composition_plan.drawn(PLAN)
    assert table["programs"].sum() == 16 + 10 + 8 + 12 and (table["training inputs"] > 0).all()
    text = composition_plan.examples(PLAN)
    assert text.count("=== Trained on, stage 2: source") == 3 and "=== Trained on, stage 1: recall" in text


def test_sources_counts_compositions_that_were_asked_for_their_source() -> None:
    hidden = data().without_io
    rows = pd.DataFrame([
        {"condition": "proactive", "seed": 0, "mode": mode, "group": "without_io", "program": p.name, "input": None, "gold": "", "answer": "",
         "correct": mode == "source" and kind(p, data()) != KINDS[1], "generated": ""}
        for mode in ("source", "recall") for p in hidden
    ])  # fmt: skip
    found = composition_results.sources(rows, PLAN).set_index("kind")
    assert found["accuracy"].to_dict() == {KINDS[0]: 1, KINDS[1]: 0, KINDS[2]: 1} and found["n"].tolist() == [
        sum(kind(p, data()) == name for p in hidden) for name in found.index
    ]


def test_figures_say_n_interval_floor_and_ceiling() -> None:
    many = pd.concat(
        [by_hand().assign(kind=k, condition=c, mode=m) for k in KINDS for c in ("proactive", "in_context") for m in ("cot", "recall")]
    )
    table, floors_ = composition_results.products(many, n_boot=20), composition_results.floors_by_kind(PLAN)
    for fig in (plots_composition.against_product(table, floors_), plots_composition.by_condition(table, floors_)):
        FigureCanvasAgg(fig).draw()
        said = " ".join(" ".join(text.get_text().split()) for text in fig.findobj(match=lambda a: hasattr(a, "get_text")))
        assert "n = 4 answers over 4 compositions, 1 seed" in said and "95 % interval" in said and "floor" in said and "ceiling" in said
    where = composition_results.places(many)
    assert where.groupby(["kind", "condition", "mode"])["share"].sum().eq(1).all()
    FigureCanvasAgg(plots_composition.wrong_places(where)).draw()
    for draw in (
        lambda: plots_composition.against_product(table, floors_, condition="mixture"),
        lambda: plots_composition.wrong_places(where, condition="mixture"),
    ):
        with pytest.raises(UsageError, match="mixture"):
            draw()  # fmt: skip
    reproduced = pd.DataFrame({"kind": KINDS, "condition": "proactive", "accuracy": [0.9, 0.8, 0.7]})
    shown = composition_results.recorded(table, floors_, reproduced)
    assert shown["source reproduced, %"].tolist() == [90, 90, 80, 80, 70, 70]
    assert len(shown) == 6 and shown["right, %"].eq(25).all() and shown["difference, %"].eq(-25).all() and "accuracy" not in shown
