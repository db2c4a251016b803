"""What an experiment may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pbb_helpers.data.conditions import MAIN
from pbb_helpers.data.plan import Experiment, small
from pbb_helpers.experiments import plans
from pbb_helpers.parameters import read_notebook, read_parameters
from pbb_helpers.programs import UsageError


def test_small_is_small_and_runs_through_everything():
    tiny = small(Experiment())
    assert tiny.conditions == MAIN and tiny.budget.stage1_documents + tiny.budget.stage2_documents <= 160
    assert len(tiny.dataset(0).names) == 18


@pytest.mark.parametrize(
    "wrong",
    [{"conditions": ()}, {"conditions": ("base", "base")}, {"conditions": ("proactve",)}, {"seeds": ()}, {"seeds": (1, 1)}, {"seeds": (-1,)},
     {"inputs_per_program": 0}, {"inputs_per_program": 11}, {"n_with_io_asked": 0}],
)  # fmt: skip
def test_experiments_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        Experiment(**wrong)


# ---------------------------------------------------------------- plans of the notebooks

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def defaults(name: str, **changes: object) -> dict[str, object]:
    path = NOTEBOOKS / f"{name}.ipynb"
    known = read_parameters(read_notebook(path), path)
    return {parameter: known[parameter].default for parameter in known} | {n: value for n, value in changes.items() if n in known}


def test_every_notebook_that_runs_something_has_its_plan() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} - {"explore"} == set(plans.PLANS)
    for name, place in plans.PLANS.items():
        module, function = place.rpartition(".")[2].split(":")
        cells = [cell.source for cell in read_notebook(NOTEBOOKS / f"{name}.ipynb").cells if cell.cell_type == "code"]
        assert f"= {module}.{function}(globals())\n" in cells[1], f"{name} makes its plan with {place}"


@pytest.mark.parametrize("name", plans.PLANS)
def test_what_a_notebook_would_refuse_is_refused_before_it_is_started(name: str) -> None:
    plans.check(name, defaults(name, profile="smoke"))
    plans.check(name, defaults(name, profile="quick"))
    refused = {"profile": "quik", "model": "pbb-smal", "models": ["pbb-m", "pbb-m"], "seeds": [0, 0], "lr": -1.0, "n_with_io": 0, "n_without_io": 10**12,
               "rank": 0, "processes": 0, "max_statements": 10**6, "conditions": ["proactve"], "steps": 0}  # fmt: skip
    for parameter, value in refused.items():
        changed = defaults(name, **{parameter: value})
        if changed.get(parameter) == value:
            with pytest.raises(UsageError) as error:
                plans.check(name, changed)
            assert "\n" not in str(error.value)


def test_neither_a_notebook_of_the_users_nor_a_model_on_the_hub_is_judged() -> None:
    plans.check("mine", {"profile": "quik"})
    plans.check("01_proactive", defaults("01_proactive", model="org/name", profile="quik"))


@pytest.mark.parametrize(("name", "changes", "pools"), [
    ("01_proactive", {}, [["pbb-small"]]), ("05_composition", {"model": "pbb-m"}, [["pbb-m"]]), ("06_io_distribution", {}, [["pbb-ciphers"]]),
    ("07_sample_efficiency", {"family": "arithmetic"}, [["pbb-small"]]), ("08_curricula", {}, [["pbb-small"], ["pbb-s"]]),
    ("02_code_vs_language", {"models": ["pbb-m", "pbb-m-code"], "sizes": ["pbb-s"], "crossed": ["pbb-m"]},
     [["pbb-m", "pbb-m-code"], ["pbb-s"], ["pbb-m"]]),
    ("03_forward_pass_vs_cot", {"repeated": []}, [["pbb-small"]]),
    ("04_scaling", {"models": ["pbb-xs"], "numbers": [50, 1600]}, [["pbb-xs"], ["50 w/ IO programs", "1,600 w/ IO programs"]]),
    ("04_scaling", {"models": [], "numbers": [50]}, [["50 w/ IO programs"]]),
])  # fmt: skip
def test_the_experiments_of_a_notebook_have_names(name: str, changes: dict[str, object], pools: list[list[str]]) -> None:
    found = plans.experiments(name, defaults(name, profile="quick", **changes))
    assert [list(pool) for pool in found] == pools
    assert all(one.model == part for pool in found for part, one in pool.items() if part.startswith("pbb-"))
