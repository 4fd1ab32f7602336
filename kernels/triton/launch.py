"""What every launch needs: the check of ``h``, the device guard, the settings for it."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from .settings import Settings, settings

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# For the interpreter, as (multiprocessors, warp size): several, so that partial sums are exercised.
INTERPRETED_PROCESSORS = (3, 32)


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
def _processors(device: torch.device) -> tuple[int, int]:
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.warp_size


def launch_settings(h: Tensor, persistent: bool = False, heavy: bool = False) -> Settings:
    """The settings for ``h`` on its device, where ``persistent`` bounds the number of programs."""
    processors, warp_size = _processors(h.device) if h.is_cuda else INTERPRETED_PROCESSORS
    return settings(
        *h.shape, h.dtype, processors if persistent else None, heavy=heavy, warp_size=warp_size
    )


def as_bytes(mask: Tensor | None) -> Tensor | None:
    """A bool tensor as the bytes that it is stored in."""
    return None if mask is None else mask.view(torch.uint8)
