"""pyproject.toml holds the versions; constraints.txt and environment.yml must agree with it."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins() -> dict[str, str]:
    """Returns name → version of constraints.txt."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines if line), (
        "constraints.txt: only name==version, no local versions, no paths"
    )
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if line}


def requirements() -> list[Requirement]:
    """Returns every dependency of pyproject.toml, extras included."""
    return [
        Requirement(text) for text in [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    ]


def test_every_dependency_is_pinned_to_a_version_it_allows():
    pinned = pins()
    for requirement in requirements():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} has no line in constraints.txt"
        assert requirement.specifier.contains(version), (
            f"constraints.txt pins {requirement.name}=={version}, pyproject.toml wants {requirement}"
        )


def test_dependencies_of_dependencies_are_pinned_too():
    pinned, wanted, seen = pins(), [r.name for r in requirements()], set()
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in seen:
            continue
        seen.add(name)
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    assert sorted(n for n in seen - set(pinned) if not n.startswith(("nvidia", "triton", "cuda", "setuptools"))) == []


def test_pins_suit_every_machine():
    names = " ".join(pins())
    assert not re.search(r"nvidia|triton|cuda|pywin|appnope", names), "a pin for one platform only; pip on the others would not need it"
    assert pins()["torch"] == "2.13.0"


def test_environment_takes_its_versions_from_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"] and environment["channels"] == ["conda-forge"]
    assert environment["dependencies"] == [f"python{PROJECT['requires-python']}", "pip", {"pip": ["-e ."]}]


def test_templates_shipped_models_and_words_are_in_the_package():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]["pbb_helpers"]
    assert {"shipped/**", "report_template/**", "families/words.txt"} <= set(data)
    assert (ROOT / "pbb_helpers/report_template/pbb/index.html.j2").is_file() and (ROOT / "pbb_helpers/report_template/page.css").is_file()
