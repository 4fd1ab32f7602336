"""How much memory a call adds at its peak, and an allocator that keeps what is freed."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

# mallopt's parameters, from malloc.h of glibc.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_DEFAULT_TRIM, _DEFAULT_MMAPS = 128 * 1024, 65536


def _kibibytes(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.M)
    if match is None:
        raise RuntimeError(f"{_STATUS} has no {field}")
    return int(match[1])


class PeakMemory:
    """Context manager: ``bytes`` is the growth at the peak of the block, None where nobody can tell.

    On a GPU what PyTorch's allocator counts; on the CPU the high-water mark of the resident set, which
    Linux resets on request.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None
        self._before: int | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            return self
        if library := _libc():
            library.malloc_trim(0)  # what was freed but kept would hide as much of the growth
        try:
            _CLEAR.write_text("5")
            self._before = _kibibytes("VmRSS") * 1024
        except OSError:
            self._before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            return
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = _kibibytes("VmHWM") * 1024
        self.bytes = max(0, peak - self._before)


def _libc() -> Any:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def can_keep_freed_memory() -> bool:
    """Whether ``freed_memory_kept`` works here: with glibc."""
    return _libc() is not None


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Make malloc keep large blocks that are freed, as a caching allocator does.

    Otherwise glibc maps every large result anew, and the kernel's page faults, not the operation, take most
    of the time. Raises RuntimeError without glibc.
    """
    library = _libc()
    if library is None:
        raise RuntimeError("only glibc's malloc can be told to keep freed memory")
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _DEFAULT_MMAPS)
        library.mallopt(_TRIM_THRESHOLD, _DEFAULT_TRIM)
        library.malloc_trim(0)
