"""Tiny notebooks, written where a test wants them."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = """profile = "quick"  # smoke | quick | full: how much runs
n: int | None = None  # number of steps
# the learning rate
lr = 1e-3
names = ["a", "b"]
seconds = 0.0  # how long to wait"""

RESULTS = """import pandas as pd
from pbb_helpers.notebook import record
record(
    rows=[{"condition": "base", "correct": True}],
    results=pd.DataFrame({"condition": ["base"], "mode": ["direct"], "group": ["without_io"], "seed": ["all"],
                          "n": [4], "accuracy": [0.25], "low": [0.1], "high": [0.4]}),
    headline=f"base answers {n} of 4",
)"""


def write_notebook(path: Path, *cells: str, parameters: str | None = PARAMETERS, title: str = "# Does it run?\n\nA question.") -> Path:
    """Returns `path` after writing a notebook there: a title, the parameters cell, then the cells; "# " or "## " starts Markdown."""
    made = [new_markdown_cell(title)]
    if parameters is not None:
        made.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    made += [new_markdown_cell(text) if text.startswith(("# ", "## ", "!", "text:")) else new_code_cell(text) for text in cells]
    notebook = new_notebook(cells=made, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path
