"""Memory that was freed goes back to the system; elsewhere than on glibc nothing happens."""

from __future__ import annotations

import ctypes
import os

import pytest

from pbb_helpers import processes


def test_release_memory_runs_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.release_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    processes.release_memory()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_freed_pieces_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small blocks freed but for every thousandth: the heap stays large until it is trimmed."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        pytest.skip("not glibc")
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    blocks = [libc.malloc(8192) for _ in range(20_000)]
    for block in blocks:
        ctypes.memset(block, 1, 8192)
    for i, block in enumerate(blocks):
        if i % 1000:
            libc.free(block)
    before = resident()
    processes.release_memory()
    assert before - resident() > 100 * 2**20
    for block in blocks[::1000]:
        libc.free(block)


def resident() -> int:
    """Returns this process's resident memory in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_few_primitives_leaves_a_users_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    processes.few_primitives()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
