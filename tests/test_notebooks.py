"""What every notebook of the project keeps to, and that each runs and becomes a report."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

from pbb_helpers import markup
from pbb_helpers.parameters import PROFILES, read_parameters
from pbb_helpers.running.runner import run, title_of
from pbb_helpers.sharing import report

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def cells(path: Path, kind: str = "code") -> list:
    """Returns the notebook's cells of a kind."""
    return [c for c in nbformat.read(path, 4).cells if c.cell_type == kind]


def tree(cell) -> ast.Module:
    """Returns the cell's syntax tree, without IPython's magics."""
    return ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!"))))


def test_nothing_that_a_run_leaves_is_stored(path: Path):
    node = nbformat.read(path, 4)
    assert all(not c.outputs and c.execution_count is None for c in node.cells if c.cell_type == "code")
    assert "widgets" not in node.metadata and "papermill" not in node.metadata


def test_kernel_and_ids(path: Path):
    node = nbformat.read(path, 4)
    assert node.metadata.kernelspec.name == "python3" and (node.nbformat, node.nbformat_minor) >= (4, 5)
    ids = [c.get("id") for c in node.cells]
    assert all(ids) and len(set(ids)) == len(ids)
    nbformat.validate(node)


def test_parameters_are_plain_commented_literals(path: Path):
    parameters = read_parameters(nbformat.read(path, 4), path)
    assert all(p.comment for p in parameters.values()), [p.name for p in parameters.values() if not p.comment]
    assert "profile" in parameters and parameters["profile"].choices == PROFILES


def test_the_first_cell_says_question_section_and_running_time(path: Path):
    node = nbformat.read(path, 4)
    title, question = title_of(node)
    assert title and question, "the first cell is Markdown: '# Title', then the question"
    text = node.cells[0].source
    assert re.search(r"2506\.18777|[Pp]aper", text), "says which part of the paper it follows"
    assert re.search(r"\b(second|minute|min|hour)s?\b", text), "says how long it runs, on what"
    assert node.cells[1].metadata.get("tags") == ["parameters"] or node.cells[2].metadata.get("tags") == ["parameters"]


def test_cells_are_calls_into_the_package(path: Path):
    for cell in cells(path):
        nodes = list(ast.walk(tree(cell)))
        assert not any(isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)) for n in nodes), (
            f"a def in {cell.id}; put it into the package"
        )
        assert "sys.path" not in cell.source, cell.id
        loops = [n for n in nodes if isinstance(n, (ast.For, ast.While))]
        assert not any(isinstance(m, (ast.For, ast.While)) for n in loops for m in ast.walk(n) if m is not n), f"nested loops in {cell.id}"
        assert len([line for line in cell.source.splitlines() if line.strip()]) <= 25, f"{cell.id} is long"


def test_prose_stands_before_code(path: Path):
    node = nbformat.read(path, 4)
    texts = sum(c.cell_type == "markdown" for c in node.cells)
    assert texts >= len(cells(path)) / 2, "sentence, call, look, sentence"


@pytest.mark.slow
def test_runs_in_profile_smoke_and_its_report_is_fit_to_share(path: Path, tmp_path: Path):
    result = run(path, {"profile": "smoke"}, out_dir=tmp_path / "runs")
    assert result.status == "completed", result.error
    page = report.page(result)  # raises for a figure without alt text, for anything loaded from elsewhere, and for a page too heavy to send
    assert markup.external_loads(page) == [] and len(page.encode()) <= report.HEAVIEST
    assert result.headline, "record(headline=…) leaves one line for the terminal"
