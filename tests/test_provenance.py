"""What makes a run is asked before it is served again."""

from __future__ import annotations

import shutil
from pathlib import Path

from pbb_helpers import provenance


def test_every_module_that_only_presents_is_there():
    """A path that names nothing would leave a renamed module in the hash, and every run would be stale after a change of how it is shown."""
    assert [name for name in provenance._PRESENTATION if not (provenance.PACKAGE / name).is_file()] == []


def test_a_module_is_left_out_by_its_path_and_not_by_its_name(tmp_path: Path, monkeypatch):
    package = tmp_path / "package"
    shutil.copytree(provenance.PACKAGE, package, ignore=shutil.ignore_patterns("shipped", "__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", package)
    before = provenance.package_hash()
    (package / "running" / "grid.py").write_text("")
    assert provenance.package_hash() == before
    (package / "data" / "grid.py").write_text("")
    assert provenance.package_hash() != before


def test_libraries_that_draw_documents_and_figures_are_among_the_versions():
    assert {"python", "torch", "tokenizers", "matplotlib", "seaborn"} <= provenance.versions().keys()
