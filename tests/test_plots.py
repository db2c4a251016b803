"""The figures say what they must (n, seeds, interval, floor, ceiling, gaps) and show the numbers of the table; saved ones are the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from pbb_helpers.analysis import labels, statistics
from pbb_helpers.data.conditions import CONDITIONS
from pbb_helpers.data.documents import EVERY_MODE
from pbb_helpers.data.knobs import KNOBS, knob_settings
from pbb_helpers.figures import plots, plots_knobs
from pbb_helpers.programs import UsageError

ACCURACY = {
    "base": 0.08,
    "in_context": 0.9,
    "source_only": 0.03,
    "stage1_only": 0.05,
    "shuffled_source": 0.06,
    "proactive": 0.7,
    "mixture": 0.8,
}


def experiment(seeds: int = 2, n: int = 24) -> pd.DataFrame:
    """Rows of every condition, mode and group with the accuracies of ACCURACY; `in_context` has no `source` answers."""
    rng, rows = np.random.default_rng(0), []
    for condition, accuracy in ACCURACY.items():
        for mode in ("direct", "cot", "recall", "source")[: 3 if condition == "in_context" else 4]:
            for group, seed, i in [(g, s, i) for g in ("without_io", "with_io") for s in range(seeds) for i in range(n)]:
                right, source = bool(rng.random() < accuracy), f"def {group}{i}(x):\n    return x + {i}"
                gold = source if mode == "source" else str(i + 3)
                rows.append({"condition": condition, "mode": mode, "group": group, "seed": seed, "program": f"{group}{i}", "length": 1 + i % 3,
                             "input": None if mode == "source" else 3, "gold": gold, "answer": gold if right else "0", "correct": right,
                             "generated": f"{source}\nreturn {i}"})  # fmt: skip
    return pd.DataFrame(rows)


ROWS = experiment()
TABLE = statistics.results(ROWS, n_boot=200)
FLOORS = pd.DataFrame({"seed": "all", "floor": list(statistics.FLOORS), "n": 48, "accuracy": [0.04, 0.07, 0.12]})
METRICS = pd.DataFrame([(c, s, "stage1", step, 2.0 / step + s) for c in ("stage1_only", "proactive") for s in (0, 1) for step in (20, 40)]
                       + [("proactive", s, "stage2", step, 1.0 / step) for s in (0, 1) for step in (20, 40)],
                       columns=["condition", "seed", "stage", "step", "loss"])  # fmt: skip
POINTS = pd.DataFrame(
    [(t * 1e6, m, t / 100, 300) for t in (10, 50, 90) for m in ("direct", "cot")], columns=["tokens", "mode", "accuracy", "n"]
)
TURNED = ["proactive", "early(0.5)", "early(1)", "replay(0.3)", "stage2(2)", "templates(5)"]
KNOB_ROWS = pd.concat(
    [ROWS[ROWS["condition"] == "proactive"].assign(condition=name) for name in TURNED] + [ROWS[ROWS["condition"] == "mixture"]]
)
KNOB_TABLE = statistics.results(KNOB_ROWS, n_boot=50)
DRAW: dict[str, Callable[[], Figure]] = {
    "accuracy_by_condition": lambda: plots.accuracy_by_condition(TABLE, FLOORS),
    "accuracy_by_length": lambda: plots.accuracy_by_length(ROWS, floors=FLOORS, n_boot=50),
    "recall_against_execution": lambda: plots.recall_against_execution(ROWS, floors=FLOORS),
    "training_curves": lambda: plots.training_curves(METRICS),
    "accuracy_by_knob": lambda: plots_knobs.accuracy_by_knob(KNOB_TABLE, knob_settings(TURNED), FLOORS),
    "accuracy_by_one_knob": lambda: plots_knobs.accuracy_by_knob(KNOB_TABLE, knob_settings(TURNED[:2]), FLOORS),
    "pretraining_curve": lambda: plots.pretraining_curve(POINTS, targets={"cot": 0.95}),
}


def words(fig: Figure) -> str:
    return " ".join(" ".join(text.get_text().split()) for text in fig.findobj(Text) if text.get_text())


@pytest.mark.parametrize("name", DRAW)
def test_every_figure_renders_leaves_nothing_in_pyplot_and_fits_its_words(name: str) -> None:
    fig = DRAW[name]()
    FigureCanvasAgg(fig).draw()
    assert pyplot.get_fignums() == []
    ticks = {text for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) for text in axis.get_ticklabels(which="both")}  # some lie out of view
    for text in set(fig.findobj(Text)) - ticks:
        box = text.get_window_extent()
        if text.get_text() and text.get_visible():
            inside = -2 <= box.x0 <= box.x1 <= fig.bbox.x1 + 2 and -2 <= box.y0 <= box.y1 <= fig.bbox.y1 + 2
            assert inside, f"{text.get_text()!r} leaves the figure"


def test_a_result_figure_states_n_seeds_interval_floor_and_ceiling() -> None:
    said = words(DRAW["accuracy_by_condition"]())
    for part in ("n = 48 answers over 24 programs, 2 seeds", "95 % interval over programs", "cluster bootstrap", "one seed each",
                 "floor, w/o IO: best answer given the input (12 %)", "ceiling: source in context", "w/o IO programs", "w/ IO programs"):  # fmt: skip
        assert part in said
    assert "2 seeds" in words(DRAW["accuracy_by_length"]()) and "floor: best answer given the input" in words(DRAW["accuracy_by_length"]())
    assert "floor: best answer" in words(DRAW["recall_against_execution"]()) and "ceiling" in words(DRAW["recall_against_execution"]())


def test_the_figure_shows_the_numbers_of_the_table() -> None:
    ax = DRAW["accuracy_by_condition"]().axes[1]  # first row w/o IO, second column chain of thought
    row = TABLE.query("condition == 'proactive' and mode == 'cot' and group == 'without_io'").set_index("seed")
    drawn = [list(line.get_xdata()) for line in ax.lines if line.get_color() == labels.COLOURS["proactive"]]
    assert [row["accuracy"]["all"]] in drawn
    assert [row["low"]["all"], row["high"]["all"]] in drawn
    assert [row["accuracy"]["0"], row["accuracy"]["1"]] in drawn
    assert any(list(line.get_xdata()) == [0.12, 0.12] for line in ax.lines)


def test_a_cell_that_was_not_run_is_a_visible_gap() -> None:
    gap = TABLE[~((TABLE["condition"] == "mixture") & (TABLE["mode"] == "direct"))]
    assert words(plots.accuracy_by_condition(gap, FLOORS)).count("not run") == 2  # w/o IO and w/ IO
    assert "not run" not in words(DRAW["accuracy_by_condition"]())


def test_one_seed_draws_no_seeds_and_says_so_and_three_draw_the_t_interval() -> None:
    one = words(plots.accuracy_by_condition(statistics.results(experiment(1), n_boot=50), FLOORS))
    assert "1 seed." in one and "one seed each" not in one
    assert "t interval over seeds" in words(plots.accuracy_by_condition(statistics.results(experiment(3), n_boot=50), FLOORS))
    assert "t interval" not in words(DRAW["accuracy_by_condition"]())


def test_a_table_read_back_from_its_csv_gives_the_same_figure(tmp_path: Path) -> None:
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    assert words(plots.accuracy_by_condition(pd.read_csv(tmp_path / "t.csv"), FLOORS)) == words(DRAW["accuracy_by_condition"]())


def test_floors_by_length_are_drawn_at_their_lengths() -> None:
    floors = pd.DataFrame({"seed": "all", "length": [1, 2, 3], "floor": "identity", "n": 8, "accuracy": [0.3, 0.2, 0.1]})
    ax = plots.accuracy_by_length(ROWS, floors=floors, n_boot=50).axes[0]
    heights = [line.get_ydata()[0] for line in ax.lines if line.get_color() == plots.FLOOR_LINE["color"]]
    assert heights == [0.3, 0.2, 0.1]


def test_conditions_that_share_a_stage_share_a_line() -> None:
    legends = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in DRAW["training_curves"]().axes]
    assert legends == [["stage1_only = proactive"], ["proactive"]]


def test_recall_without_source_answers_is_an_error() -> None:
    with pytest.raises(UsageError, match="mode 'source'"):
        plots.recall_against_execution(ROWS[ROWS["mode"] != "source"])


def test_conditions_differ_in_marker_and_in_colour_also_without_red_or_green() -> None:
    assert set(labels.COLOURS) == set(labels.MARKERS) == set(CONDITIONS) and len(set(labels.MARKERS.values())) == len(CONDITIONS)
    # Viénot, Brettel and Mollon 1999: what a deuteranope and a protanope see of linear RGB.
    seen = {"deuteranope": [[0.29275, 0.70725, -0.02234], [0.29275, 0.70725, -0.02234], [-0.02234, 0.02234, 1.0]],
            "protanope": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]}  # fmt: skip
    for matrix in (*seen.values(), np.eye(3)):
        shades = {name: np.array(matrix) @ np.array(to_rgb(shade)) ** 2.2 for name, shade in labels.COLOURS.items()}
        for a, b in combinations(shades, 2):
            distance = float(np.abs(np.clip(shades[a], 0, 1) ** (1 / 2.2) - np.clip(shades[b], 0, 1) ** (1 / 2.2)).max())
            assert distance > 0.08, f"{a} and {b} look alike"


def test_every_condition_and_way_of_answering_has_words() -> None:
    assert {*CONDITIONS, *EVERY_MODE, "description_direct", "description_cot", "description_recall"} <= set(labels.LABELS)


def save(folder: Path, **change) -> Path:
    given = {"data": POINTS, "alt": "Accuracy rises.", "provenance": {"commit": "abc", "seeds": [0, 1]}, "folder": folder}
    return plots.save_figure(DRAW["pretraining_curve"](), change.pop("name", "curve"), **{**given, **change})


def test_a_saved_figure_is_the_same_bytes_again_and_in_another_process(tmp_path: Path) -> None:
    png = save(tmp_path / "a")
    assert png == tmp_path / "a" / "curve.png"
    program = "import sys; from pathlib import Path; sys.path[:0] = [sys.argv[1]]; import test_plots; test_plots.save(Path(sys.argv[2]))"
    subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path / "b")], check=True, cwd=Path(__file__).parents[1]
    )
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["curve.csv", "curve.json", "curve.png", "curve.svg"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert b"tEXt" not in png.read_bytes() and b"<dc:date>" not in (tmp_path / "a" / "curve.svg").read_bytes()
    assert json.loads((tmp_path / "a" / "curve.json").read_text())["alt"] == "Accuracy rises."
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a" / "curve.csv"), POINTS, check_dtype=False)


@pytest.mark.parametrize(("change", "message"), [
    ({"alt": " "}, "no alt text"), ({"name": "../x"}, "figure name"), ({"data": POINTS.iloc[:0]}, "no data"), ({"provenance": {"a": object()}}, "provenance"),
])  # fmt: skip
def test_what_cannot_be_recorded_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        save(tmp_path, **change)


def test_neither_statistics_nor_plots_import_torch() -> None:
    code = "import sys, pbb_helpers.figures.plots, pbb_helpers.analysis.findings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


def test_a_point_for_every_setting_of_a_knob_proactive_among_them() -> None:
    assert knob_settings(TURNED) == [
        ("early", 0.0, "proactive"), ("early", 0.5, "early(0.5)"), ("early", 1.0, "early(1)"), ("replay", 0.1, "proactive"),
        ("replay", 0.3, "replay(0.3)"), ("stage2", 1.0, "proactive"), ("stage2", 2.0, "stage2(2)"), ("templates", 5.0, "templates(5)"),
        ("templates", 20, "proactive"),
    ]  # fmt: skip
    assert set(KNOBS) == set(labels.KNOBS)
    fig = DRAW["accuracy_by_knob"]()
    cells = KNOB_TABLE[(KNOB_TABLE["seed"] == "all") & (KNOB_TABLE["group"] == "without_io")].set_index(["condition", "mode"])["accuracy"]
    (drawn,) = [line.get_ydata() for line in fig.axes[0].lines if line.get_marker() == "P" and len(line.get_ydata()) == 3]
    assert list(drawn) == [cells[name, "recall"] for name in TURNED[:3]]
    with pytest.raises(UsageError, match="no condition with a number was run"):
        plots_knobs.accuracy_by_knob(KNOB_TABLE, [], FLOORS)
