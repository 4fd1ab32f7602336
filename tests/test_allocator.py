"""What malloc does with freed memory, seen from the page faults of the process."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from qscore_fast.allocator import NO_SMALL_CACHE, can_keep_freed_memory

MIB = 1 << 20

BATCHES = """
import ctypes, sys, torch
from qscore_fast.allocator import freed_memory_kept

class Mallinfo(ctypes.Structure):
    _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(10)]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Mallinfo
small = []
with freed_memory_kept():
    for batch in range(16):
        images = torch.zeros(64, 3, 224, 224)
        activations = images.relu()
        small += [torch.empty(8) for _ in range(int(sys.argv[1]))]
        del images, activations
        if batch == 3:
            settled = library.mallinfo2().field0
    print(library.mallinfo2().field0 - settled)
"""
"""Two large tensors a batch, and so many small ones that stay; prints by how many bytes the heap grew."""


FAULTS = """
import json, resource, torch
from qscore_fast.allocator import freed_memory_kept

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = {"mapped": page_faults()}
with freed_memory_kept():
    with freed_memory_kept():
        found["kept"] = [page_faults() for _ in range(5)][-1]
    found["still_kept"] = page_faults()
found["mapped_again"] = page_faults()
print(json.dumps(found))
"""
"""Page faults of one tensor of 64 MiB, before, within and after two blocks."""


def printed(script: str, tunables: str, *arguments: str) -> Any:
    """What a script prints in a process of its own, under such an allocator."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "GLIBC_TUNABLES": tunables},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not can_keep_freed_memory(), reason="needs glibc")
def test_freed_memory_is_used_again_until_the_last_block_ends() -> None:
    faults = printed(FAULTS, NO_SMALL_CACHE)
    assert faults["kept"] < faults["mapped"] / 10
    assert faults["still_kept"] < faults["mapped"] / 10
    assert faults["mapped_again"] > faults["mapped"] / 2


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs mallinfo2 of glibc 2.33"
)
def test_without_the_small_cache_a_batch_fits_in_the_place_of_the_one_before() -> None:
    assert printed(BATCHES, NO_SMALL_CACHE, "0") < MIB
    # Small tensors that stay may still take the edge of a place, by chance, though of fewer places.
    with_cache, without = (printed(BATCHES, tunables, "40") for tunables in ("", NO_SMALL_CACHE))
    assert with_cache > 500 * MIB  # otherwise glibc has mended it, and nothing need start anew
    assert without < 0.8 * with_cache
