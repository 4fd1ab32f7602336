"""What every launch needs: the check of ``h``, its settings, and the launch itself."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .settings import Capability, Kind, Settings, settings

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Few programs, so that each adds up several tiles and several of their sums are added.
INTERPRETED = Capability("interpreter", 3, warp_size=32, registers=8192, shared_bytes=65536)


def check_rows(h: Tensor) -> tuple[int, int]:
    """Return (rows, features) of an ``h`` that the kernels can read."""
    if h.dtype not in DTYPES:
        raise TypeError(
            f"h has dtype {h.dtype}; the Triton kernels take float32, float16 or bfloat16: "
            "convert it with h.float(), or compute on the CPU"
        )
    if h.ndim != 2:
        raise ValueError(f"h has shape {tuple(h.shape)}; the kernels take (rows, features)")
    if h.shape[1] > 1 and h.stride(1) != 1:
        raise ValueError(f"h has strides {h.stride()}; the stride inside a row must be 1: copy it")
    return h.shape[0], h.shape[1]


def device_guard(h: Tensor) -> AbstractContextManager[object]:
    """Make the device of ``h`` current for a launch."""
    return torch.cuda.device(h.device) if h.is_cuda else nullcontext()


@functools.cache
def _capability(device: torch.device) -> Capability:
    p = torch.cuda.get_device_properties(device)
    return Capability(
        arch=p.gcnArchName.split(":")[0] if torch.version.hip else f"sm_{p.major}{p.minor}",
        multiprocessors=p.multi_processor_count,
        warp_size=p.warp_size,
        registers=getattr(p, "regs_per_multiprocessor", 65536),  # not known to every ROCm build
        shared_bytes=p.shared_memory_per_multiprocessor,
    )


def device_capability(h: Tensor) -> Capability:
    """What the device of ``h`` offers; the interpreter's where ``h`` is on the CPU."""
    return _capability(h.device) if h.is_cuda else INTERPRETED


def launch_settings(h: Tensor, kind: Kind = "rows") -> Settings:
    """The settings of a kernel of that kind for ``h`` on its device."""
    return settings(*h.shape, h.dtype, device_capability(h), kind)


def as_bytes(mask: Tensor | None) -> Tensor | None:
    """A bool tensor as the bytes that it is stored in."""
    return None if mask is None else mask.view(torch.uint8)


def row_stride(h: Tensor) -> int | None:
    """The stride of the rows of ``h``; None, which the compiler sees, where nothing lies between them."""
    stride, features = h.stride(0), h.shape[1]
    return None if stride == features else stride


def launch(kernel: Any, programs: int, num_warps: int, *arguments: Any, **constants: Any) -> None:
    """Launch ``kernel`` with that many programs on the device of its first argument."""
    device = arguments[0].device
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[(programs,)](*arguments, **constants, num_warps=num_warps)
    else:
        kernel[(programs,)](*arguments, **constants, num_warps=num_warps)
