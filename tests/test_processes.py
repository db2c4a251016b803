"""Memory that was freed goes back to the system; elsewhere than on glibc nothing happens."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

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


@pytest.mark.parametrize("variable", ["ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"])
def test_lean_memory_leaves_a_users_choice(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "7")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # the test process keeps its heaps
    processes.lean_memory()
    assert os.environ[variable] == "7"


GROWTH = """
import sys
from pbb_helpers.processes import lean_memory, release_memory
lean_memory()
import torch
torch.set_num_threads(1)
def resident():
    release_memory()
    return int(open("/proc/self/statm").read().split()[1]) * 4096
layer = torch.nn.Linear(128, 512)
def steps(widths):
    for width in widths:
        with torch.autocast("cpu", torch.bfloat16):
            layer(torch.randn(width, 128)).sum().backward()
steps(range(100, 120))
before = resident()
steps(range(120, 920))
print(resident() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_new_shapes_do_not_fill_memory() -> None:
    """Without the limits 800 new widths of one layer hold tens of megabytes of kernels for good."""
    printed = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True).stdout
    assert int(printed) < 10 * 2**20
