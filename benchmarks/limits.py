"""The limit: the time of the traffic that an operation cannot avoid, measured beside it.

On the CPU one read is a vectorised pass of the native core over the matrix, one read and write its copy with
streaming stores, both with the same threads as the operation; without the native core, PyTorch's sum and
copy. On a GPU half a copy is a read: that is the device's own copy bandwidth.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor

from .timing import Call


def native_core() -> ModuleType | None:
    """The native kernels, or None where they are not built."""
    try:
        from qscore_fast.kernels import cpu
    except ImportError:
        return None
    return cpu


def limit_calls(h: Tensor, with_copy: bool) -> dict[str, Call]:
    """``read``, and ``copy`` where asked for or needed, of the matrix ``h``.

    The copy goes into memory that is mapped already, so it pays for no page fault; an operation that
    allocates its result may have to.
    """
    streams = native_core() if h.device.type == "cpu" else None
    calls: dict[str, Call] = {"read": lambda: streams.stream_read(h) if streams else h.sum()}
    if with_copy or h.device.type == "cuda":
        out = torch.zeros_like(h, memory_format=torch.contiguous_format)
        calls["copy"] = lambda: streams.stream_copy(h, out) if streams else out.copy_(h)
    return calls


def limit_source(device: torch.device) -> str:
    """What the limit was measured with, for the record."""
    if device.type == "cuda":
        return "torch copy"
    return "native stream" if native_core() else "torch sum and copy"


def floor(reads: int, writes: int, seconds: Mapping[str, float], device: torch.device) -> float:
    """Seconds of ``reads`` and ``writes`` passes over the matrix, given those of ``limit_calls``."""
    if device.type == "cuda":
        return (reads + writes) / 2 * seconds["copy"]
    return (reads - writes) * seconds["read"] + (writes * seconds["copy"] if writes else 0)
