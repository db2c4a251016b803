"""Faults, and where to inject them: at the n-th write of a process, at a moment in time, in the bytes of a file.

What needs torch runs in a process of its own (`python`), which imports it once and forks a child for each fault (`forked`).
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

TESTS = Path(__file__).parent
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SURVIVED: Counter[str] = Counter()
"""Faults by kind that were injected and survived; conftest.py prints them at the end."""


def environment(**more: str) -> dict[str, str]:
    """Returns the environment for a process that imports the tests' helpers and computes on one thread."""
    path = os.pathsep.join(filter(None, [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"} | more


def python(code: str, *arguments: object, timeout: float = 600, **more: str) -> str:
    """Returns what the code printed; its error output fails the test."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**more), timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def at_write(point: int | None, fault: Callable[[str], Any]) -> list[str]:
    """Has this process commit `fault` just before its `point`-th write and before every later one; returns the list of its writes, which grows.

    A write is a call of os.fsync, "fsync" in the list and for `fault`; of os.rename or os.replace, "rename" and the new name; or of
    shutil.rmtree on something that exists, "rmtree" and its name. Between two of them lie the half-finished states of whatever is written
    as a whole. What is only appended, a line of metrics.jsonl, passes through none of them: there a signal at a random moment has to do.
    """
    writes: list[str] = []

    def count(write: str) -> None:
        writes.append(write)
        if point is not None and len(writes) >= point:
            fault(write)

    fsync, rename, replace, rmtree = os.fsync, os.rename, os.replace, shutil.rmtree

    def counted_fsync(handle: int) -> None:
        count("fsync")
        fsync(handle)

    def counted_rename(source: Any, target: Any, **options: Any) -> None:
        count(f"rename {Path(target).name}")
        rename(source, target, **options)

    def counted_replace(source: Any, target: Any, **options: Any) -> None:
        count(f"rename {Path(target).name}")
        replace(source, target, **options)

    def counted_rmtree(path: Any, *arguments: Any, **options: Any) -> None:
        if os.path.lexists(path):  # else it is called to be sure, and changes nothing
            count(f"rmtree {Path(path).name}")
        rmtree(path, *arguments, **options)

    os.fsync, os.rename, os.replace, shutil.rmtree = counted_fsync, counted_rename, counted_replace, counted_rmtree
    return writes


def kill_at_write(point: int | None, number: int = signal.SIGKILL) -> list[str]:
    """Sends a signal to this process just before its `point`-th write; returns its writes so far, see `at_write`."""
    return at_write(point, lambda _: os.kill(os.getpid(), number))


def full_disk(write: str) -> None:
    """Raises what a write to a full disk raises; what is deleted goes, also there."""
    if not write.startswith("rmtree"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def forked(work: Callable[[], Any], *, number: int = 0, after: float | None = None, timeout: float = 300) -> tuple[int, str]:
    """Returns exit status and error output of a forked child that does `work`; it gets the signal `number` `after` so many seconds.

    The status is -n for death by signal n, 130 for Ctrl-C, 2 for a `UsageError`, 1 for any other error.
    """
    with tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.dup2(err.fileno(), 2)
            os._exit(_status(work))
        if after is not None:
            time.sleep(after)
            os.kill(pid, number)  # a child that has ended is a zombie until it is waited for, so the id is still its own
        status = _wait(pid, timeout)
        err.seek(0)
        return status, err.read().decode(errors="replace")


def _status(work: Callable[[], Any]) -> int:
    from pbb_helpers.programs import UsageError

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        work()
    except KeyboardInterrupt:
        return 130
    except UsageError as error:
        os.write(2, f"{error}\n".encode())
        return 2
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        return 1
    return 0


def _wait(pid: int, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"a child still ran after {timeout} s")


def gone(*pids: int, within: float) -> bool:
    """Returns whether all these processes ended in time (a zombie has ended)."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids):
            return True
        time.sleep(0.1)
    return False


def truncate(path: Path, draws: random.Random) -> None:
    """Cuts a file off somewhere."""
    os.truncate(path, draws.randrange(path.stat().st_size))


def flip_a_bit(path: Path, draws: random.Random) -> None:
    """Turns one bit of a file round."""
    data = bytearray(path.read_bytes())
    data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
    path.write_bytes(data)


def foreign(path: Path, draws: random.Random) -> None:
    """Puts something else in a file's place that is valid in its own way."""
    path.write_bytes(draws.choice([b"", b"{}", b"[]", b"null\n", b'{"step": 1}\n', b"\xff\xfe\x00", b"<html></html>"]))


HARMS = (truncate, flip_a_bit, foreign)
