"""The parameters of a notebook, read from its tagged cell without running it, and values parsed against their types."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pbb_helpers.markup import shortened
from pbb_helpers.programs import UsageError, did_you_mean

PROFILES = ("smoke", "quick", "full")
TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "tuple": tuple, "dict": dict, "None": None}


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell.

    Attributes:
        name: The variable's name.
        type: A class, a union with None, or a generic such as list[int]; taken from the annotation, else from the default.
        default: The literal in the cell.
        comment: The text after the `#` on the same line, or of the comment lines above.
        choices: The only values allowed; a comment that starts with "a | b | c" states them. Empty when any value will do.
    """

    name: str
    type: Any
    default: Any
    comment: str
    choices: tuple[str, ...] = ()

    @property
    def type_name(self) -> str:
        """Returns the type as a user would write it, for example "int" or "list[str] | None"."""
        return self.type.__name__ if isinstance(self.type, type) and not typing.get_args(self.type) else str(self.type)


def read_notebook(path: Path | str) -> Any:
    """Returns the notebook as an nbformat 4 node.

    Raises:
        UsageError: No such file, or it is not a notebook.
    """
    import nbformat

    path = Path(path)
    if not path.is_file():
        others = sorted(str(p) for p in path.parent.glob("*.ipynb")) if path.parent.is_dir() else []
        raise did_you_mean("notebook", path, others or sorted(str(p) for p in Path("notebooks").glob("*.ipynb")))
    try:
        node = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        for cell in node.cells:
            cell.cell_type, cell.source, cell.metadata.get("tags")  # what all of us read; nbformat only logs that one is missing
        return node
    except Exception as error:  # nbformat raises whatever a file of any other kind makes it stumble over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise UsageError(f"{path} is not a readable notebook ({reason}); give the path of an .ipynb file") from None


def read_parameters(notebook: Any, where: object = "the notebook") -> dict[str, Parameter]:
    """Returns the parameters of a notebook node by name, in the order of the cell.

    Raises:
        UsageError: Not exactly one code cell has the tag "parameters", or a line in it is not `name = literal`.
    """
    cells = [c for c in notebook.cells if c.cell_type == "code" and "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise UsageError(
            f"{where} has {len(cells) or 'no'} parameters cell{'s' if len(cells) > 1 else ''}; tag exactly one code cell 'parameters' "
            "(JupyterLab: right sidebar, Property Inspector, Cell tags)"
        )
    return parse_cell(cells[0].source, where)


def parse_cell(source: str, where: object = "the notebook") -> dict[str, Parameter]:
    """Returns the parameters that the source of a parameters cell assigns.

    >>> parse_cell("profile = 'quick'  # smoke | quick: how much runs")["profile"].choices
    ('smoke', 'quick')
    >>> parse_cell("n: int | None = None")["n"].type_name
    'int | None'
    """
    try:
        body = ast.parse(source).body
        comments = _comments(source)
    except SyntaxError as error:
        raise UsageError(f"the parameters cell of {where} is not valid Python: line {error.lineno}: {error.msg}") from None
    except (ValueError, tokenize.TokenError, RecursionError, MemoryError) as error:  # a NUL, half a character, a thousand brackets
        raise UsageError(f"the parameters cell of {where} cannot be read ({error or type(error).__name__}); write plain lines") from None
    found = {}
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring or a bare literal says nothing
        parameter = _parameter(node, source, comments, where)
        found[parameter.name] = parameter
    return found


def _parameter(node: ast.stmt, source: str, comments: dict[int, str], where: object) -> Parameter:
    target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else getattr(node, "target", None)
    value = getattr(node, "value", None)
    if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not isinstance(target, ast.Name) or value is None:
        raise UsageError(f"line {node.lineno} of the parameters cell of {where} is not 'name = literal'; move it to another cell")
    try:
        default = ast.literal_eval(value)
        _json(default)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise UsageError(
            f"parameter {target.id!r} of {where} is not a plain literal; write a number, a text, a list, True, False or None"
        ) from None
    annotation = _annotation(node.annotation, target.id, where) if isinstance(node, ast.AnnAssign) else type(default)
    comment = _comment_of(node, source, comments)
    parameter = Parameter(target.id, annotation, default, comment, _choices(comment, default))
    return replace(parameter, default=check(parameter, default))  # lr: float = 1 and -p lr 1 are one run


def _annotation(node: ast.expr, name: str, where: object) -> Any:
    """Returns the type that an annotation names; only TYPES, their generics and unions, so nothing is ever executed."""
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.Name) and node.id in TYPES:
        return TYPES[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _annotation(node.left, name, where) | _annotation(node.right, name, where)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in ("list", "tuple", "dict"):
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if len(items) not in {"list": (1,), "dict": (2,), "tuple": range(1, 100)}[node.value.id]:
            raise UsageError(f"type {ast.unparse(node)!r} of parameter {name!r} of {where} has too few or too many types in its brackets")
        inner = tuple(... if isinstance(i, ast.Constant) and i.value is ... else _annotation(i, name, where) for i in items)
        return TYPES[node.value.id][inner]
    raise UsageError(
        f"type {ast.unparse(node)!r} of parameter {name!r} of {where} is not understood; use {', '.join(TYPES)}, list[…] or a union"
    )


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def _comment_of(node: ast.stmt, source: str, comments: dict[int, str]) -> str:
    last = node.end_lineno or node.lineno
    if last in comments:
        return comments[last]
    lines, number = source.splitlines(), node.lineno - 1
    above: list[str] = []
    while number in comments and lines[number - 1].lstrip().startswith("#"):
        above.insert(0, comments[number])
        number -= 1
    return " ".join(above)


def _choices(comment: str, default: Any) -> tuple[str, ...]:
    match = re.match(r"""["'\w.-]+(?: \| ["'\w.-]+)+""", comment)
    if not match or not isinstance(default, str):
        return ()
    choices = tuple(part.strip("\"'") for part in match.group().split(" | "))
    return choices if default in choices else ()


def check(parameter: Parameter, value: Any) -> Any:
    """Returns `value` as the parameter's type (an int is a float, a numpy scalar is a number, nothing else is converted).

    Raises:
        UsageError: It is of another type, or not one of the choices.
    """
    value = value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value
    fits, value = _fit(value, parameter.type)
    if not fits or not _is_data(value):
        raise UsageError(
            f"parameter {parameter.name!r} takes {parameter.type_name}, not {_shown(value)} ({type(value).__name__}); "
            f"the default is {parameter.default!r}"
        )
    if parameter.choices and isinstance(value, str) and value not in parameter.choices:
        raise did_you_mean(f"{parameter.name}", value, parameter.choices)
    return value


def _json(value: Any) -> str:
    """Returns the value as JSON, which names a run; raises ValueError, TypeError or RecursionError for what JSON has no word for."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _is_data(value: Any) -> bool:
    try:
        _json(value)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def _shown(value: Any) -> str:
    try:
        return shortened(repr(value), 200)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, lists nested as deep
        return "that"


def _fit(value: Any, kind: Any) -> tuple[bool, Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        fits = [v for ok, v in (_fit(value, each) for each in arguments) if ok]
        return (True, fits[0]) if fits else (False, value)
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        inner = arguments[:1] * len(value) if origin is list or arguments[-1] is ... else arguments
        pairs = [_fit(v, k) for v, k in zip(value, inner, strict=False)]
        return len(inner) == len(value) and all(ok for ok, _ in pairs), origin(v for _, v in pairs)
    if origin is dict and isinstance(value, dict):
        items = [(_fit(k, arguments[0]), _fit(v, arguments[1])) for k, v in value.items()]
        return all(k[0] and v[0] for k, v in items), {k[1]: v[1] for k, v in items}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return math.isfinite(value), float(value)
        except OverflowError:  # a whole number beyond every float
            return False, value
    if kind in (list, tuple) and isinstance(value, (list, tuple)):
        return True, kind(value)
    return (isinstance(value, kind) and not (kind is int and isinstance(value, bool))) if isinstance(kind, type) else False, value


def parse(parameter: Parameter, text: str) -> Any:
    """Returns the value that a user typed after `name=`, read as the parameter's type.

    >>> parse(Parameter("lr", float, 1e-3, ""), "1e-4")
    0.0001
    >>> parse(Parameter("names", list[str], [], ""), "base,proactive")
    ['base', 'proactive']
    """
    for value in _readings(text, parameter.type):
        if _fit(value, parameter.type)[0] and _is_data(value):
            return check(parameter, value)
    written = ", written 0,1,2" if "list[int]" in parameter.type_name else ", written a,b" if "list[str]" in parameter.type_name else ""
    raise UsageError(
        f"parameter {parameter.name!r} takes {parameter.type_name}{written}, not {_shown(text)}; the default is {parameter.default!r}"
    )


def _readings(text: str, kind: Any) -> list[Any]:
    """Returns what the text may mean, most literal first; the first that fits the type is taken."""
    stripped = text.strip()
    words = {"true": True, "yes": True, "false": False, "no": False, "none": None, "null": None}
    readings: list[Any] = [words[stripped.lower()]] if stripped.lower() in words and kind is not str else []
    for read in (json.loads, ast.literal_eval, int, float):
        try:
            readings.append(read(stripped))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    # A text parameter keeps exactly what was typed: "007" is a name there, not a number.
    readings = [text, *readings] if kind is str else [*readings, text]
    if "," in stripped or stripped:
        parts = _items(stripped[1:-1] if re.fullmatch(r"\[.*\]|\(.*\)", stripped, re.DOTALL) else stripped)
        readings += [parts, [_number(part) for part in parts]]
    return readings


def _items(text: str) -> list[str]:
    """Returns what stands between the commas; one within brackets, as in "io_only(8, natural)", parts nothing."""
    items, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth <= 0:
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items if item.strip()]


def _number(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def resolve(parameters: Mapping[str, Parameter], given: Mapping[str, Any], *, typed: bool = False) -> dict[str, Any]:
    """Returns the value of every parameter: what was given, else the default.

    Args:
        parameters: From `read_parameters`.
        given: Values by name; texts from a command line when `typed` is true.
        typed: Parse the values of `given` from text.

    Raises:
        UsageError: A name is unknown (with the closest known one), or a value is of the wrong type.
    """
    for name in given:
        if name not in parameters:
            raise did_you_mean("parameter", name, parameters)
    values = {name: parameter.default for name, parameter in parameters.items()}
    for name, value in given.items():
        values[name] = parse(parameters[name], value) if typed else check(parameters[name], value)
    return values
