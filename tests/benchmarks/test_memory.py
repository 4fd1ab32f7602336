"""The growth at the peak of a block, not at its end."""

from __future__ import annotations

import os
import resource

import pytest
import torch

from benchmarks.memory import PeakMemory, can_keep_freed_memory, freed_memory_kept

MIB = 1 << 20
CPU = torch.device("cpu")


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def test_peak() -> None:
    peak = PeakMemory(CPU)
    torch.ones(128 * MIB, dtype=torch.uint8)  # an earlier and higher peak
    with peak:
        torch.ones(64 * MIB, dtype=torch.uint8)
    assert peak.bytes is not None
    assert 60 * MIB < peak.bytes < 80 * MIB
    with peak:
        pass
    assert peak.bytes < 4 * MIB


@pytest.mark.skipif(not can_keep_freed_memory(), reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    def page_faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(64 * MIB, dtype=torch.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    mapped = page_faults()
    with freed_memory_kept():
        kept = [page_faults() for _ in range(5)][-1]
    assert kept < mapped / 10
    assert page_faults() > mapped / 2  # afterwards nothing is kept
