"""The command's process started anew, for what the C library reads only at its start."""

from __future__ import annotations

import os
import sys

from qscore_fast.allocator import NO_SMALL_CACHE, can_keep_freed_memory

_TUNABLES = "GLIBC_TUNABLES"


def restart_without_small_cache() -> None:
    """Become the same command, in the same process, under the allocator that scoring is best served by.

    Where that cannot be done, or has been, or where the user has set that part of the allocator, nothing
    happens: it costs memory, nothing else.
    """
    given = os.environ.get(_TUNABLES, "")
    name, _, _ = NO_SMALL_CACHE.partition("=")
    if name in given or not sys.executable or not can_keep_freed_memory():
        return
    os.environ[_TUNABLES] = f"{given}:{NO_SMALL_CACHE}".removeprefix(":")
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:
        return
