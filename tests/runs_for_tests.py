"""A folder of runs as the runner leaves them, without running notebooks: trained and answered for real, at the smallest size."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

from notebooks_for_tests import write_notebook

from pbb_helpers import notebook
from pbb_helpers.analysis import statistics
from pbb_helpers.experiments import experiment, profiles
from pbb_helpers.running.run_record import RunResult, now, process_start, seal

CONDITIONS = ("in_context", "stage1_only", "proactive")


def write_run(
    runs: Path, key: str, *, name: str = "01_tiny", status: str = "completed", rows: Any = None, floors: Any = None, **facts: Any
) -> RunResult:
    """Returns a run written below `runs`, sealed if it is completed."""
    folder = runs / name / key
    write_notebook(folder / f"{name}.ipynb", "1 + 1")
    record = {
        "notebook": name, "title": f"Run {key}", "question": "?", "key": key, "status": status, "seconds": 3.0, "package": "0",
        "started": now(), "finished": None if status == "running" else now(), "pid": os.getpid(), "pid_started": process_start(),
        "host": platform.node(), "parameters": {"profile": "smoke", "lr": None, "seeds": None}, "changed": ["profile"], "commit": "abc1234",
        "hardware": {"cpu": "X", "cores": 2},
    } | facts  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    if rows is not None:
        notebook.record(rows=rows, results=statistics.results(rows), floors=floors, headline=f"[smoke] headline of {key}", folder=folder)
    run = RunResult(folder, record)
    if status == "completed":
        seal(run)
    return run


def make_runs(runs: Path) -> None:
    """Writes two runs that trained and answered with different learning rates and seeds, into one store, and one that failed."""
    plan = replace(profiles.PROFILES["smoke"], conditions=CONDITIONS)
    for key, seed, lr in (("aaaa00000000", 0, None), ("bbbb00000000", 1, 3e-3)):
        budget = plan.budget if lr is None else replace(plan.budget, stage1=replace(plan.budget.stage1, lr=lr))
        found = experiment.run(replace(plan, seeds=(seed,), budget=budget), runs / "store", processes=1)
        values = {"profile": "smoke", "lr": lr, "seeds": [seed]}
        write_run(
            runs,
            key,
            rows=found.rows,
            floors=found.floors if seed == 0 else None,
            parameters=values,
            changed=["profile", "seeds"] + ["lr"] * (lr is not None),
        )
    error = {"index": 2, "heading": "Training", "name": "ValueError", "value": "it <b>broke</b>"}
    write_run(runs, "cccc00000000", name="02_other", status="failed", error=error)
