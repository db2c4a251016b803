"""What makes a run is asked before it is served again, and what it shows says who trained it."""

from __future__ import annotations

import shutil
from pathlib import Path

from pbb_helpers import provenance
from pbb_helpers.provenance import FromStore, trained_by


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


def test_who_trained_is_told_by_commit_and_versions_whatever_the_order():
    a, b = {"commit": "a", "versions": {"torch": "1"}, "hardware": 1}, {"commit": "a", "versions": {"torch": "2"}}
    found = trained_by([a, b, b, {}])
    assert found == trained_by([{}, b, a, b])
    assert [(each["commit"], each["versions"], each["stages"]) for each in found] == [
        ("a", {"torch": "2"}, 2),
        ("a", {"torch": "1"}, 1),
        (None, None, 1),
    ]
    assert provenance.trained_line(found) == "a (3 stages), no commit (1 stage)"


def test_a_share_is_a_number_that_says_who_trained():
    share = FromStore(0.25, {"0" * 16: {"commit": "a"}})
    assert share == 0.25 and f"{share:.4f}" == "0.2500" and share.trainings == {"0" * 16: {"commit": "a"}}
    assert FromStore() == 0 and FromStore().trainings == {}
