"""The growth at the peak of a block, not at its end."""

from __future__ import annotations

import os

import pytest
import torch

from benchmarks.memory import PeakMemory

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
