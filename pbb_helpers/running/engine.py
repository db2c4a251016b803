"""A papermill engine that tells the truth: what ran, what failed and where, and what was killed; and no kernel outlives it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.translators import PythonTranslator, papermill_translators

from pbb_helpers.disk import write_text
from pbb_helpers.progress import MIME, PREFIX
from pbb_helpers.running.run_record import Stopped

Event = dict[str, Any]
GRACE = 3.0  # seconds between asking a kernel to end and killing it

# Ends the kernel's process group when the runner is gone, however it went: reading ends when the last writer dies.
_GUARD = """
import os, signal, sys, time
group = int(sys.argv[1])
sys.stdin.buffer.read()
for number in (signal.SIGTERM, signal.SIGKILL):
    try:
        os.killpg(group, number)
    except OSError:
        break
    time.sleep(2)
"""


def injected(cell: Any) -> bool:
    """Returns whether papermill put this cell in, to set the parameters."""
    return "injected-parameters" in cell.metadata.get("tags", [])


class Manager(NotebookExecutionManager):
    """Keeps the result notebook and tells `on_event` about every cell; papermill's own calls every cell completed."""

    def __init__(self, nb: Any, path: Path, on_event: Callable[[Event], None]) -> None:
        super().__init__(nb, output_path=str(path), progress_bar=False)
        self.path, self.on_event, self.heading = path, on_event, ""

    def save(self, **_: Any) -> None:
        """Writes the notebook whole or not at all, so that a reader never sees half of it."""
        # Half of a surrogate pair, which UTF-8 has no bytes for, becomes JSON's own escape for it.
        write_text(self.path, nbformat.writes(self.nb).encode(errors="backslashreplace").decode())
        self.last_save_time = self.now()

    def cell_start(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        """Notes the last heading, which tells people more than a number, and records the cell."""
        titles = [line.lstrip("#").strip() for line in cell.source.splitlines() if line.startswith("#")]
        if cell.cell_type == "markdown" and titles:
            self.heading = titles[-1]
        super().cell_start(cell, cell_index, **kwargs)
        if not injected(cell):
            count = sum(not injected(c) for c in self.nb.cells)
            self.on_event({"kind": "cell", "index": self._number(cell_index), "count": count, "heading": self.heading})

    def _number(self, cell_index: int | None) -> int:
        """Returns the cell's place in the author's notebook, which lacks the cell of values that papermill put in."""
        return sum(not injected(cell) for cell in self.nb.cells[: cell_index or 0])

    def cell_exception(self, cell: Any, cell_index: int | None = None, exception: Exception | None = None, **kwargs: Any) -> None:
        """Records the error of a cell, in words that fit one line."""
        super().cell_exception(cell, cell_index, exception=exception, **kwargs)
        name, value = getattr(exception, "ename", type(exception).__name__), getattr(exception, "evalue", str(exception))
        self.on_event({"kind": "error", "index": self._number(cell_index), "heading": self.heading, "name": name, "value": value})

    def cell_complete(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        """Marks the cell; one that ended because its kernel died is no completed cell."""
        died = sys.exc_info()[0] is not None and not isinstance(sys.exc_info()[1], CellExecutionError)
        super().cell_complete(cell, cell_index, **kwargs)
        if died:
            cell.metadata.papermill["status"] = "killed"
            self.save()

    def notebook_complete(self, **_: Any) -> None:
        """Writes the notebook a last time; cells that never ran stay "pending"."""
        self.end_time = self.now()
        self.nb.metadata.papermill["end_time"] = self.end_time.isoformat()
        self.nb.metadata.papermill["duration"] = (self.end_time - self.start_time).total_seconds()
        self.save()


class Client(PapermillNotebookClient):
    """Starts this very Python as kernel over local sockets, and hands on the progress that it shows."""

    def create_kernel_manager(self) -> Any:
        """Returns a manager for `sys.executable`: a kernelspec "python3" elsewhere on the machine can't take its place."""
        manager = super().create_kernel_manager()
        manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        if os.name == "posix":
            # TCP ports are picked first and bound later, so parallel runs can collide. A short folder: socket paths end at 107 bytes.
            self.sockets = tempfile.mkdtemp(prefix="pbb-")
            manager.transport, manager.connection_file = "ipc", os.path.join(self.sockets, "kernel.json")
        return manager

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        await super().async_start_new_kernel(**kwargs)
        pid = getattr(getattr(self.km, "provisioner", None), "pid", None)
        self.nb_man.on_event({"kind": "kernel", "pid": pid})

    start_new_kernel = run_sync(async_start_new_kernel)  # the parent's is tied to the parent's coroutine

    def process_message(self, message: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Passes progress on to `on_event`, then lets papermill keep the output."""
        content, kind = message.get("content", {}), message.get("msg_type")
        if kind in ("display_data", "update_display_data") and MIME in content.get("data", {}):
            payload = content["data"][MIME]
            self.nb_man.on_event({"kind": "progress", **(json.loads(payload) if isinstance(payload, str) else payload)})
        elif kind == "stream" and content.get("text", "").startswith(PREFIX):
            for line in content["text"].splitlines():
                if line.startswith(PREFIX):
                    self.nb_man.on_event({"kind": "progress", "line": line[len(PREFIX) :], "status": "line"})
        return super().process_message(message, *args, **kwargs)


class Engine(NBClientEngine):
    """The engine "pbb" of papermill: `execute_notebook(…, engine_name="pbb", result=…, on_event=…, env=…)`."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        *,
        result: Path,
        on_event: Callable[[Event], None],
        env: dict[str, str],
        **_: Any,
    ) -> Any:
        """Returns the executed notebook, saved at `result` after every cell and every 30 s within one."""
        guard = Guard()

        def event(what: Event) -> None:
            if what["kind"] == "kernel" and what["pid"]:
                guard.watch(what["pid"])
            on_event(what)

        manager = Manager(nb, result, event)
        client = Client(manager, kernel_name=kernel_name, timeout=None, startup_timeout=120, allow_errors=False, record_timing=False)
        with guard, result.with_name("kernel.log").open("ab") as log:
            manager.notebook_start()
            try:
                # What the kernel and its workers write past Python's streams goes to a file, not over the progress line.
                client.execute(env=env, stdout=log, stderr=subprocess.STDOUT)
            finally:
                manager.notebook_complete()
                shutil.rmtree(getattr(client, "sockets", ""), ignore_errors=True)
        return nb


class Guard:
    """Ends the kernel and its children: on Ctrl-C, SIGTERM and SIGHUP, at the end of the run, and when the runner is killed.

    Attributes:
        signal: The number of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._kernel: psutil.Process | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Guard:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: Any) -> None:
        self.stop_kernel()
        if self._process:
            self._process.kill()
            self._process.communicate()
        for number, handler in self._old.items():
            signal.signal(number, handler)
        if self.signal is not None:
            raise Stopped(signal.Signals(self.signal).name) from error

    def watch(self, pid: int) -> None:
        """Takes charge of the kernel with this process id."""
        with contextlib.suppress(psutil.Error):
            self._kernel = psutil.Process(pid)
        if hasattr(os, "killpg") and self._kernel:
            command = [sys.executable, "-S", "-E", "-c", _GUARD, str(pid)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        if self.signal is not None:
            self.stop_kernel()

    def stop_kernel(self) -> None:
        """Ends the kernel and all of its descendants, by force after GRACE seconds."""
        processes = list(self._family())
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=GRACE)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _family(self) -> Iterator[psutil.Process]:
        if self._kernel is None:
            return
        with contextlib.suppress(psutil.Error):
            yield from self._kernel.children(recursive=True)
            yield self._kernel
        # Orphaned workers are no descendants any more, but still in the session that the kernel leads.
        for process in psutil.process_iter() if hasattr(os, "getsid") else ():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(process.pid) == self._kernel.pid and process.pid != self._kernel.pid:
                    yield process

    def _on_signal(self, number: int, _: Any) -> None:
        first, self.signal = self.signal is None, number
        if self._kernel is None:
            raise Stopped(signal.Signals(number).name)
        if first:
            # In a thread: a handler that waits would hold up the loop that notices the kernel's end.
            threading.Thread(target=self.stop_kernel, daemon=True).start()


class Literals(PythonTranslator):
    """Writes parameters as Python's own literals; papermill's writing of a tuple is a text whose quotes can end it, and run what follows."""

    @classmethod
    def translate(cls, val: Any) -> str:
        """Returns the literal; every value was checked to be plain data."""
        return ascii(val)


papermill_translators.register("python", Literals)
papermill_engines.register("pbb", Engine)
