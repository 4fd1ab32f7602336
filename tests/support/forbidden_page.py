"""Memory that ends where the process may not read: going further would kill it."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def before_a_forbidden_page(numel: int, dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
    """(numel,) of ``dtype``, uninitialised, whose last element is the last that may be read."""
    page, size = mmap.PAGESIZE, numel * dtype.itemsize
    libc = ctypes.CDLL(None, use_errno=True)
    memory = mmap.mmap(-1, (-(-size // page) + 1) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    last = ctypes.c_void_p(start + len(memory) - page)
    assert libc.mprotect(last, page, 0) == 0
    try:
        offset = len(memory) - page - size
        yield torch.frombuffer(memory, dtype=dtype, count=numel, offset=offset)
    finally:
        assert libc.mprotect(last, page, mmap.PROT_READ | mmap.PROT_WRITE) == 0
