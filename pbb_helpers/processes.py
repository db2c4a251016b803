"""Processes that do not outlive the one that started them, and do not hoard memory."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time


def follow_parent() -> None:
    """Ends this process soon after its parent is gone (a killed notebook must leave nothing behind), and leaves Ctrl-C to the parent.

    For the initializer of a pool or a manager that was spawned.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends the others in order
    parent = multiprocessing.parent_process()
    assert parent is not None, "for spawned processes only"

    def watch() -> None:
        while os.getppid() == parent.pid:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def lean_memory() -> None:
    """Keeps torch and the C library from hoarding memory; to be called before torch is imported.

    Batches of many widths cost memory three ways, none of which changes a result: oneDNN keeps a compiled kernel for each shape, PyTorch's
    layer above it another thousand (a training grows by 1.5 MB a step), and each thread's heap keeps its own holes.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "16")
    _libc("mallopt", M_ARENA_MAX, 1)


def release_memory() -> None:
    """Hands freed memory back to the system, where the C library is glibc: batches of many widths leave its heap in pieces."""
    _libc("malloc_trim", 0)


M_ARENA_MAX = -8
"""glibc's malloc.h."""


def _libc(name: str, *numbers: int) -> None:
    try:
        getattr(ctypes.CDLL(None), name)(*numbers)
    except (OSError, AttributeError, TypeError):  # another system or C library: nothing to do
        return
