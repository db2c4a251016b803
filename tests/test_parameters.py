from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from notebooks_for_tests import PARAMETERS, write_notebook

from pbb_helpers.parameters import check, parse, parse_cell, read_notebook, read_parameters, resolve
from pbb_helpers.programs import UsageError
from pbb_helpers.running.runner import parameters_key


def test_cell_gives_names_types_defaults_and_comments():
    known = parse_cell(PARAMETERS)
    assert [(p.name, p.type_name, p.default) for p in known.values()] == [
        ("profile", "str", "quick"),
        ("n", "int | None", None),
        ("lr", "float", 1e-3),
        ("names", "list", ["a", "b"]),
        ("seconds", "float", 0.0),
    ]
    assert known["profile"].choices == ("smoke", "quick", "full")
    assert known["lr"].comment == "the learning rate"
    assert known["n"].comment == "number of steps"


@pytest.mark.parametrize(
    ("line", "text", "value"),
    [
        ("x = 1", "7", 7),
        ("x = 1", "-7", -7),
        ("x = 1", "007", 7),
        ("x = 1.0", "1e-4", 1e-4),
        ("x = 1.0", "3", 3.0),
        ("x = 'a'", "007", "007"),
        ("x = 'a'", "true", "true"),
        ("x = 'a'", "a = b = c", "a = b = c"),
        ("x = True", "no", False),
        ("x = True", "True", True),
        ("x: int | None = None", "none", None),
        ("x: int | None = None", "5", 5),
        ("x: str | None = None", "5", "5"),
        ("x: str | None = None", "none", None),
        ("x: list[int] = [1]", "0,1,2", [0, 1, 2]),
        ("x: list[int] = [1]", "3", [3]),
        ("x: list[int] = [1]", "[0, 1]", [0, 1]),
        ("x: list[str] = []", "base,proactive", ["base", "proactive"]),
        ("x: list[str] = []", "base", ["base"]),
        ("x: list[str] = []", "base,early(0.25)", ["base", "early(0.25)"]),
        ("x: list[str] = []", "early(0.25)", ["early(0.25)"]),
        ("x: list[str] = []", "[io_only(8, natural(0.5)), base]", ["io_only(8, natural(0.5))", "base"]),
        ("x: tuple[int, ...] = (1, 2)", "4,5", (4, 5)),
        ("x: list[float] = []", "1,2.5", [1.0, 2.5]),
        ("x: dict[str, int] = {}", '{"a": 1}', {"a": 1}),
    ],
)
def test_text_is_read_as_the_type(line, text, value):
    parameter = parse_cell(line)["x"]
    assert parse(parameter, text) == value
    assert type(parse(parameter, text)) is type(value)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("x = 1", "1.5"),
        ("x = 1", "one"),
        ("x = 1", "true"),
        ("x = 1", ""),
        ("x = 1.0", "nan"),
        ("x = 1.0", "9" * 400),
        ("x: list[int] = [1]", "[1j]"),
        ("x: list[float] = [1.0]", "[NaN]"),
        ("x = {}", "{1: 2, 'a': 3}"),
        ("x = True", "2"),
        ("x: list[int] = [1]", "a,b"),
    ],
)
def test_wrong_text_is_refused_in_one_line(line, text):
    with pytest.raises(UsageError) as error:
        parse(parse_cell(line)["x"], text)
    assert "parameter 'x' takes" in str(error.value) and "\n" not in str(error.value)


def test_numpy_scalars_are_numbers_and_bool_is_no_int():
    parameter = parse_cell("x = 1")["x"]
    assert type(check(parameter, np.int64(3))) is int
    for wrong in (True, 1.0, "1", None):
        with pytest.raises(UsageError, match="takes int"):
            check(parameter, wrong)


def test_unknown_name_and_choice_say_did_you_mean():
    known = parse_cell(PARAMETERS)
    with pytest.raises(UsageError, match="unknown parameter 'profil'; did you mean 'profile'"):
        resolve(known, {"profil": "quick"})
    with pytest.raises(UsageError, match="unknown profile 'quik'; did you mean 'quick'"):
        resolve(known, {"profile": "quik"}, typed=True)


@pytest.mark.parametrize(
    "source", ["x = f(1)", "import os", "x, y = 1, 2", "x += 1", "x: int", "for i in []: pass", "x = [i for i in 'a']"]
)
def test_only_plain_literals_are_parameters(source):
    with pytest.raises(UsageError, match="literal"):
        parse_cell(source)


@pytest.mark.parametrize(
    "source",
    ["x = '\0'", "x = '\ud800'", f"x = {'-' * 100_000}1", "x = 1j", "x = b'a'", "x = [{1}]", "x: tuple[()] = ()", "x: dict[str] = {}"],
)
def test_a_cell_that_cannot_be_read_is_refused_in_one_line(source):
    with pytest.raises(UsageError) as error:
        parse_cell(source)
    assert "\n" not in str(error.value)


def test_a_default_is_of_the_type_that_its_annotation_says():
    known = parse_cell("lr: float = 1")
    assert parameters_key(resolve(known, {})) == parameters_key(resolve(known, {"lr": "1"}, typed=True))


def test_default_that_contradicts_its_annotation_is_refused():
    with pytest.raises(UsageError, match="takes int"):
        parse_cell("x: int = 'a'")
    with pytest.raises(UsageError, match="not understood"):
        parse_cell("x: __import__('os').system('true') = 1")


def test_missing_cell_missing_file_and_damaged_file(tmp_path: Path):
    path = write_notebook(tmp_path / "plain.ipynb", parameters=None)
    with pytest.raises(UsageError, match="has no parameters cell"):
        read_parameters(read_notebook(path), path)
    with pytest.raises(UsageError, match="did you mean"):
        read_notebook(tmp_path / "plane.ipynb")
    (tmp_path / "damaged.ipynb").write_text('{"cells": [')
    with pytest.raises(UsageError, match="not a readable notebook"):
        read_notebook(tmp_path / "damaged.ipynb")
