"""Which name stands in a call is told apart by what was shown being called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pbb_helpers.data.compositions import KINDS
from pbb_helpers.data.documents import execution
from pbb_helpers.experiments import composition_calls, composition_results
from pbb_helpers.experiments.composition_plan import SMOKE
from pbb_helpers.figures import plots_composition
from pbb_helpers.programs import Program, UsageError

PLAN = replace(SMOKE, seeds=(0, 1))


def answered(text: Callable[[int, Program, int], str]) -> pd.DataFrame:
    """The table of answers about every w/o IO composition at one held-out input; `text` takes seed, composition and input."""
    rows = []
    for seed in PLAN.seeds:
        dataset = PLAN.dataset(seed)
        for program in dataset.without_io:
            if program.calls:
                x = dataset.held_out_of(program)[0]
                place = composition_results.first_wrong(program, x, "recall", text(seed, program, x))
                rows.append({"condition": "c", "seed": seed, "group": "without_io", "mode": "recall", "kind": KINDS[0], "program": program.name,
                             "input": float(x), "generated": text(seed, program, x), "place": place})  # fmt: skip
    return composition_calls.calls(pd.DataFrame(rows), PLAN)


def recalled(program: Program, x: int, inner: str | None = None, outer: str | None = None) -> str:
    """The right answer in recall mode, with another name in the call of a part."""
    lines = [program.source]
    for (part, value), name in zip(program.called(x), (inner, outer), strict=True):
        lines += [f"{name or part.name}({value})", execution(part, value, "recall")]
    return "\n".join(lines)


def number_of_compositions() -> int:
    return sum(bool(p.calls) for seed in PLAN.seeds for p in PLAN.dataset(seed).without_io)


def test_right_answers_call_their_parts_whatever_these_are() -> None:
    table = answered(lambda seed, program, x: recalled(program, x))
    assert (table["the part"] == 1).all() and (table["then_right"] == 1).all() and set(table["slot"]) == {"inner", "outer"}
    assert table.groupby("slot")["n"].sum().tolist() == [number_of_compositions()] * 2
    assert set(table["part"]) <= set(composition_calls.PARTS) and "w/o IO" in set(table["part"])
    inner = [(PLAN.dataset(seed), p.calls[0]) for seed in PLAN.seeds for p in PLAN.dataset(seed).without_io if p.calls]
    counts = table.set_index(["slot", "part"])["n"]
    assert counts["inner", "w/o IO"] == sum(part in dataset.without_io for dataset, part in inner)
    in_slot = [part.name in composition_calls.shown_in(dataset)["inner"] for dataset, part in inner if part in dataset.with_io]
    assert counts.get(("inner", "w/ IO, shown in this slot"), 0) == sum(in_slot)


def test_the_slot_decides_what_was_shown() -> None:
    """Every answer calls a part that a demonstrated composition has as its inner one."""
    first = {seed: next(p for p in PLAN.dataset(seed).with_io if p.calls).calls[0].name for seed in PLAN.seeds}
    table = answered(lambda seed, program, x: recalled(program, x, inner=first[seed]))
    assert set(table["slot"]) == {"inner"}, "where the inner call is wrong the outer one is not judged"
    assert (table["the part"] + table["another, shown in this slot"] + table["the other part"] == 1).all()
    assert table.set_index("part").loc["w/o IO", ["another, shown in this slot", "the other part"]].sum() == 1
    crossed = answered(lambda seed, program, x: recalled(program, x, inner=program.calls[1].name))
    assert (crossed["the other part"] == 1).all() and crossed["then_right"].isna().all()
    later = answered(lambda seed, program, x: recalled(program, x, outer="nobody")).set_index("slot")
    assert (later.loc["inner", "the part"] == 1).all() and (later.loc["outer", "another program"] == 1).all()


def test_a_part_that_is_called_may_be_run_wrongly() -> None:
    def cut(seed: int, program: Program, x: int) -> str:
        return "\n".join(recalled(program, x).split("\n")[: 4 if seed else None])  # of seed 1 the source, the inner call and a line

    table = answered(cut)
    inner = table[table["slot"] == "inner"]
    right = sum(bool(p.calls) for p in PLAN.dataset(0).without_io) / number_of_compositions()
    assert (inner["n"] * inner["then_right"]).sum() / inner["n"].sum() == pytest.approx(right)


def test_a_part_is_told_apart_by_where_it_was_shown() -> None:
    expected = {slot: dict.fromkeys(composition_calls.PARTS, 0) for slot in composition_calls.SLOTS}
    for seed in PLAN.seeds:
        dataset = PLAN.dataset(seed)
        sources = [p.source for p in dataset.with_io if p.calls]  # "    return outer(inner(x))"
        called = {"outer": {s.split("return ")[1].split("(")[0] for s in sources}, "inner": {s.split("(")[-2] for s in sources}}
        assert composition_calls.shown_in(dataset) == called
        hidden = {p.name for p in dataset.without_io}
        for p in dataset.without_io:
            for slot, part in zip(composition_calls.SLOTS, p.calls, strict=False):
                elsewhere = part.name in called["inner"] | called["outer"]
                which = 3 if part.name in hidden else 0 if part.name in called[slot] else 1 if elsewhere else 2
                expected[slot][composition_calls.PARTS[which]] += 1
    table = answered(lambda seed, program, x: recalled(program, x))
    found = {slot: cell.set_index("part")["n"].to_dict() for slot, cell in table.groupby("slot")}
    assert found == {slot: {part: n for part, n in counts.items() if n} for slot, counts in expected.items()}
    assert {part for counts in found.values() for part in counts} == set(composition_calls.PARTS), "every kind of part occurs"


@pytest.mark.parametrize("line", ["return 5", "", "x = 5 + 3 = 8", "f(x)"])
def test_what_is_no_call_is_said(line: str) -> None:
    table = answered(lambda seed, program, x: f"{program.source}\n{line}\nreturn 5")
    assert (table["no call"] == 1).all() and set(table["slot"]) == {"inner"}


def test_an_answer_without_its_own_source_has_no_call_to_judge() -> None:
    assert answered(lambda seed, program, x: "def other(x):\n    return x").empty


def test_the_figure_says_n_and_leaves_out_what_is_too_few() -> None:
    table = answered(lambda seed, program, x: recalled(program, x))
    both = pd.concat([table.assign(condition="proactive"), table.assign(condition="mixture", **{"the part": 0.4})])
    fig = plots_composition.called_parts(both, fewest=3)
    FigureCanvasAgg(fig).draw()
    texts = [" ".join(text.get_text().split()) for text in fig.findobj(match=lambda a: hasattr(a, "get_text"))]
    assert any("w/o IO compositions, all seeds, in recall mode" in text for text in texts)
    points = int((both["n"] >= 3).sum())
    assert sum(text in ("100", "40") for text in texts) == points
    assert sum(text.startswith("n = ") and "answers" not in text for text in texts) == 2 * 2 * len(composition_calls.PARTS) - points
    with pytest.raises(UsageError, match="no answers that begin"):
        plots_composition.called_parts(table.iloc[:0])
