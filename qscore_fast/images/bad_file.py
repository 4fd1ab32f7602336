"""One file that cannot be read, as against its disk."""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Callable, Collection, Iterator
from itertools import chain, islice
from typing import TypeVar

from qscore_fast.images.outage import outage_of
from qscore_fast.images.retries import tried_again, was_waited_out

T = TypeVar("T")

# A bad sector, a checksum of the file system, or a handle of NFS; or the whole of what they belong to.
_OF_A_FILE_OR_ITS_DISK = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "EBADMSG", "EUCLEAN", "ENODATA", "EREMOTEIO")
    if hasattr(errno, name)
)
_LOOKED_AT = 64
_TRIED = 4
_PROBE = 2**16


class BadFileError(OSError):
    """A file that cannot be read while others of its place can; without a number, as all damage."""


def patiently(call: Callable[[], T], path: bytes, others: Collection[bytes] = ()) -> T:
    """The result of a call that reads a file, tried again while the machine fails.

    Args:
        path: the file.
        others: files of the same place, where they are known; its neighbours are known without.

    Raises:
        BadFileError: it fails each time, and others there can be read, before and after the last time.
        Exception: what the call raised; ``outage_of`` says whether it is about the file.
    """
    try:
        return tried_again(call, lambda error: outage_of(error) is not None)
    except Exception as error:
        if not was_waited_out(error) or not _is_of_the_file(error, path, others):
            raise
    # The disk may have come back between the last attempt and the look at the others.
    try:
        return call()
    except Exception as error:
        number = _number_of(error)
        if number is None or not _is_of_the_file(error, path, others):
            raise
        raise BadFileError(f"{os.strerror(number)} each time, though its disk answers") from error


def _is_of_the_file(error: BaseException, path: bytes, others: Collection[bytes]) -> bool:
    return _number_of(error) in _OF_A_FILE_OR_ITS_DISK and _place_answers(path, others)


def _number_of(error: BaseException) -> int | None:
    """The number of the operating system's error that it is or comes from."""
    for one in (error, error.__cause__):
        if isinstance(one, OSError):
            return one.errno
    return None


def _place_answers(path: bytes, others: Collection[bytes]) -> bool:
    """Whether the file system of a file gives out content, of the file itself or of another."""
    if not hasattr(os, "posix_fadvise"):
        return False  # no way past the cache, which answers for a disk that is gone
    path = os.path.realpath(path)  # links may lead to another disk than they lie on
    folder = os.path.dirname(path)
    device = next((d for d in map(_device_of, (path, folder)) if d is not None), None)
    candidates = chain([path], _beside(path, folder), tuple(others))
    return device is not None and any(_answers(candidate, device) for candidate in candidates)


def _device_of(path: bytes) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


def _beside(path: bytes, folder: bytes) -> Iterator[bytes]:
    """Some files of its folder: large ones, since the smallest may lie in what is cached of the folder."""
    try:
        with os.scandir(folder) as entries:
            files = [
                (entry.stat(follow_symlinks=False).st_size, entry.path)
                for entry in islice(entries, _LOOKED_AT)
                if entry.is_file(follow_symlinks=False) and entry.path != path
            ]
    except OSError:
        return
    yield from (name for _, name in heapq.nlargest(_TRIED, files))


def _answers(path: bytes, device: int) -> bool:
    """Whether the beginning of a regular file can be read from its disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_dev != device:
            return False
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return bool(os.read(descriptor, _PROBE))
    except OSError:
        return False
    finally:
        os.close(descriptor)
