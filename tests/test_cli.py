from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from notebooks_for_tests import RESULTS, write_notebook

import pbb_helpers
from pbb_helpers.cli import main
from pbb_helpers.training.recipes import LADDER

ROOT = Path(pbb_helpers.__file__).parent.parent


def pbb(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Returns the finished command."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, **env}
    return subprocess.run(
        [sys.executable, "-m", "pbb_helpers", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Returns a folder with one notebook that was run once with `pbb run`; what was printed is in run.out and run.err."""
    folder = tmp_path_factory.mktemp("project")
    write_notebook(folder / "notebooks" / "tiny.ipynb", "## Work", RESULTS)
    done = pbb("run", "notebooks/tiny.ipynb", "-p", "n", "3", "--profile", "smoke", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "run.out").write_text(done.stdout)
    (folder / "run.err").write_text(done.stderr)
    return folder


def test_run_says_where_the_report_is_and_the_headline(project: Path):
    out = (project / "run.out").read_text().splitlines()
    assert out[:2] == ["report: reports/tiny.html", "report: reports/index.html"] and out[-1] == "base answers 3 of 4"
    assert (project / "reports/tiny.html").is_file() and (project / "reports/index.html").is_file()
    assert "3/4 Work" in (project / "run.err").read_text()


def test_second_run_repeats_nothing(project: Path):
    before = (project / "reports/tiny.html").stat().st_mtime_ns
    done = pbb("run", "notebooks/tiny.ipynb", "-p", "n=3", "-p", "profile", "smoke", cwd=project)
    assert done.returncode == 0 and "nothing was run again" in done.stdout and done.stdout.endswith("base answers 3 of 4\n")
    assert (project / "reports/tiny.html").stat().st_mtime_ns == before


def test_results_as_csv(project: Path):
    done = pbb("results", "notebooks/tiny.ipynb", "--csv", cwd=project)
    assert done.stdout.splitlines() == ["condition,mode,group,seed,n,accuracy,low,high", "base,direct,without_io,all,4,0.25,0.1,0.4"]
    assert "0.25" in pbb("results", cwd=project).stdout


def test_results_that_are_no_table_are_one_line(project: Path, tmp_path: Path):
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    (path,) = (tmp_path / "runs").glob("tiny/*/results.csv")
    path.write_text("")
    (path.parent / "manifest.json").unlink()
    done = pbb("results", cwd=tmp_path)
    assert done.returncode == 2 and "is damaged: results.csv cannot be read" in done.stderr and "Traceback" not in done.stderr


def test_changed_results_are_not_shown(project: Path, tmp_path: Path):
    shutil.copytree(project / "runs", tmp_path / "runs")
    (path,) = (tmp_path / "runs").glob("tiny/*/results.csv")
    path.write_text(path.read_text().replace("0.25", "0.52"))
    done = pbb("results", cwd=tmp_path)
    assert done.returncode == 2 and "is damaged: results.csv" in done.stderr and "0.52" not in done.stdout


def test_describe_prints_types_defaults_and_comments(project: Path):
    out = pbb("describe", "notebooks/tiny.ipynb", cwd=project).stdout
    assert "n        int | None  None        number of steps" in out and "A question." in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "notebooks/tinny.ipynb"], "did you mean 'notebooks/tiny.ipynb'"),
        (["run", "notebooks/tiny.ipynb", "-p", "learning", "1"], "unknown parameter 'learning'"),
        (["run", "notebooks/tiny.ipynb", "-p", "seconds", "soon"], "parameter 'seconds' takes float, not 'soon'"),
        (["run", "notebooks/tiny.ipynb", "--profile", "quik"], "did you mean 'quick'"),
        (["run", "notebooks/tiny.ipynb", "-p", "=3"], "not a name and a value"),
        (["run", "bare.ipynb"], "has no parameters cell"),
        (["run", "run.out"], "not a readable notebook"),
        (["run", "notebooks"], "unknown notebook"),
        (["run", "tinny"], "did you mean 'notebooks/tiny.ipynb'"),
        (["run", "01_proactive", "-p", "profile", "smoke", "-p", "conditions", "proactve"], "did you mean 'proactive'"),
        (["sweep", "01_proactive", "--dry-run", "-p", "lr", "1e-3,-1"], "lr -1.0; give lr > 0"),
        (["estimate", "01_proactive", "-p", "processes", "0"], "processes 0; give at least 1"),
        (["estimate", "01_proactive", "--profile", "ful"], "did you mean 'full'"),
        (["estimate", "tiny"], "notebook tiny is none whose experiments are known here; those are 01_proactive"),
        (["describe", "bare.ipynb", "--runs"], "No such option"),
        (["results", "--runs", "bare.ipynb"], "bare.ipynb is a file; give a folder"),
        (["report", "--reports", "bare.ipynb"], "bare.ipynb is a file; give a folder"),
        (["report", "run.out"], "unknown notebook"),
        (["logs", "tiny", "-n", "-5"], "greater than or equal to 1"),
        (["run", "notebooks/tiny.ipynb", "--out", "run.out/runs"], "run.out"),
        (["describe", "bare.ipynb"], "has no parameters cell"),
        (["results", "tinny"], "did you mean 'tiny'"),
        (["results", "--out", "nothing"], "no finished run"),
        (["report", "--out", "nothing"], "no runs in nothing"),
        (["pretrain", "-p", "language", "2"], "language 2.0; give the share of documents in words"),
        (["pretrain", "-p", "passes", "0"], "passes 0"),
        (["pretrain", "-p", "stepz", "3"], "did you mean 'steps'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(project: Path, arguments: list[str], says: str, monkeypatch, capsys):
    write_notebook(project / "bare.ipynb", parameters=None)
    shutil.copy(ROOT / "notebooks" / "01_proactive.ipynb", project / "notebooks")
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["pbb", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and says in " ".join(lines), lines
    assert len(lines) == 1 or lines[0].startswith("Usage:")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_no_permission_is_one_line(project: Path):
    shut = project / "shut"
    shut.mkdir(exist_ok=True)
    shut.chmod(0o500)
    target = "shut/runs" if os.geteuid() else "/proc/runs"  # root may write anywhere but there
    done = pbb("run", "notebooks/tiny.ipynb", "--out", target, cwd=project)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and target in done.stderr


def test_full_disk_in_a_cell_is_one_line_and_exit_2(project: Path):
    write_notebook(project / "full.ipynb", "import errno, os\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'runs/store')")
    done = pbb("run", "full.ipynb", cwd=project)
    assert done.returncode == 2 and "No space left on device" in done.stderr.strip().splitlines()[-1] and "Traceback" not in done.stderr


def test_failed_notebook_is_exit_1_with_a_report(project: Path):
    write_notebook(project / "broken.ipynb", "1 / 0")
    done = pbb("run", "broken.ipynb", cwd=project)
    assert done.returncode == 1 and "cell 3 (Does it run?): ZeroDivisionError: division by zero" in done.stderr
    assert "This run failed." in (project / "reports/broken.html").read_text()


def test_models_and_help_are_quick_and_import_no_torch(project: Path):
    code = (
        "import sys, pbb_helpers.cli; sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'matplotlib', 'nbconvert', 'papermill')))"
    )
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode == 0
    help_text = pbb("--help", cwd=project).stdout
    assert all(command in help_text for command in ("run", "report", "describe", "results", "models", "pretrain"))
    listed = pbb("models", cwd=project)
    assert listed.returncode == 0 and "pbb-small\n" in listed.stdout


def test_a_model_of_the_ladder_that_does_not_ship_is_listed_with_how_to_make_it(monkeypatch, capsys):
    monkeypatch.setitem(LADDER, "pbb-next", replace(LADDER["pbb-m"], name="pbb-next"))
    monkeypatch.setattr(sys, "argv", ["pbb", "models"])
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code and "pbb-next\n  does not ship; make it with: pbb pretrain --name pbb-next" in capsys.readouterr().out
