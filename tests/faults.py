"""Faults, and where to inject them: at the n-th fsync of a process, at a moment in time, in the bytes of a file.

What needs torch runs in a process of its own (`python`), which imports it once and forks a child for each fault (`forked`).
"""

from __future__ import annotations

import errno
import os
import random
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


def at_fsync(point: int | None, fault: Callable[[], Any]) -> Callable[[], int]:
    """Replaces os.fsync by one that commits `fault` from its `point`-th call on; returns a function that tells the number of calls.

    Every write that counts passes through fsync, so these are all the moments at which a half-finished file could be seen.
    """
    calls, real = 0, os.fsync

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if point is not None and calls >= point:
            fault()
        real(handle)

    os.fsync = fsync
    return lambda: calls


def kill_at_fsync(point: int | None, number: int = signal.SIGKILL) -> Callable[[], int]:
    """Sends a signal to this process at its `point`-th fsync; see `at_fsync`."""
    return at_fsync(point, lambda: os.kill(os.getpid(), number))


def full_disk() -> None:
    """Raises what a write to a full disk raises."""
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
