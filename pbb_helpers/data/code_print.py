"""A hash of the code that documents are drawn and keyed with. Imported before any of that code: what is hashed later may have been edited in between."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pbb_helpers.provenance import PACKAGE, versions

DRAWN_BY = ("data", "families", "programs.py")
KEYED_BY = ("experiments/trained.py", *(f"training/{name}.py" for name in ("models", "parallel", "stacked", "store", "train")))
BENEATH = ("python", "numpy", "tokenizers", "transformers")


def code_print(package: Path = PACKAGE) -> str:
    """Returns a hash of the code and word lists that documents are drawn, checked, counted and keyed with, and of the versions beneath them."""
    installed = versions()  # a library may be missing where nothing is drawn: `pbb doctor` says so
    found = hashlib.sha256(f"{[installed.get(name) for name in BENEATH]}\n".encode())
    places = [package / name for name in (*DRAWN_BY, *KEYED_BY)]
    files = [file for place in places for file in (place.rglob("*") if place.is_dir() else [place])]
    for path in sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts):
        found.update(f"{path.relative_to(package).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


IMPORTED = code_print()
"""Of the code that this process runs: what lies on the disk may be edited while it does."""
