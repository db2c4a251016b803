"""Processes that do not outlive the one that started them."""

from __future__ import annotations

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
