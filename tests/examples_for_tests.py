"""The code blocks of a Markdown file, and what they say to do with a repository."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from nbformat import write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


@dataclass(frozen=True)
class Block:
    """A code block: its language, its text, and the first line that it stands in."""

    language: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    """Returns the fenced code blocks of a Markdown file, in order."""
    found, inside = [], None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```") and inside is None:
            inside = (line.removeprefix("```").strip(), [], number + 1)
        elif line == "```" and inside is not None:
            found.append(Block(inside[0], "\n".join(inside[1]), inside[2]))
            inside = None
        elif inside is not None:
            inside[1].append(line)
    assert inside is None, f"{path.name}: the block of line {inside[2] - 1} does not end"
    return found


def follow(block: Block, root: Path) -> Path:
    """Returns the file that a block names in its first line, after doing there what the line says.

    "# FILE" makes the file, a notebook of its cells; "# FILE, with the imports" puts the rest after the file's imports; "# FILE, into NAME" puts it
    at the end of the table that is assigned to NAME.
    """
    head, _, rest = block.text.partition("\n")
    match = re.fullmatch(r"# ([\w/]+\.(?:py|ipynb))(?:, (with the imports|into (\w+)))?", head)
    assert match, f"line {block.line}: {head!r} does not say what to do with the block"
    path = root / match[1]
    if not match[2]:
        assert not path.exists(), f"line {block.line}: {match[1]} is there already"
        write(notebook(rest), path) if path.suffix == ".ipynb" else path.write_text(rest + "\n", encoding="utf-8")
        return path
    text = path.read_text(encoding="utf-8")
    body = ast.parse(text).body
    if match[3]:
        assigned = [node for node in body if isinstance(node, ast.Assign | ast.AnnAssign)]
        table = next(node for node in assigned if ast.unparse(node).split(" = ")[0].split(":")[0] == match[3]).value
        last = (table.generators[0].iter.elts if isinstance(table, ast.DictComp) else table.values)[-1].end_lineno
    else:
        last = max(node.end_lineno for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    lines = text.splitlines()
    if match[3] and lines[last - 1].rstrip().endswith("}"):  # the whole table stands in one line
        lines[last - 1] = lines[last - 1].rstrip().removesuffix("}") + ", " + rest + "}"
    else:
        lines.insert(last, rest + ("," if match[3] else ""))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def notebook(text: str):
    """Returns the notebook whose cells are written below lines "# %%", Markdown as comments."""
    cells = []
    for head, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*(?:\n|\Z))*)", text, re.MULTILINE):
        if "[markdown]" in head:
            cells.append(new_markdown_cell("\n".join(re.sub(r"^# ?", "", line) for line in body.strip("\n").split("\n"))))
        else:
            tags = re.findall(r'"(\w+)"', head)
            cells.append(new_code_cell(body.strip("\n"), metadata={"tags": tags} if tags else {}))
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
