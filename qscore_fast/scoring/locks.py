"""Locks on a run's folder that no crash can leave behind, and no server has to keep."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

from qscore_fast.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows: no such locks
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"

# Byte k of the file stands for unit k; these for the rest.
_FIRST_OTHER = 2**40
WRITERS, SETUP, RESULTS = range(_FIRST_OTHER, _FIRST_OTHER + 3)

# struct flock of Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("@hhqqi4x")
_BUSY = (errno.EAGAIN, errno.EACCES)


class Grant(Enum):
    """What a lock that was asked for is: ours, another process's, or unknown to the file system."""

    HELD = "held"
    BUSY = "busy"
    UNSUPPORTED = "unsupported"


class FolderLocks:
    """Byte-range locks on a file of the folder: they end with the process, however it ends, and work
    between machines wherever the file system passes POSIX locks on (NFS 4, Lustre with ``flock``).

    Where there are none, every unit may be taken: then two processes may do the same one, which costs
    time and nothing else, since a part is renamed into place whole. What may be done only while nobody
    else writes needs :meth:`ask` to say HELD.

    Linux's open-file-description locks also hold between two stores of one process.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder's lock file, made if missing; StoreError if it cannot be."""
        try:
            self._descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreError(f"cannot write {folder / NAME}: {error.strerror or error}") from error

    def close(self) -> None:
        """Release everything."""
        os.close(self._descriptor)

    def ask(self, byte: int, *, shared: bool = False, wait: bool = False) -> Grant:
        """Take a lock, or change the one that is held."""
        if fcntl is None:
            return Grant.UNSUPPORTED
        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        try:
            self._set(kind, byte, wait)
        except OSError as error:
            return Grant.BUSY if error.errno in _BUSY else Grant.UNSUPPORTED
        return Grant.HELD

    def acquire(self, byte: int, *, shared: bool = False, wait: bool = False) -> bool:
        """Take a lock, as far as there are any; False if another process has it."""
        return self.ask(byte, shared=shared, wait=wait) is not Grant.BUSY

    def release(self, byte: int) -> None:
        """Give a lock back."""
        if fcntl is None:
            return
        with suppress(OSError):  # a file system without locks
            self._set(fcntl.F_UNLCK, byte, wait=False)

    @contextmanager
    def holding(self, byte: int) -> Iterator[None]:
        """Hold a lock alone, after waiting for it."""
        self.acquire(byte, wait=True)
        try:
            yield
        finally:
            self.release(byte)

    def _set(self, kind: int, byte: int, wait: bool) -> None:
        if hasattr(fcntl, "F_OFD_SETLK"):
            command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
            fcntl.fcntl(self._descriptor, command, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
            return
        flags = {fcntl.F_RDLCK: fcntl.LOCK_SH, fcntl.F_WRLCK: fcntl.LOCK_EX}.get(
            kind, fcntl.LOCK_UN
        )
        fcntl.lockf(self._descriptor, flags | (0 if wait else fcntl.LOCK_NB), 1, byte)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against everybody who writes to it; a folder that nobody can write needs none.

    Raises:
        StoreError: a process is writing to it.
    """
    try:
        locks = FolderLocks(folder)
    except StoreError:
        yield
        return
    try:
        if not locks.acquire(WRITERS):
            raise busy(folder)
        yield
    finally:
        locks.close()


def busy(folder: Path) -> StoreError:
    """The error for a folder that another process holds."""
    return StoreError(f"another qscore process is writing to {folder}")
