"""What the commands share: their options and arguments, `-p name value`, and how they print."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pbb_helpers.markup import shortened, visible


def _by_name(notebook: str) -> str:
    """Returns the path of a notebook that was given by its name alone, and anything else as it is."""
    bare = re.fullmatch(r"[\w-]{1,100}", notebook) and not Path(notebook).exists()
    return str(Path("notebooks") / f"{notebook}.ipynb") if bare else notebook


def _folder(path: Path) -> Path:
    if path.is_file():
        raise typer.BadParameter(f"{path} is a file; give a folder")
    return path


Notebook = Annotated[
    str, typer.Argument(help="Path of a notebook, for example notebooks/01_proactive.ipynb, or its name.", callback=_by_name)
]
Maybe = Annotated[str | None, typer.Argument(help="A notebook's path or name; all notebooks when left out.")]
Runs = Annotated[Path, typer.Option("--runs", "--out", help="The folder of all runs.", callback=_folder)]
Reports = Annotated[Path, typer.Option("--reports", help="The folder of all reports.", callback=_folder)]

Setting = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", metavar="NAME VALUE", help="A parameter and its value; may be given many times. See: pbb describe."),
]
TAKE_SETTINGS = ("run", "sweep", "estimate", "pretrain")
"""The commands that take `-p name value`."""


def pairs(items: list[str]) -> dict[str, str]:
    """Returns name → text of "name=value" items (`main` has joined "-p name value")."""
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{item!r} is not a name and a value; write -p name value", param_hint="-p")
        pairs[name] = value
    return pairs


def join_pairs(arguments: list[str]) -> list[str]:
    """Returns the arguments with "-p name value" joined to "-p name=value", for click takes one value per option."""
    joined: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        joined.append(argument)
        if argument in ("-p", "--parameter"):
            name = next(rest, None)
            if name is not None and name.isidentifier():
                value = next(rest, None)
                name = name if value is None else f"{name}={value}"
            joined += [name] if name is not None else []
    return joined


def name_zip(arguments: list[str]) -> list[str]:
    """Returns the arguments with "--zip FILE.zip" joined, and the usual file named where none follows: click has no optional values."""
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--zip":
            argument += f"={rest.pop(0)}" if rest and rest[0].endswith(".zip") else "=pbb-reports.zip"
        joined.append(argument)
    return joined


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Returns rows of cells as lines of a table, each column as wide as it needs to be.

    >>> columns([("name", "n"), ("zibble", "400")])
    ['name    n', 'zibble  400']
    """
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]


def say(text: object, **options: Any) -> None:
    """Prints; what a terminal would obey, in a name or in generated text, is spelled out."""
    print(visible(text), **options)


def complain(message: object) -> None:
    say(f"pbb: {' '.join(visible(shortened(message)).split())}", file=sys.stderr, flush=True)
