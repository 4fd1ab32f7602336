"""What malloc does with freed memory, seen from the page faults of the process."""

from __future__ import annotations

import resource

import pytest
import torch

from qscore_fast.allocator import can_keep_freed_memory, freed_memory_kept

MIB = 1 << 20


def page_faults() -> int:
    """Of one tensor of 64 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * MIB, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not can_keep_freed_memory(), reason="needs glibc")
def test_freed_memory_is_used_again_until_the_last_block_ends() -> None:
    mapped = page_faults()
    with freed_memory_kept():
        with freed_memory_kept():
            kept = [page_faults() for _ in range(5)][-1]
        still_kept = page_faults()
    assert kept < mapped / 10
    assert still_kept < mapped / 10
    assert page_faults() > mapped / 2
