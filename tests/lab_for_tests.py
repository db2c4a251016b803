"""JupyterLab in a folder of its own and a real browser before it; nothing of the user's settings is read or written."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
ROOT = Path(__file__).parents[1]


@contextmanager
def lab(folder: Path, runs: Path) -> Iterator[str]:
    """Yields the address, its token in it, of explore.ipynb in a JupyterLab whose files lie in `folder` and whose kernels find `runs`."""
    (folder / "notebooks").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks/explore.ipynb", folder / "notebooks")
    for name, values in SETTINGS.items():
        path = folder / ".settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    port, token = _free_port(), secrets.token_hex(16)
    own = {name: str(folder / ".jupyter") for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    # Off the shared libraries' threads: the machine that tests may be busy with trainings.
    env = os.environ | own | {"PBB_RUNS": str(runs), "PYTHONPATH": str(ROOT), "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"), "OMP_NUM_THREADS": "1",
                              "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces"), "JUPYTER_TOKEN": token}  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={folder}",
               "--LabApp.news_url=None", "--LabApp.expose_app_in_browser=True", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    with open(folder / "lab.log", "w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder) as server:
        try:
            _wait(f"http://127.0.0.1:{port}/api/status?token={token}", server, folder / "lab.log")
            yield f"http://127.0.0.1:{port}/lab/tree/notebooks/explore.ipynb?token={token}"
        finally:
            server.terminate()  # it ends its kernels


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    while True:
        try:
            with urllib.request.urlopen(address):
                return
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
