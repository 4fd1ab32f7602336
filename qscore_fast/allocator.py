"""The C library's allocator, told to keep what is freed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

# mallopt's parameters, from malloc.h of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4

# Where glibc's own adaptation ends up in a process that has freed large blocks; any call of mallopt
# switches that adaptation off.
_MAPPED_FROM, _TRIM_FROM, _MOST_MAPPED = 32 * 2**20, 64 * 2**20, 65536

NO_SMALL_CACHE = "glibc.malloc.tcache_count=0"
"""An entry of GLIBC_TUNABLES, which glibc reads when a process starts.

PyTorch asks for aligned memory, so that glibc cuts a few bytes off on both sides of every tensor. A
thread's cache of small pieces takes those and never joins them again: the place that a freed tensor
leaves is then a few bytes too small for the next one of its size. Where freed memory is kept that costs
a fifth to a third more. Without it, small objects that outlive their batch still take the edge of some.
"""

_lock = Lock()
_users = 0


def can_keep_freed_memory() -> bool:
    """Whether ``freed_memory_kept`` has an effect: with glibc."""
    return _libc() is not None


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Make malloc keep large blocks that are freed and use them again, as a caching allocator does.

    Otherwise glibc maps every large tensor anew, and the system clears its pages, which on a CPU can
    take longer than the encoder's arithmetic. It holds for the whole process; blocks may overlap, in
    threads as well, and the last one to end gives the memory back. Elsewhere than with glibc it does nothing.
    """
    library = _libc()
    if library is None:
        yield
        return
    _enter(library)
    try:
        yield
    finally:
        _leave(library)


def give_back_freed_memory() -> None:
    """Return what is freed but kept to the system, where that can be asked for."""
    if library := _libc():
        library.malloc_trim(0)


def _libc() -> Any:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def _enter(library: Any) -> None:
    global _users
    with _lock:
        _users += 1
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, -1)  # never


def _leave(library: Any) -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            library.mallopt(_MMAP_MAX, _MOST_MAPPED)
            library.mallopt(_MMAP_THRESHOLD, _MAPPED_FROM)
            library.mallopt(_TRIM_THRESHOLD, _TRIM_FROM)
            library.malloc_trim(0)
