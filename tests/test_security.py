"""What a model, an answer, a run folder or a parameter must not do: run code, be unpickled, command a terminal, write elsewhere."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from notebooks_for_tests import RESULTS, write_notebook

import pbb_helpers
from pbb_helpers import markup, notebook
from pbb_helpers.cli import main
from pbb_helpers.experiments import profiles
from pbb_helpers.experiments.jobs import jobs, run_job
from pbb_helpers.experiments.leak_report import leak_report
from pbb_helpers.families import FAMILIES
from pbb_helpers.families.names import made_up_names
from pbb_helpers.programs import BUILTINS, UsageError
from pbb_helpers.running import runner
from pbb_helpers.running.run_record import all_runs, read_run
from pbb_helpers.training import models, pretrain
from pbb_helpers.training.model_files import find

PACKAGE = Path(pbb_helpers.__file__).parent
NOTEBOOKS = sorted((PACKAGE.parent / "notebooks").glob("*.ipynb"))

# ---------------------------------------------------------------- no pickle, no code from data: read in the source

PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    ("torch", "load"), ("torch", "save"), ("os", "system"), ("os", "popen"), ("yaml", "load"), ("yaml", "unsafe_load"),
    ("importlib", "import_module"), *(("builtins", name) for name in CALLS),
}  # fmt: skip
KEYWORDS = {("allow_pickle", True), ("shell", True), ("weights_only", False), ("trust_remote_code", True)}
ALLOWED = {
    ("programs.py", "exec"): "Program.run: executing the source is what the package is for; the builtins are a short list",
    ("programs.py", "compile"): "the same source, before it is executed",
    ("line_steps.py", "eval"): "a comparison from a real trace, its variables replaced by their values; no builtins at all",
    ("line_steps.py", "compile"): "the same comparison, before it is evaluated",
    ("plans.py", "importlib.import_module"): "a module of this package, named in a table above the call: no part of it comes from a caller",
}


def root(node: ast.AST) -> str:
    """Returns the name that a chain of attributes begins with: "torch" of `torch.hub`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Yields what in a syntax tree could run code that came as data, under whatever name it was imported."""
    imports = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    called = {alias.asname: alias.name for alias in imports if alias.asname}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.split(".")[0] in PICKLES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in PICKLES:
                yield module
            case ast.ImportFrom(module=str(module), names=names):
                owner = module.split(".")[0]
                watched = {name for its, name in METHODS if its == owner} | {"read_pickle", "to_pickle"}
                everything = {"*"} if any(its == owner for its, _ in METHODS) else set()
                yield from (f"{owner}.{alias.name}" for alias in names if alias.name in watched | everything)
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield name
            case ast.Attribute(value=value, attr=name) if (owner := called.get(root(value), root(value)).split(".")[0], name) in METHODS:
                yield f"{owner}.{name}"
            case ast.Attribute(attr="to_pickle" | "read_pickle" as name):
                yield name
            case ast.keyword(arg=str(name), value=ast.Constant(value=value)) if (name, value) in KEYWORDS:
                yield f"{name}={value}"


def test_nothing_in_the_package_or_a_notebook_runs_data() -> None:
    found = {(path.name, what) for path in PACKAGE.rglob("*.py") for what in forbidden(ast.parse(path.read_text(encoding="utf-8")))}
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            found |= (
                {(path.name, what) for what in forbidden(ast.parse(cell.source)) if cell.cell_type == "code"}
                if cell.cell_type == "code"
                else set()
            )
    assert found == set(ALLOWED), "new, or no longer there: mend the code or the list"


@pytest.mark.parametrize("line", [
    "import pickle", "import joblib.hashing", "from dill import loads", "from marshal import loads", "eval('1')", "exec(text)",
    "torch.load(path)", "torch.save(state, path)", "np.load(path, allow_pickle=True)", "os.system('ls')", "run(command, shell=True)",
    "yaml.load(text)", "table.to_pickle(path)", "pd.read_pickle(path)", "torch_load(path, weights_only=False)",
    "AutoModel.from_pretrained(name, trust_remote_code=True)", "importlib.import_module(name)",
    "from torch import load", "from torch import nn, load as read", "from torch.serialization import load", "import torch as t\nt.load(path)",
    "torch.hub.load(name)", "from os import system", "from os import *", "import os as o\no.popen('ls')", "builtins.eval('1')",
    "from builtins import exec as run", "import builtins as b\nb.compile(text, 'x', 'exec')", "from pandas import read_pickle",
    "from importlib import import_module", "from yaml import unsafe_load",
])  # fmt: skip
def test_the_reader_of_sources_sees_it(line: str) -> None:
    assert list(forbidden(ast.parse(line)))


@pytest.mark.parametrize("line", [
    "from torch import Tensor, nn", "from safetensors.torch import load", "json.load(file)", "from os import path", "re.compile('x')",
    "from importlib.metadata import version", "builtins.len('x')", "model.eval()",
])  # fmt: skip
def test_the_reader_of_sources_leaves_the_rest_alone(line: str) -> None:
    assert not list(forbidden(ast.parse(line)))


# ---------------------------------------------------------------- models of others


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


@pytest.fixture
def theirs(tiny_folder, tmp_path: Path) -> Path:
    """Returns a copy of the tiny Llama's folder, in which a file `ran` appears as soon as anything in it is run."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "theirs"))


def bomb(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(Bomb(folder / "ran")))


def code(folder: Path, name: str = "theirs.py", text: str = "") -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n{text}")


def change(folder: Path, name: str, **values: object) -> None:
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    bomb(folder, "pytorch_model.bin")


def a_pickle_and_other_tensors(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    bomb(folder, "pytorch_model.bin")


def a_pickle_in_the_index(folder: Path) -> None:
    bomb(folder, "pytorch_model.bin")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": "pytorch_model.bin"}}))


def an_index_that_leads_out(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder.parent / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": "../secret.safetensors"}}))


def an_adapter_beside_it(folder: Path) -> None:
    bomb(folder, "adapter_model.bin")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x", "r": 1}))


def an_adapter_alone(folder: Path) -> None:
    an_adapter_beside_it(folder)
    (folder / "config.json").unlink()


def a_model_of_its_own_code(folder: Path) -> None:
    code(folder, text=THEIRS)
    change(
        folder,
        "config.json",
        model_type="theirs",
        auto_map={"AutoConfig": "theirs.TheirConfig", "AutoModelForCausalLM": "theirs.TheirModel"},
    )


def a_tokenizer_of_its_own_code(folder: Path) -> None:
    code(folder)
    change(folder, "tokenizer_config.json", tokenizer_class="TheirTokenizer", auto_map={"AutoTokenizer": ["theirs.TheirTokenizer", None]})


def a_kernel_from_the_hub(folder: Path) -> None:
    change(folder, "config.json", attn_implementation="someorg/somekernel")


THEIRS = """
from transformers import LlamaConfig, LlamaForCausalLM
class TheirConfig(LlamaConfig):
    model_type = "theirs"
class TheirModel(LlamaForCausalLM):
    config_class = TheirConfig
"""


@pytest.mark.parametrize(("prepare", "says"), [
    (only_a_pickle, "holds no *.safetensors; weights in other formats are not read"),
    (a_pickle_and_other_tensors, "cannot load a model from"),
    (a_pickle_in_the_index, "pytorch_model.bin is damaged or missing"),
    (an_index_that_leads_out, "names '../secret.safetensors', which is not a file of this folder"),
    (an_adapter_beside_it, "holds a model and an adapter"),
    (an_adapter_alone, "it is an adapter: give its base model"),
    (a_model_of_its_own_code, "set the parameter trust_remote_code to True"),
    (a_tokenizer_of_its_own_code, "set the parameter trust_remote_code to True"),
    (a_kernel_from_the_hub, "asks for code from \"someorg/somekernel\""),
])  # fmt: skip
def test_a_model_that_would_run_something_is_refused_in_one_line(theirs: Path, prepare: Callable, says: str) -> None:
    prepare(theirs)
    with pytest.raises(UsageError) as error:
        models.load(str(theirs), device="cpu")
    assert says in str(error.value) and "\n" not in str(error.value)
    assert not (theirs / "ran").exists()


def native_with_code(folder: Path) -> None:
    code(folder)
    change(folder, "config.json", auto_map={"AutoModelForCausalLM": "theirs.TheirModel"})


@pytest.mark.parametrize("prepare", [
    native_with_code,
    lambda folder: bomb(folder, "pytorch_model.bin"),
    lambda folder: code(folder, "custom_generate/generate.py"),
    lambda folder: bomb(folder, "tokenizer.pkl"),
], ids=["code", "pickle", "generate", "tokenizer"])  # fmt: skip
def test_what_is_not_needed_is_not_touched(theirs: Path, prepare: Callable) -> None:
    prepare(theirs)
    assert models.load(str(theirs), device="cpu").model.config.model_type == "llama"
    assert not (theirs / "ran").exists()


def test_code_runs_where_it_is_asked_for_by_name_and_is_part_of_the_key(theirs: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    a_model_of_its_own_code(theirs)
    loaded = models.load(str(theirs), device="cpu", trust_remote_code=True)
    assert type(loaded.model).__name__ == "TheirModel" and (theirs / "ran").exists()
    code(theirs, text=THEIRS + "# changed")
    assert models.load(str(theirs), device="cpu", trust_remote_code=True).key != loaded.key


def test_the_parameter_reaches_the_loading(theirs: Path, monkeypatch) -> None:
    class Seen(Exception):
        pass

    def load(spec: str, **options: object) -> None:
        raise Seen(options)

    monkeypatch.setattr(models, "load", load)
    monkeypatch.setattr(models, "load_tokenizer", load)
    values = {name: None for name in profiles.Parameters.model_fields} | {"profile": "smoke", "model": str(theirs)}
    for trusted in (False, True):
        plan = profiles.experiment(values | {"trust_remote_code": trusted})
        with pytest.raises(Seen, match=f"'trust_remote_code': {trusted}"):
            run_job(jobs(plan)[0], theirs.parent / "store")
        with pytest.raises(Seen, match=f"'trust_remote_code': {trusted}"):
            leak_report(replace(plan, budget=replace(plan.budget, match="tokens")))
    with pytest.raises(UsageError, match="trust_remote_code"):
        profiles.experiment(values | {"trust_remote_code": "yes"})


def test_a_chat_template_runs_in_a_sandbox(tiny_qwen3) -> None:
    import jinja2

    tiny_qwen3.tokenizer.chat_template = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(jinja2.exceptions.SecurityError):
        models.encode_prompt(tiny_qwen3.tokenizer, "Compute zibble(5).")


def test_a_pickled_adapter_is_never_read(tiny_llama, tmp_path: Path) -> None:
    an_adapter_beside_it(tmp_path)
    with pytest.raises(UsageError, match="adapter_model.safetensors is damaged or missing"):
        models.load_adapter(tiny_llama.model, tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(UsageError, match="it is no checkpoint"):
        models.load_adapter(tiny_llama.model, tmp_path)
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------- programs


@pytest.mark.parametrize("name", FAMILIES)
def test_drawn_programs_hold_nothing_that_leads_out_of_them(name: str) -> None:
    programs = FAMILIES[name]()
    for seed in range(100):
        tree = ast.parse(programs.sketch("zibble", np.random.default_rng(seed)).source)
        nodes = list(ast.walk(tree))
        assert not any(isinstance(node, (ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.Lambda, ast.ClassDef)) for node in nodes)
        words = {node.id for node in nodes if isinstance(node, ast.Name)} | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        assert not any("__" in word or word in ("format", "format_map") for word in words | texts)
        called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert called <= set(BUILTINS)


def test_the_builtins_of_a_program_read_and_import_nothing() -> None:
    assert set(BUILTINS).isdisjoint(
        {"open", "eval", "exec", "compile", "getattr", "type", "vars", "globals", "object", "input", "print", "__import__"}
    )
    assert set(BUILTINS).isdisjoint(made_up_names())


# ---------------------------------------------------------------- paths

CUNNING = [
    "../evil",
    "..",
    ".",
    "/no-such-root/evil",
    "a/../../evil",
    "..\\evil",
    "C:\\evil",
    "nul\0byte",
    "con",
    "x" * 300,
    "",
    "a\nb",
    "\u202eevil",
    "\x1b[31m",
    "\ud800",
]
REFUSED = [name for name in CUNNING if name not in ("con",)]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def pbb(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["pbb", *arguments])
    try:
        main()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    return status, *capsys.readouterr()


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_is_no_folders_name_is_refused(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PBB_RUN_DIR", raising=False)
    monkeypatch.setenv("PBB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    if name:
        with pytest.raises(UsageError, match="cannot name a folder"):
            notebook.run_folder(name)
    with pytest.raises(UsageError, match="cannot name a folder"):
        pretrain.main(name)
    assert not files(tmp_path)


@pytest.mark.parametrize("name", ["...ipynb", "..ipynb", "a\\b.ipynb", "a\x1b[31m.ipynb", "index.ipynb"])
def test_a_notebook_whose_name_leads_out_is_refused(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / name)
    before = files(tmp_path)
    status, out, err = pbb(monkeypatch, capsys, "run", name)
    assert status == 2 and not out and len(err.splitlines()) == 1 and "\x1b" not in err
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "spec", [*CUNNING, "~nobody-here/x", "org/name@../../x", "org/../name", "/a\0b/c", "./" + "x" * 5000, "org/" + "x" * 5000]
)
def test_a_cunning_model_name_is_one_line_and_makes_nothing(spec: str, tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        models.load(spec, device="cpu") if spec in ("..", ".") else find(spec)
    assert "\n" not in str(error.value)
    assert not {path for path in files(tmp_path) if not path.startswith("hub")} and "evil" not in str(files(tmp_path))


def test_texts_given_as_parameters_stay_texts_and_write_nothing_elsewhere(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    injected = 'a"; import os; os.mkdir("evil") #'
    cell = 'words: list[str] = []  # anything\npair: tuple[str, ...] = ()  # anything\nprofile = "quick"  # a profile'
    check = f"assert words == {CUNNING!r}\nassert pair == ({injected!r}, 'b'), pair\nassert profile == '../../evil'"
    write_notebook(tmp_path / "notebooks" / "[con].ipynb", check, RESULTS.replace("{n}", "'../evil'"), parameters=cell)
    before = files(tmp_path)
    arguments = ("-p", "words", json.dumps(CUNNING), "-p", "pair", json.dumps([injected, "b"]), "-p", "profile", "../../evil")
    status, out, err = pbb(monkeypatch, capsys, "run", "notebooks/[con].ipynb", *arguments)
    assert status == 0, err
    assert {path.split("/")[0] for path in files(tmp_path) - before} == {"runs", "reports"}
    assert {path.split("/")[1] for path in files(tmp_path) - before if path.count("/") == 1} == {"[con]", "[con].html", "index.html"}
    assert len(all_runs("runs", "[con]")) == 1
    assert pbb(monkeypatch, capsys, "report", "[con]")[0] == 0
    assert not [c for c in out + err if c != "\n" and markup.visible(c) != c]


def test_a_run_folder_that_lies_about_its_name_writes_where_it_lies(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    folder = tmp_path / "runs" / "tiny" / "abc"
    write_notebook(folder / "tiny.ipynb")
    (folder / "figures").mkdir()
    columns = "condition,mode,group,seed,n,n_programs,accuracy,low,high"
    (folder / "results.csv").write_text(
        f"{columns}\nbase,direct,without_io,all,4,4,0.5,0.1,0.9\nbase,direct,without_io,0,4,4,0.5,0.1,0.9\n"
    )
    record = {
        "notebook": "../precious",
        "key": "../../evil",
        "status": "completed",
        "started": "2026-01-01T00:00",
        "seconds": 1.0,
        "parameters": {},
        "hardware": {},
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "headline.txt").write_text("<b>bold</b>")
    assert read_run(folder)["notebook"] == "tiny"
    before = files(tmp_path)
    assert pbb(monkeypatch, capsys, "report")[0] == 0
    (tmp_path / "README.md").write_text("<!-- tiny: begin -->\n<!-- tiny: end -->\n")
    assert pbb(monkeypatch, capsys, "record", "tiny")[0] == 0
    assert "> &lt;b&gt;bold" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "precious" / "file").exists()
    assert {path.split("/")[0] for path in files(tmp_path) - before} == {"reports", "figures", "README.md"}
    assert not any("evil" in path for path in files(tmp_path))


@pytest.mark.parametrize("text", ["[]", "1", "null", "{}", '{"status": 5}', "[" * 5000])
def test_a_run_json_of_something_else_is_a_damaged_run(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    assert read_run(tmp_path)["status"] == "damaged"


# ---------------------------------------------------------------- the terminal

COMMANDS = "\x1b[2J\x1b]0;OWNED\x07\x9b31m\u202eevil\u2066\u200b\r\x08"


def test_no_command_prints_what_a_terminal_obeys(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_notebook(
        tmp_path / "notebooks" / "tiny.ipynb",
        parameters=f'profile = "a"  # {COMMANDS}'.replace("\r", ""),
        title=f"# T{COMMANDS}\n\nQ{COMMANDS}",
    )
    folder = tmp_path / "runs" / "tiny" / "abc"
    write_notebook(folder / "tiny.ipynb")
    (folder / "results.csv").write_text(f"condition,n\n{COMMANDS!r},1\n{COMMANDS.replace(chr(13), '')},1\n".encode().decode(), newline="")
    (folder / "headline.txt").write_text(COMMANDS)
    record = {
        "notebook": "tiny",
        "status": "completed",
        "started": "2026-01-01" + COMMANDS,
        "seconds": 1.0,
        "parameters": {"profile": COMMANDS},
    }
    (folder / "run.json").write_text(json.dumps(record | {"started": "2026-01-01T00:00"}))
    (folder.with_name("bcd")).mkdir()
    (folder.with_name("bcd") / "run.json").write_text(json.dumps(record))  # which is no record, and said to be damaged
    shown = ""
    for arguments in (["results"], ["results", "--csv"], ["describe", "notebooks/tiny.ipynb"], ["report"],
                      ["report", "--reports", f"r{COMMANDS}"], ["run", f"notebooks/{COMMANDS}.ipynb"], ["results", COMMANDS],
                      ["run", "notebooks/tiny.ipynb", "-p", COMMANDS, "1"], ["run", "notebooks/tiny.ipynb", "--profile", COMMANDS, "-p", "profile", "b"],
                      ["run", "notebooks/tiny.ipynb", "-p", f"prof{COMMANDS}=1"], ["results", "--out", f"o{COMMANDS}"],
                      ["pretrain", "--name", COMMANDS], ["pretrain", "-p", "steps", COMMANDS]):  # fmt: skip
        status, out, err = pbb(monkeypatch, capsys, *arguments)
        assert not [c for c in out + err if c != "\n" and markup.visible(c) != c], (arguments, out, err)
        assert len(err) < 10_000
        shown += out + err
    assert "OWNED" in shown and "\\u202e" in shown


def test_a_failure_in_a_cell_reaches_the_terminal_as_text_and_short(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    body = f"raise ValueError({COMMANDS!r} + 'x' * 1_000_000)"
    path = write_notebook(tmp_path / "tiny.ipynb", f"## Work HALF {COMMANDS}".replace("\r", ""), body)
    path.write_text(path.read_text(encoding="utf-8").replace("HALF", "\\ud800"), encoding="utf-8")  # JSON can say half of a character
    status, out, err = pbb(monkeypatch, capsys, "run", "tiny.ipynb")
    assert status == 1 and "ValueError: \\x1b[2J" in err and len(err) < 10_000
    assert not [c for c in out + err if c != "\n" and markup.visible(c) != c]
    assert len((tmp_path / "reports" / "tiny.html").read_text()) < 300_000


def test_progress_in_a_terminal_is_text(monkeypatch, capsys) -> None:
    from pbb_helpers.running.terminal import Terminal

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Terminal() as terminal:
        terminal.event({"kind": "cell", "heading": COMMANDS, "index": 0, "count": 1})
        terminal.event({"kind": "progress", "line": COMMANDS})
    ours = capsys.readouterr().err.replace("\r\x1b[K", "")
    assert not [c for c in ours if c != "\n" and markup.visible(c) != c]


def test_a_run_is_named_by_its_parameters_whatever_they_hold() -> None:
    keys = {runner.parameters_key({"x": value}) for value in CUNNING}
    assert len(keys) == len(CUNNING) and all(len(key) == 12 and key.isalnum() for key in keys)
