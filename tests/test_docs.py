"""Every command in README.md, figures/README.md and CONTRIBUTING.md is run where it is cheap, and otherwise read by the very parser that would run it."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import typer
import yaml
from examples_for_tests import blocks, follow
from notebooks_for_tests import write_notebook
from runs_for_tests import write_run
from test_layers import LAYERS

from pbb_helpers import cli, cli_options, notebook
from pbb_helpers.figures import overview
from pbb_helpers.parameters import read_notebook, read_parameters, resolve
from pbb_helpers.performance import gpu
from pbb_helpers.programs import UsageError
from pbb_helpers.running import grid
from pbb_helpers.running.run_record import RunResult, seal

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "figures" / "README.md", ROOT / "CONTRIBUTING.md")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PLACES = {"NOTEBOOK": "notebooks/01_proactive.ipynb", "DIR": "site", "script.py": "script.py"}
"""Words that stand for one of the reader's own."""
RUN = ("describe", "status", "logs", "clean", "results", "doctor", "models", "report")
"""Commands of pbb that take seconds; `sweep` does with --dry-run."""
PROGRAMS = ("pbb", "make", "pip", "python", "pytest", "jupyter", "accelerate", "pipx", "git", "tests/slurm.sh", "conda")


def commands(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yields (line, command, comment behind it) of each line of a bash block, and of each code span in the prose that begins like a command."""
    text = path.read_text(encoding="utf-8")
    for block in (block for block in blocks(path) if block.language in ("bash", "sh", "shell", "console")):
        for number, line in enumerate(block.text.splitlines(), start=block.line):
            command, _, comment = line.partition(" #")
            if command.strip() and not command.startswith("#"):
                yield number, command.strip(), comment.strip()
    prose = re.sub(r"^```.*?^```$", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    for match in re.finditer(r"`([^`\n]+)`", prose):
        words = match[1].split()
        first = next((word for word in words if "=" not in word), "")
        if first.removeprefix(".venv/bin/") in PROGRAMS:
            yield prose.count("\n", 0, match.start()) + 1, match[1], ""


COMMANDS = [(path.relative_to(ROOT).as_posix(), *found) for path in PAGES for found in commands(path)]


def parsed(words: list[str]) -> tuple[str, dict]:
    """Returns the name and the values of a command of pbb, as the command line itself reads them."""
    if words[0] in cli_options.TAKE_SETTINGS:
        words = cli_options.join_pairs(words)
    elif words[0] == "report":
        words = cli_options.name_zip(words)
    group = typer.main.get_command(cli.app)
    context = group.make_context("pbb", list(words))
    name, command, rest = group.resolve_command(context, words)
    return name, command.make_context(name, list(rest), parent=context).params


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Returns the working folder: the project's notebooks, a finished and a failed run, and what the pages' examples name."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "notebooks", "notebooks")
    shutil.copytree(ROOT / "figures", "figures")
    for block in (block for block in blocks(ROOT / "CONTRIBUTING.md") if block.text.startswith("# notebooks/")):
        follow(block, tmp_path)
    for folder in ("my-folder", "tests"):
        Path(folder).mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, name)
    table = pd.DataFrame(
        {"condition": ["base"], "mode": ["direct"], "group": ["without_io"], "seed": ["all"], "n": [4], "accuracy": [0.25]}
    )
    done = write_run(Path("runs"), "7c1d00000000", name="01_proactive", status="killed")
    notebook.record(rows=[{"correct": True}], results=table, headline="base answers 1 of 4", folder=done.folder)
    record = done.record | {"status": "completed"}
    (done.folder / "run.json").write_text(json.dumps(record))
    seal(RunResult(done.folder, record))
    write_run(
        Path("runs"),
        "3f2a00000000",
        name="01_proactive",
        status="failed",
        error={"index": 2, "heading": "Training", "name": "ValueError", "value": "it broke"},
    )
    write_notebook(Path("scratch/tiny.ipynb"))
    return tmp_path


def pbb(words: list[str], comment: str, capsys, monkeypatch) -> None:
    """Runs a command of pbb, or reads it and all that it names."""
    known = typer.main.get_command(cli.app).commands
    if not words or (len(words) == 1 and any(parameter.required for parameter in known[words[0]].params)):
        return  # the mere name of a command
    name, values = parsed(words)
    if name in RUN or values.get("dry_run"):
        monkeypatch.setattr(sys, "argv", ["pbb", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        assert not stop.value.code or name == "doctor" and stop.value.code == 1, said.err
        assert (said.out + said.err).strip(), "it says nothing"
        return
    assert name in ("run", "sweep", "estimate", "record", "pretrain"), (
        f"pbb {name} is neither run nor checked: add it to RUN, or say here how to check it"
    )
    if name == "pretrain":
        return
    node = read_notebook(values["notebook"])
    known = read_parameters(node, values["notebook"])
    if name in ("run", "estimate"):
        given = cli_options.pairs(values["parameter"] or []) | ({"profile": values["profile"]} if values["profile"] else {})
        assert set(given) <= set(resolve(known, given, typed=True))
    elif name == "sweep":
        if values["grid"]:
            match = re.search(rf"{values['grid'].name}: (.*)", comment)
            assert match, f"say what {values['grid']} holds"
            values["grid"].write_text(match[1] + "\n")
        pairs = [tuple(item.split("=", 1)) for item in values["parameter"] or []]
        assert grid.read_grid(known, pairs, values["grid"])


def make(words: list[str]) -> None:
    """Checks targets and variables against the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, equals, _ = word.partition("=")
        assert re.search(rf"^{name} *\?=" if equals else rf"^{name}:", text, re.MULTILINE), f"the Makefile has no {name}"


def python(words: list[str]) -> None:
    """Checks that the module, the files and the tests that are named are there."""
    assert words[0] == "-m", words
    module, rest = words[1], words[2:]
    if module == "pytest":
        assert rest and all((ROOT / word.split("::")[0]).exists() for word in rest if not word.startswith("-"))
    elif module == "pbb_helpers.performance.gpu":
        assert gpu.parser().parse_args(rest)
    elif module == "tests.fuzz":
        assert (ROOT / "tests/fuzz.py").is_file() and len(rest) <= 3 and all(word.isdecimal() for word in rest)
    else:
        raise AssertionError(f"python -m {module} is neither run nor checked: say here how")


def pip(words: list[str]) -> None:
    """Checks that extras and files exist."""
    assert words[0] == "install"
    for word in words[1:]:
        extras = re.fullmatch(r"\.\[([\w,]+)\]", word)
        assert not extras or set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
        assert extras or word in ("-e", "-c", ".") or (ROOT / word).is_file(), word


@pytest.mark.parametrize(("page", "line", "command", "comment"), COMMANDS, ids=[f"{page}:{line}" for page, line, *_ in COMMANDS])
def test_each_command_is_run_or_read(page, line, command, comment, project, capsys, monkeypatch):
    words = [PLACES.get(word, word) for word in shlex.split(command)]
    while "=" in words[0]:  # a variable of the environment: something must look at it
        name = words.pop(0).split("=")[0]
        assert any(name in path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py")), name
    program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "pbb":
        pbb(rest, comment, capsys, monkeypatch)
    elif program == "make":
        make(rest)
    elif program == "python":
        python(rest)
    elif program == "pip":
        pip(rest)
    elif program == "jupyter":
        assert rest[0] == "lab" and all(Path(path).is_file() for path in rest[1:])
        importlib.import_module("jupyterlab")
    elif program == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        assert rest[0] == "launch" and launch_command_parser().parse_args(rest[1:]).num_processes > 1
    elif program == "pipx":
        assert rest == ["run", "pre-commit", "install"]
        hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
        assert all(repo["repo"] and repo["rev"] and repo["hooks"] for repo in hooks["repos"])
    elif program == "conda":
        assert rest[:3] == ["env", "create", "-f"]
        parts = yaml.safe_load((ROOT / rest[3]).read_text(encoding="utf-8"))["dependencies"]
        assert "pip" in parts and parts[-1]["pip"] == ["-e ."]
    elif program == "tests/slurm.sh":
        assert (ROOT / program).is_file()
    else:
        raise AssertionError(f"{page}:{line}: {command!r} is neither run nor checked: say here how")


def test_the_pages_have_commands_of_each_kind():
    firsts = {command.split()[0].removeprefix(".venv/bin/") for *_, command, _ in COMMANDS}
    assert {"pbb", "make", "python", "jupyter", "pip"} <= firsts and len(COMMANDS) > 30
    assert {"run", "sweep", "describe", "results", "report", "record", "status", "logs", "clean", "doctor", "models"} <= {
        command.split()[1] for *_, command, _ in COMMANDS if "pbb " in command
    }


@pytest.mark.parametrize("command", ["pbb run notebooks/01_proactive.ipynb --profil quick", "pbb swep x", "pbb run notebooks/01_proactive.ipynb -p lrr 1",
                                     "pbb run notebooks/09_nothing.ipynb", "make repotr", "pip install -e '.[slurn]'", "python -m pytest tests/test_nothing.py",
                                     "frobnicate now", "pbb sweep notebooks/01_proactive.ipynb -p lr fast", "python -m tests.other",
                                     "jupyter lab notebooks/09_nothing.ipynb"])  # fmt: skip
def test_a_command_that_is_wrong_is_caught(command, project, capsys, monkeypatch):
    with pytest.raises((AssertionError, UsageError, typer.BadParameter.__mro__[1], SystemExit)):
        test_each_command_is_run_or_read("README.md", 1, command, "", project, capsys, monkeypatch)


def test_python_in_readme_names_what_is_there():
    (block,) = (block for block in blocks(ROOT / "README.md") if block.language == "python")
    space: dict = {}
    tree = ast.parse(block.text)
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), "README.md", "exec"), space)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert {ast.unparse(call.func) for call in calls} == {
        "train.train_stage", "models.load", "PartialState", "state.destroy_process_group", "str"
    }  # fmt: skip
    space["state"] = space["PartialState"]()
    for call in calls:
        function = eval(ast.unparse(call.func), space)
        if function is not str:
            inspect.signature(function).bind(*call.args, **{keyword.arg: keyword.value for keyword in call.keywords})
    assert space["state"].device.type in ("cpu", "cuda", "mps")


def test_every_notebook_has_its_line():
    listed = re.findall(
        r"^\| `(\w+)` \| ", (ROOT / "README.md").read_text(encoding="utf-8").split("| notebook | question |")[1], re.MULTILINE
    )
    assert listed == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_every_folder_of_the_package_has_its_line_and_every_module_that_is_named_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## The package")[1].split("\n## ")[0]
    folders = {path.parent.name for path in (ROOT / "pbb_helpers").glob("*/__init__.py")}
    assert re.findall(r"^(\w+)/", text, re.MULTILINE) == [name for name in LAYERS if name in folders] and folders == set(LAYERS)
    modules = {path.name for path in (ROOT / "pbb_helpers").rglob("*.py")}
    named = set(re.findall(r"\b\w+\.py\b", text))
    assert sorted(named - modules) == []
    beside = {path.name for path in (ROOT / "pbb_helpers").glob("*.py") if not path.name.startswith("__")}
    assert {"programs.py", "notebook.py", "cli.py", "cli_sweep.py", "doctor.py"} <= named & beside


def test_the_picture_shows_what_the_documents_say():
    for block in (block for block in blocks(ROOT / "README.md") if "blorp" in block.text):
        raise AssertionError(f"line {block.line}: the picture says it")
    facts = json.loads((ROOT / "figures/overview.json").read_text(encoding="utf-8"))
    assert facts["alt"] == overview.alt_text() and f"![{overview.alt_text()}](figures/overview.png)" in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )
    drawn = overview.documents()
    pd.testing.assert_frame_equal(pd.read_csv(ROOT / "figures/overview.csv", dtype=str), drawn, check_dtype=False)
    assert (
        not drawn[drawn["part"] == "stage2"]["prompt"].str.contains(r"\(\d").any()
        and (drawn[drawn["part"] == "asked"]["completion"].str.endswith("7")).all()
    )


def texts(path: Path) -> list[str]:
    """Returns each text in a Python file as it may be printed, "…" for what is put in; of any other file its lines."""
    if path.suffix != ".py":
        return path.read_text(encoding="utf-8").splitlines()
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


TROUBLES = re.findall(
    r"^\| `(.+?)` \| (.+) \|$", (ROOT / "README.md").read_text(encoding="utf-8").split("## Troubleshooting")[1], re.MULTILINE
)
SAID = [text for path in (*(ROOT / "pbb_helpers").rglob("*.py"), ROOT / "Makefile") for text in texts(path)]


def test_there_are_troubles():
    assert len(TROUBLES) >= 12 and len(dict(TROUBLES)) == len(TROUBLES)


@pytest.mark.parametrize("message", [message for message, _ in TROUBLES])
def test_each_message_of_troubleshooting_is_still_said(message):
    pattern = ".*".join(re.escape(part.strip()) for part in message.split("…"))
    assert any(re.search(pattern, text, re.DOTALL) for text in SAID), "no text of the package reads so any more"
