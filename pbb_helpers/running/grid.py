"""The values that a sweep tries: texts like "0:5" or "a,b", or a file, read by the declared types of a notebook's parameters."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pbb_helpers.parameters import Parameter, check, parse
from pbb_helpers.programs import UsageError, did_you_mean

MOST = 10_000
"""Values of one parameter: more is a slip of the finger."""
RANGE = re.compile(r"\s*(-?\d{1,999}):(-?\d{1,999})(?::(-?\d{1,999}))?\s*")


def read_grid(known: Mapping[str, Parameter], typed: Iterable[tuple[str, str]], file: Path | None = None) -> dict[str, list[Any]]:
    """Returns the values to try by name, in the order of the file and then of the command line, which wins over the file.

    Args:
        known: The notebook's parameters.
        typed: Names and texts of a command line.
        file: YAML or JSON: a mapping from names to lists of values.

    Raises:
        UsageError: An unknown or repeated name, a value that does not fit the parameter's type, or a file that can't be read.
    """
    grid = _read_file(known, file) if file else {}
    seen: set[str] = set()
    for name, text in typed:
        if name in seen:
            raise UsageError(f"parameter {name!r} is given twice; list its values once: -p {name} A,B")
        seen.add(name)
        grid[name] = read_values(_known(known, name), text)
    return grid


def read_values(parameter: Parameter, text: str) -> list[Any]:
    """Returns the values that a text lists.

    A comma separates values; `a:b` or `a:b:step` counts as Python's `range` does, b left out. A list-typed parameter takes lists in brackets,
    one a value, and a range gives a list of one number each.

    >>> read_values(Parameter("lr", float, 1e-3, ""), "1e-3,3e-4"), read_values(Parameter("n", int, 1, ""), "0:3")
    ([0.001, 0.0003], [0, 1, 2])
    >>> read_values(Parameter("seeds", list[int] | None, None, ""), "[0],[1,2]"), read_values(Parameter("seeds", list[int], [0], ""), "0:2")
    ([[0], [1, 2]], [[0], [1]])

    Raises:
        UsageError: A value does not fit, there is none, or a list is not in brackets.
    """
    takes_lists, numbers = _takes(parameter, list, tuple), _range(parameter, text)
    if numbers is not None:
        return [check(parameter, [n] if takes_lists else n) for n in numbers]
    parts = _split(text)
    if takes_lists:
        if len(parts) > 1 and not all(re.fullmatch(r"\[.*\]|\(.*\)|none|null", part, flags=re.I | re.S) for part in parts):
            raise UsageError(
                f"parameter {parameter.name!r} takes a list, and {text!r} may be one or several; write [{text}] for one run with all, "
                f"{','.join(f'[{part}]' for part in parts)} for a run each"
            )
    elif text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            raise UsageError(f'parameter {parameter.name!r}: {text!r} is not a JSON list; write A,B or ["A", "B"]') from None
        if not found:
            raise UsageError(f"parameter {parameter.name!r}: {text!r} is an empty list; give at least one value")
        return [_value(parameter, value) for value in found]
    if not parts or "" in parts:
        raise UsageError(f"parameter {parameter.name!r}: {text!r} holds an empty value; write A,B")
    return [parse(parameter, part) for part in parts]


def _read_file(known: Mapping[str, Parameter], path: Path) -> dict[str, list[Any]]:
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the grid {path} can't be read: {getattr(error, 'strerror', None) or 'not a text'}") from None
    except RecursionError:
        raise UsageError(f"the grid {path} is nested too deep; write for example: lr: [0.001, 0.0003]") from None
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2024-99-99 is a ValueError
        raise UsageError(f"the grid {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict) or not loaded:
        raise UsageError(f"the grid {path} is not a mapping from names to lists of values; write for example: lr: [0.001, 0.0003]")
    grid = {}
    for name, values in loaded.items():
        parameter = _known(known, name)
        values = values if isinstance(values, list) else [values]
        if not values:
            raise UsageError(f"parameter {name!r} has no values in {path}; list at least one")
        if _takes(parameter, list, tuple) and not any(value is None or isinstance(value, list) for value in values):
            raise UsageError(f"parameter {name!r} takes lists; in {path} write a list of lists: {name}: [{values}]")
        grid[name] = [_value(parameter, value) for value in values]
    return grid


def _value(parameter: Parameter, value: Any) -> Any:
    """Returns a value of a file as the parameter's type; YAML takes 1e-3 for a text."""
    return parse(parameter, value) if isinstance(value, str) else check(parameter, value)


def _known(known: Mapping[str, Parameter], name: Any) -> Parameter:
    if name not in known:
        raise did_you_mean("parameter", name, known)
    return known[name]


def _range(parameter: Parameter, text: str) -> list[int] | None:
    """Returns the whole numbers of a:b or a:b:step, or None where the text is no range or the parameter takes texts."""
    match = RANGE.fullmatch(text)
    if not match or not _takes(parameter, int, float, list, tuple):
        return None
    start, stop, step = (int(part) if part else 1 for part in match.groups())
    numbers = range(start, stop, step) if step else range(0)
    count = max(0, -((start - stop) // step)) if step else 0  # len() has an end
    if not 0 < count <= MOST:
        raise UsageError(f"parameter {parameter.name!r}: {text} gives {count} values; give 1 to {MOST}, first:end or first:end:step")
    return list(numbers)


def _takes(parameter: Parameter, *kinds: type) -> bool:
    """Returns whether one of these classes, or a list of some kind, is among what the parameter takes."""
    options = typing.get_args(parameter.type) if _is_union(parameter.type) else (parameter.type,)
    return any((typing.get_origin(option) or option) in kinds for option in options)


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (types.UnionType, typing.Union)


def _split(text: str) -> list[str]:
    """Returns the parts between commas that stand in no bracket; in brackets quotes hide brackets.

    >>> _split("[0], [1,2],{'a': (1, 2)}")
    ['[0]', '[1,2]', "{'a': (1, 2)}"]
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and depth > 0:
            quote = character
        elif character in "[({])}":
            depth += 1 if character in "[({" else -1
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
