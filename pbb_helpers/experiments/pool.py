"""Work done in several processes that report while they do it, and leave nothing behind however it ends."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.managers import SyncManager
from typing import Any, TypeVar

from pbb_helpers.processes import follow_parent
from pbb_helpers.programs import UsageError
from pbb_helpers.provenance import cores

T = TypeVar("T")


def default_processes() -> int:
    """Returns how many processes suit this machine: one on a GPU, else one per core."""
    import torch

    return 1 if torch.cuda.is_available() else cores()


def in_processes(work: Callable[..., T], todo: Sequence[Any], processes: int, report: Callable[[Any], None]) -> Iterator[T]:
    """Yields `work(item, events=queue)` of each item, in their order, done by so many processes at once.

    Args:
        work: Is pickled; the process that does it dies with this one.
        todo: The items.
        processes: How many at once.
        report: Called here with everything that `work` puts into the queue.

    Raises:
        UsageError: A process was killed from outside. This or the first error of an item stops the rest where they are: what they finished
            must be safe by then.
    """
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(follow_parent)
    with manager:
        events = manager.Queue()
        pool = ProcessPoolExecutor(min(processes, len(todo)), mp_context=context, initializer=follow_parent)
        try:
            futures = [pool.submit(work, item, events=events) for item in todo]
            waiting: set[Future] = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=0.5)
                for event in _drain(events):
                    report(event)
                for future in finished:
                    future.result()
        except BaseException as error:
            for process in list((pool._processes or {}).values()):  # an item may have minutes to go
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise UsageError(
                    f"one of {min(processes, len(todo))} processes was killed from outside, perhaps for want of memory; what is finished is "
                    "kept: run the same command again, with fewer processes if memory is short"
                ) from None
            raise
        pool.shutdown()
        yield from (future.result() for future in futures)


def _drain(events: Any) -> Iterator[Any]:
    while True:
        try:
            yield events.get_nowait()
        except queue.Empty:
            return
