"""The commands for base models: `pbb models`, `pbb pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pbb_helpers.cli_options import Setting, pairs, say

app = typer.Typer(rich_markup_mode=None)


@app.command()
def models() -> None:
    """Lists the models of this project, those that ship and those that can be made; any hub id or folder works as well: -p model <id or folder>."""
    from pbb_helpers.training.model_files import made, shipped
    from pbb_helpers.training.recipes import LADDER

    cards = shipped()
    for name, card in cards.items():
        say(name)
        for key, value in card.facts.items():
            long = isinstance(value, (list, dict)) and len(str(value)) > 100
            say(f"  {key}: ({len(value)} entries, in {card.folder / 'card.json'})" if long else f"  {key}: {value}")
    for name in (name for name in LADDER if name not in cards):
        folder = made(name)
        say(f"{name}\n  {f'made here: {folder}' if folder else f'does not ship; make it with: pbb pretrain --name {name}'}")


@app.command()
def pretrain(
    name: Annotated[str, typer.Option(help="The new model's name.")] = "pbb-small",
    folder: Annotated[Path | None, typer.Option(help="Where to put it; runs/pretrain/<name> by default.")] = None,
    parameter: Setting = None,
) -> None:
    """Makes a base model from scratch, as the shipped ones were made: hours on a CPU, resumable.

    Example: pbb pretrain --name my-model -p steps 2000 -p hidden 64 -p language 0.5
    """
    import dataclasses
    import typing

    from pbb_helpers.data.corpus import Mix
    from pbb_helpers.parameters import Parameter, resolve
    from pbb_helpers.training.pretrain import main
    from pbb_helpers.training.recipes import PretrainSettings

    every = (*dataclasses.fields(PretrainSettings), *dataclasses.fields(Mix))
    fields = [f for f in every if f.name != "name" and f.default is not dataclasses.MISSING]
    types = typing.get_type_hints(PretrainSettings) | typing.get_type_hints(Mix)
    known = {f.name: Parameter(f.name, types[f.name], f.default, "") for f in fields}
    given = pairs(parameter or [])
    values = resolve(known, given, typed=True)
    main(name, folder, **{key: values[key] for key in given})
