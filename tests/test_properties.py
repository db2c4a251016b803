"""What holds for every input that a generator finds: programs, documents, parsing, parameters, leaks, intervals, keys. Seeded by the tests' names."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import os
from pathlib import Path

import fuzz
import nbformat
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pbb_helpers.analysis import intervals
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.conditions import CONDITIONS
from pbb_helpers.data.datasets import Dataset, draw_dataset
from pbb_helpers.data.documents import (
    CALL_TEMPLATES,
    EVERY_MODE,
    SOURCE_TEMPLATES,
    Example,
    call_document,
    chain_of_thought,
    source_document,
    way_of_answering,
)
from pbb_helpers.data.leaks import LeakError, leak_check
from pbb_helpers.data.settings import Stage, TrainSettings
from pbb_helpers.data.specs import StageSpec
from pbb_helpers.data.stages import build_stage
from pbb_helpers.families import FAMILIES
from pbb_helpers.families.names import made_up_names
from pbb_helpers.parameters import Parameter, parse, parse_cell, resolve
from pbb_helpers.programs import Program, UsageError, arguments, behaviour, family
from pbb_helpers.running.engine import Literals
from pbb_helpers.training.evaluate import INTEGER, TEXT, Generation, parse_answer, score
from pbb_helpers.training.store import digest


def repeatable(examples: int) -> settings:
    """Returns settings under which a test draws the same examples every time."""
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None)


ANSWER_MODES = [mode for mode in EVERY_MODE if mode not in ("source", "description")]
INPUTS = family("arithmetic").inputs()
seeds = st.integers(0, 2**40)
names = st.sampled_from(made_up_names())


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Draws a program of any family, with its default settings."""
    return FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))]().sketch(draw(names), np.random.default_rng(draw(seeds)))


# ---------------------------------------------------------------- programs


@repeatable(60)
@given(program=programs(), data=st.data())
def test_a_program_is_the_python_of_its_source_and_its_trace_ends_in_what_it_returns(program: Program, data: st.DataObject) -> None:
    x = data.draw(st.sampled_from(FAMILIES[program.family]().inputs()))
    (function,) = ast.parse(program.source).body
    assert (
        isinstance(function, ast.FunctionDef) and function.name == program.name and ast.unparse(ast.parse(program.source)) == program.source
    )
    namespace: dict = {}
    exec(program.source, namespace)  # with all of Python's builtins: the short list takes nothing away
    steps = program.trace(x)
    assert program.run(x) == namespace[program.name](*arguments(x)) == steps[-1].value == behaviour(program, [x])[0]
    assert all(before.after == after.before for before, after in zip(steps, steps[1:], strict=False))


@repeatable(60)
@given(program=programs(), name=names, other=names)
def test_a_name_is_a_name_only(program: Program, name: str, other: str) -> None:
    inputs = FAMILIES[program.family]().inputs()
    renamed = program.renamed(name)
    assert behaviour(renamed, inputs) == behaviour(program, inputs)
    assert renamed.renamed(other) == program.renamed(other) and program.renamed(program.name) == program
    assert renamed.source.startswith(f"def {name}(") and (program.name == name or program.name not in renamed.source)


@repeatable(12)
@given(seed=seeds, n=st.integers(2, 12))
def test_a_dataset_is_split_in_programs_inputs_and_behaviours(seed: int, n: int) -> None:
    data = draw_dataset(family("arithmetic"), n_with_io=n, n_without_io=n, n_eval_inputs=10, seed=seed)
    outputs = [behaviour(program, INPUTS) for program in data.with_io + data.without_io]
    assert len(set(outputs)) == 2 * n == len(set(data.names)) and all(len(set(some)) > 1 for some in outputs)
    assert data.behaviours == set(outputs[n:]) and sorted(data.train_inputs + data.eval_inputs) == INPUTS


# ---------------------------------------------------------------- documents and answers


@repeatable(80)
@given(program=programs(), mode=st.sampled_from(ANSWER_MODES), data=st.data())
def test_the_gold_completion_scores_and_a_changed_one_does_not(program: Program, mode: str, data: st.DataObject) -> None:
    x = data.draw(st.sampled_from(FAMILIES[program.family]().inputs()))
    example = call_document(program, "with_io", mode, x, data.draw(st.integers(0, len(CALL_TEMPLATES) - 1)))
    assert score(example, Generation(example.completion, finished=True))["correct"]
    assert not score(example, Generation(example.completion, finished=False))["correct"]
    cut = example.completion[: data.draw(st.integers(0, len(example.completion) - 1))]
    row = score(example, Generation(cut, finished=True))
    assert row["correct"] == (row["answer"] == example.answer) and (mode.endswith("direct") or not row["correct"])
    if way_of_answering(mode)[0] == "recall":
        assert example.completion == f"{program.source}\n{chain_of_thought(program, x)}"


@repeatable(60)
@given(program=programs(), template=st.integers(0, len(SOURCE_TEMPLATES) - 1), end=st.sampled_from(["", "\n", "  \n\n"]))
def test_a_source_is_recalled_to_the_letter_or_not_at_all(program: Program, template: int, end: str) -> None:
    example = source_document(program, "without_io", template)
    assert score(example, Generation(program.source + end, finished=True))["correct"]
    for wrong in (program.source[:-1], " " + program.source, program.source.replace("return", "yield"), program.source + "\n# done"):
        assert not score(example, Generation(wrong, finished=True))["correct"]


@repeatable(300)
@given(text=st.text(max_size=60), mode=st.sampled_from(EVERY_MODE), output=st.sampled_from([INTEGER, TEXT]))
def test_any_text_at_all_is_parsed_without_an_error(text: str, mode: str, output: str) -> None:
    found = parse_answer(mode, text, output)
    if found is not None and mode != "source":
        assert found.isascii() and (str(int(found)) == found if output == INTEGER else found.isalpha() and found.isupper())


@repeatable(100)
@given(number=st.integers(-(10**6), 10**6), mode=st.sampled_from(ANSWER_MODES),
       digits=st.sampled_from(["０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "⁰¹²³⁴⁵⁶⁷⁸⁹"]))  # fmt: skip
def test_an_integer_counts_as_python_prints_it_and_in_no_other_way(number: int, mode: str, digits: str) -> None:
    lead = "" if mode.endswith("direct") else "x = 1 = 1\nreturn "
    assert parse_answer(mode, f"{lead}{number}") == str(number)
    foreign = str(number).translate({ord("0") + i: digit for i, digit in enumerate(digits)})
    for other in (
        foreign,
        f"+{abs(number)}",
        f"0{abs(number)}",
        f"{number}.",
        f"{number}.0",
        f"{number:.1e}",
        f"{abs(number) + 1000:,}",
        f"- {abs(number)}",
        f"({number})",
    ):
        assert parse_answer(mode, f"{lead}{other}") is None, other
    assert parse_answer(mode, f"{lead}{number}\nso") is None


# ---------------------------------------------------------------- parameters

plain = st.text(max_size=20)
VALUES = {
    "int": st.integers(), "float": st.floats(allow_nan=False, allow_infinity=False), "str": st.text(st.characters(), max_size=30), "bool": st.booleans(),
    "int | None": st.integers() | st.none(), "list[int]": st.lists(st.integers(), min_size=1), "list[float]": st.lists(st.floats(-1e9, 1e9), min_size=1),
    "list[str]": st.lists(plain, min_size=1), "tuple[int, ...]": st.lists(st.integers(), min_size=1).map(tuple), "dict[str, int]": st.dictionaries(plain, st.integers()),
    "dict": st.dictionaries(plain, st.none() | plain | st.lists(st.integers())), "list[str] | None": st.none() | st.lists(plain, min_size=1),
}  # fmt: skip
typed = st.sampled_from(sorted(VALUES)).flatmap(lambda kind: st.tuples(st.just(kind), VALUES[kind]))


@repeatable(150)
@given(typed=typed)
def test_a_value_of_every_type_comes_through_the_cell_the_command_line_and_papermill(typed: tuple) -> None:
    kind, value = typed
    parameter = parse_cell(f"x: {kind} = {ascii(value)}")["x"]
    assert parameter.default == value and resolve({"x": parameter}, {"x": value}) == {"x": value}
    given_as = value if kind == "str" else ascii(value)
    assert parse(parameter, given_as) == value and type(parse(parameter, given_as)) is type(value)
    namespace: dict = {}
    exec(Literals.codify({"x": value}), namespace)
    assert namespace["x"] == value and type(namespace["x"]) is type(value)


@repeatable(150)
@given(typed=typed, other=typed, name=st.text(max_size=12))
def test_a_wrong_value_or_name_is_one_line_and_never_another_error(typed: tuple, other: tuple, name: str) -> None:
    parameter = parse_cell(f"x: {typed[0]} = {ascii(typed[1])}")["x"]
    for given_as, is_typed in ((other[1], False), (ascii(other[1]), True)):
        try:
            resolve({"x": parameter}, {"x": given_as}, typed=is_typed)
        except UsageError as error:
            assert "\n" not in str(error) and "parameter 'x' takes" in str(error)
    assume(name != "x")
    with pytest.raises(UsageError, match="^unknown parameter"):
        resolve({"x": parameter}, {name: 1})


@repeatable(100)
@given(
    st.one_of(
        st.sets(st.integers()),
        st.binary(),
        st.complex_numbers(),
        st.just(...),
        st.just([b"a"]),
        st.just({(1, 2): 3}),
        st.just({1: 2, "a": 3}),
        st.just([math.nan]),
    )
)
def test_what_json_cannot_hold_is_no_parameter(value: object) -> None:
    parameter = Parameter("x", type(value), None, "")
    with pytest.raises(UsageError):
        resolve({"x": parameter}, {"x": value})
    with pytest.raises(UsageError):
        parse_cell(f"x = {value!r}")


# ---------------------------------------------------------------- leaks

BUDGET = Budget(TrainSettings(batch_size=8), TrainSettings(batch_size=8), stage1_steps=4, stage2_steps=4)
SPECS = sorted({spec for condition in CONDITIONS.values() for spec in condition.stages}, key=repr)


@functools.lru_cache(maxsize=64)
def staged(seed: int, place: int) -> tuple[Stage, StageSpec, Dataset]:
    data = draw_dataset(family("arithmetic"), n_with_io=8, n_without_io=4, n_eval_inputs=10, seed=seed)
    return build_stage(SPECS[place], data, BUDGET), SPECS[place], data


stages = st.builds(staged, st.integers(0, 5), st.integers(0, len(SPECS) - 1))


def planted(draw: st.DrawFn, data: Dataset) -> str:
    """Draws a text that no document may hold: a call on a held-out input, or the name of a w/o IO program beside what it gives."""
    hidden, known = draw(st.sampled_from(data.without_io)), draw(st.sampled_from(data.with_io))
    held_out, x = draw(st.sampled_from(data.eval_inputs)), draw(st.sampled_from(INPUTS))
    space = draw(st.sampled_from(["", " ", "\t", "\n"]))
    name = draw(st.sampled_from([hidden.name, hidden.name.upper(), f"_{hidden.name}_", f"{hidden.name}{x}", f"{hidden.name}."]))
    shapes = [
        f"{known.name}{space}({space}{held_out}{space})", f"{known.name}(x={held_out})", f"{known.name}(+{held_out})", f"{known.name}(0{held_out},)",
        f"{known.name}({held_out}) = {known.run(held_out)}", f"{name} gives {hidden.run(x)} at {x}", f"{name}({x})", f"{name} -> {hidden.run(x)}", chain_of_thought(hidden, x) + f" by {name}",
        hidden.renamed(draw(names)).source,
    ]  # fmt: skip
    return draw(st.sampled_from(shapes))


@repeatable(40)
@given(staged=stages)
def test_every_stage_that_is_drawn_passes(staged: tuple) -> None:
    stage, spec, data = staged
    assert leak_check(stage, spec, data) == len(stage.examples)


@repeatable(120)
@given(staged=stages, draw=st.data())
def test_a_leak_planted_anywhere_in_any_document_is_caught(staged: tuple, draw: st.DataObject) -> None:
    stage, spec, data = staged
    text = draw.draw(st.composite(planted)(data))
    place = draw.draw(st.integers(0, len(stage.examples) - 1))
    example: Example = stage.examples[place]
    where = draw.draw(st.sampled_from(["prompt", "completion"]))
    old = getattr(example, where)
    at = draw.draw(st.sampled_from([0, len(old), *(i for i, c in enumerate(old) if c == "\n")]))
    leaky = dataclasses.replace(example, **{where: f"{old[:at]}\n{text}\n{old[at:]}"})
    assert f"{leaky.prompt}{leaky.completion}" != f"{example.prompt}{example.completion}"
    with pytest.raises(LeakError, match="nothing was trained"):
        leak_check(dataclasses.replace(stage, examples=(*stage.examples[:place], leaky, *stage.examples[place + 1 :])), spec, data)


# ---------------------------------------------------------------- intervals


@st.composite
def counted(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draws correct answers and answers, both (programs, seeds)."""
    shape = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    generator = np.random.default_rng(draw(seeds))
    counts = np.full(shape, draw(st.integers(1, 4)))
    return generator.binomial(counts, draw(st.floats(0, 1))).astype(float), counts.astype(float)


@repeatable(80)
@given(counted=counted())
def test_an_interval_holds_its_estimate_and_one_program_has_none(counted: tuple) -> None:
    totals, counts = counted
    interval = intervals.share_interval(totals, counts, n_boot=200, seed=0)
    estimate = float(intervals.mean_of_seeds(totals.sum(axis=0), counts.sum(axis=0)))
    if len(totals) < 2:
        assert interval.kind == "none" and math.isnan(interval.low) and math.isnan(interval.high)
    else:
        assert 0 <= interval.low <= estimate + 1e-9 and estimate - 1e-9 <= interval.high <= 1 and interval.low < interval.high


@repeatable(100)
@given(counts=st.lists(st.integers(0, 200), min_size=3, max_size=3).map(sorted))
def test_wilson_rises_with_the_share_narrows_with_n_and_mirrors(counts: list[int]) -> None:
    k, more, n = counts
    assume(n)
    (low, high), (low_more, high_more) = intervals.wilson(k / n, n), intervals.wilson(more / n, n)
    if n < 2:
        assert math.isnan(low) and math.isnan(high)
        return
    assert low <= low_more and high <= high_more and 0 <= low <= k / n <= high <= 1
    wide, narrow = (high - low), np.subtract(*intervals.wilson(k / n, 2 * n)[::-1])
    assert narrow < wide
    mirrored = intervals.wilson(1 - k / n, n)
    assert mirrored == pytest.approx((1 - high, 1 - low))
    for both in (max(0, k + more - n) / n, k * more / n**2, k / n):  # as few right in both as can be, by chance, as many
        found = intervals.newcombe(more / n, k / n, both, n)
        assert found == pytest.approx(tuple(-x for x in intervals.newcombe(k / n, more / n, both, n))[::-1])
        assert -1 <= found[0] <= (more - k) / n <= found[1] <= 1


@repeatable(100)
@given(values=st.lists(st.floats(0, 1), max_size=8))
def test_the_interval_over_seeds_holds_their_mean_or_does_not_exist(values: list[float]) -> None:
    low, high = intervals.t_interval(values)
    if len(values) < 2 or np.ptp(values) < 1e-12:
        assert math.isnan(low) and math.isnan(high)
    else:
        assert 0 <= low <= np.mean(values) <= high <= 1


@pytest.mark.parametrize("df", range(1, 200))
def test_t_falls_towards_the_normal(df: int) -> None:
    assert intervals.t_quantile(df) > intervals.t_quantile(df + 1) > intervals.Z


# ---------------------------------------------------------------- keys

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
data = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6
)


def normal(value: object) -> str:
    """Returns what tells apart all that JSON tells apart, written without JSON."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {normal(value[key])}' for key in sorted(value))}}}"
    return f"[{', '.join(map(normal, value))}]" if isinstance(value, list) else f"{type(value).__name__} {value!r}"


@repeatable(200)
@given(one=st.lists(data, max_size=3), other=st.lists(data, max_size=3))
def test_keys_are_equal_where_the_parts_are_and_nowhere_else(one: list, other: list) -> None:
    assert (digest(*one) == digest(*other)) == (normal(one) == normal(other))


@repeatable(100)
@given(mapping=st.dictionaries(st.text(), leaves, min_size=2), order=st.randoms(use_true_random=False))
def test_the_order_of_a_dict_does_not_matter_and_that_of_parts_does(mapping: dict, order) -> None:
    items = list(mapping.items())
    order.shuffle(items)
    assert digest(dict(items)) == digest(mapping)
    first, second = [str(key) for key in mapping][:2]
    assert digest(first, second) != digest(second, first) != digest(first + second)


@repeatable(100)
@given(
    example=st.builds(Example, *(st.text(max_size=5) for _ in range(5)), st.integers(), st.text(max_size=5), st.integers()),
    change=st.data(),
)
def test_a_change_in_any_field_of_a_document_changes_its_key(example: Example, change: st.DataObject) -> None:
    field = change.draw(st.sampled_from(dataclasses.fields(example)))
    value = change.draw(st.integers() if isinstance(getattr(example, field.name), int) else st.text(max_size=5))
    changed = dataclasses.replace(example, **{field.name: value})
    assert (digest(changed) == digest(example)) == (changed == example)


# ---------------------------------------------------------------- fuzzing

FUZZ = int(os.environ.get("PBB_FUZZ", "2000"))
"""How many inputs of each kind; `python -m tests.fuzz` takes a number for each."""


@pytest.mark.parametrize(
    ("one", "share"), [(fuzz.answer, 1.0), (fuzz.parameter, 1.0), (fuzz.page, 0.1)], ids=lambda one: getattr(one, "__name__", "")
)
def test_random_inputs_find_nothing(one, share: float) -> None:
    count = int(FUZZ * share)
    assert fuzz.fuzz(one, count) > count / 2


@repeatable(100)
@given(cells=st.lists(st.tuples(st.sampled_from(["code", "markdown", "raw"]), st.text(max_size=30)), max_size=4), cut=st.integers(0, 400))
def test_half_a_notebook_is_refused_in_one_line(cells: list, cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    from pbb_helpers.parameters import read_notebook

    path = Path(tmp_path_factory.getbasetemp()) / "half.ipynb"
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell, "raw": nbformat.v4.new_raw_cell}
    whole = nbformat.writes(nbformat.v4.new_notebook(cells=[make[kind](text) for kind, text in cells]))
    path.write_text(whole[: -1 - cut % len(whole)], encoding="utf-8")
    with pytest.raises(UsageError, match="is not a readable notebook") as error:
        read_notebook(path)
    assert "\n" not in str(error.value)
