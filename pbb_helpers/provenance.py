"""Where a result comes from: commit, hardware, versions, and a hash of the package's own source."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pbb_helpers

PACKAGE = Path(pbb_helpers.__file__).parent
# These modules start runs and show results but don't make them: a change in them repeats no run.
_PRESENTATION = {f"{name}.py" for name in ("cli", "cli_models", "cli_options", "cli_sweep", "doctor")}
_PRESENTATION |= {f"running/{name}.py" for name in ("cleaning", "grid", "run_logs", "run_record", "run_table", "runner", "slurm")}
_PRESENTATION |= {f"running/{name}.py" for name in ("sweep", "sweep_run", "terminal")}
_PRESENTATION |= {f"sharing/{name}.py" for name in ("claims", "images", "report", "report_index", "share")}
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "numpy", "pandas", "matplotlib", "seaborn", "papermill")


def provenance() -> dict[str, Any]:
    """Returns commit, hardware, library versions and package version, ready for JSON."""
    return {"commit": commit(), "hardware": hardware(), "versions": versions(), "package": pbb_helpers.__version__}


def commit(folder: Path | None = None) -> str | None:
    """Returns the short git commit of `folder` (default: the package's), with "+" when tracked files differ, or None."""
    where = str(folder or PACKAGE)
    head = _output(["git", "-C", where, "rev-parse", "--short=10", "HEAD"])
    if not head:
        return None
    return head + ("+" if _output(["git", "-C", where, "status", "--porcelain", "--untracked-files=no"]) else "")


@functools.cache
def hardware() -> dict[str, Any]:
    """Returns processor name, usable cores, memory in GB, and the names of the GPUs."""
    gpus = _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) if shutil.which("nvidia-smi") else ""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gb": _memory_gb(),
        "gpus": [line.strip() for line in gpus.splitlines() if line.strip()],
        "system": platform.system(),
    }


def cores() -> int:
    """Returns how many cores this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware_line(found: dict[str, Any]) -> str:
    """Returns hardware in one line.

    >>> hardware_line({"cpu": "Xeon", "cores": 2, "memory_gb": 8, "gpus": []})
    'Xeon, 2 cores, 8 GB'
    """
    parts = [found.get("cpu") or "unknown processor", f"{found.get('cores', '?')} cores"]
    parts += [f"{found['memory_gb']} GB"] if found.get("memory_gb") else []
    return ", ".join([*parts, *found.get("gpus", [])])


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that decide the numbers and the figures; importing none of them."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class FromStore(float):
    """A share of work that the store held before, and what every training behind the result says of itself, of this run or an earlier one.

    Attributes:
        trainings: `provenance` of each stage, by the name of its folder in the store.
    """

    trainings: dict[str, dict[str, Any]]

    def __new__(cls, share: float = 0.0, trainings: Mapping[str, dict[str, Any]] | None = None) -> FromStore:
        self = super().__new__(cls, share)
        self.trainings = dict(trainings or {})
        return self


def trained_by(trainings: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the commits and versions that trainings were made with, each once with its number of stages, most first.

    >>> trained_by([{"commit": "a"}, {"commit": "b"}, {"commit": "b"}])
    [{'commit': 'b', 'versions': None, 'stages': 2}, {'commit': 'a', 'versions': None, 'stages': 1}]
    """
    counts = Counter(json.dumps({key: each.get(key) for key in ("commit", "versions")}) for each in trainings)
    return [json.loads(said) | {"stages": n} for said, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def trained_line(found: Iterable[Mapping[str, Any]]) -> str:
    """Returns the commits of `trained_by` in one line.

    >>> trained_line([{"commit": "abc", "stages": 12}, {"commit": None, "stages": 4}, {"commit": "abc", "stages": 1}])
    'abc (13 stages), no commit (4 stages)'
    """
    counts: Counter[str] = Counter()
    for each in found:
        counts[each["commit"] or "no commit"] += each["stages"]
    return ", ".join(f"{commit} ({n} stage{'s' if n > 1 else ''})" for commit, n in counts.most_common())


def package_hash() -> str:
    """Returns the SHA-256 of the package's source and shipped models, without the modules that only present results."""
    files = [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).as_posix() not in _PRESENTATION]
    files += PACKAGE.rglob("*.txt")  # the words that texts of ciphers are drawn from
    files += [p for p in (PACKAGE / "shipped").rglob("*") if p.is_file()]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gb() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    except (ValueError, OSError, AttributeError):
        return None


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
