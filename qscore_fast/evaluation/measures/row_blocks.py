"""Rows of any array in float64 blocks of bounded size, and which of them can be measured."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from qscore_fast.errors import SettingsError

Array = Tensor | np.ndarray

# 16 MiB of float64: long for the matrix product, short for the allocator, which maps larger ones anew.
BLOCK_ELEMENTS = 1 << 21
# Squares of larger entries, or their sums, leave the range of float64.
MAX_NORM = 1e140


def device_of(h: Array, name: str = "h") -> torch.device:
    """Where to compute: where ``h`` is, but on the CPU if that device has no float64 (MPS).

    Raises:
        SettingsError: ``h`` is neither a tensor nor a NumPy array.
    """
    if not isinstance(h, Tensor | np.ndarray):
        raise SettingsError(f"{name} is a {type(h).__name__}; pass a tensor or a NumPy array")
    if isinstance(h, np.ndarray) or h.device.type == "mps":
        return torch.device("cpu")
    return h.device


def checked_device(device: str | torch.device) -> torch.device:
    """The device; SettingsError if it is not there or has no float64."""
    try:
        return torch.zeros(1, dtype=torch.float64, device=device).device
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise SettingsError(
            f"device is {str(device)!r}, which cannot sum in float64 here ({reason}): use cpu"
        ) from error


def row_blocks(
    h: Array, num_features: int, device: torch.device | None = None, name: str = "h"
) -> Iterator[Tensor]:
    """The rows of ``h`` (..., r), real numbers of any dtype, as float64 (b, r), b bounded and above 0.

    Raises:
        SettingsError: the last dimension is not r, or the entries are no real numbers.
    """
    own = device_of(h, name)
    device = own if device is None else device
    if h.ndim == 0 or h.shape[-1] != num_features:
        raise SettingsError(
            f"{name} has shape {tuple(h.shape)}; this accumulator takes r = {num_features} features"
        )
    if h.is_complex() if isinstance(h, Tensor) else h.dtype.kind not in "fiub":
        raise SettingsError(f"{name} has dtype {h.dtype}; pass real numbers")
    rows = h.reshape(-1, num_features)
    size = max(1, BLOCK_ELEMENTS // num_features)
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        if isinstance(block, np.ndarray):
            # A copy: a file that is mapped read-only must not become a writable tensor.
            keep = block.dtype in (np.float16, np.float32)  # in this byte order
            block = torch.from_numpy(np.array(block, dtype=None if keep else np.float64))
        # Moved before it is widened: less to transfer. MPS has no float64 at all.
        yield block.detach().to(device).double()


def finite_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows (b, r) that hold no NaN or Inf, nor a norm of 1e140 or more; and their l2 norms (b,)."""
    l2 = torch.linalg.vector_norm(rows, dim=1)
    finite = l2 < MAX_NORM
    return (rows, l2) if bool(finite.all()) else (rows[finite], l2[finite])
