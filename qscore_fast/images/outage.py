"""Errors of the machine or the store, as against those of an image."""

from __future__ import annotations

import errno
import os

from qscore_fast.errors import UnavailableError

# These are about one file: it is missing, closed to this user, or no file at all.
_OF_THE_FILE = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOENT", "ENOTDIR", "EACCES", "EPERM", "EISDIR"),
        *("ELOOP", "ENAMETOOLONG", "EINVAL", "ENXIO", "ENODEV", "EILSEQ"),
    )
)


def outage_of(error: BaseException) -> UnavailableError | None:
    """What an error that came up while an image was read says of the machine or the store; None if it is
    about the image.

    An operating system's error has a number, a library's complaint about a damaged file has none.
    """
    if isinstance(error, UnavailableError):
        return error
    without_number = isinstance(error, OSError) and error.errno is None
    if isinstance(error, MemoryError) or (without_number and "out of memory" in str(error)):
        return UnavailableError(
            "there is not enough memory (fewer --workers need less, and so does a smaller --batch-size)"
        )
    if not isinstance(error, OSError) or without_number or error.errno in _OF_THE_FILE:
        return None
    name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return UnavailableError(f"{name}{error.strerror or error}")


def raise_outage(error: BaseException) -> None:
    """UnavailableError if an error is the machine's or the store's; for handlers of damaged archives.

    A lack of memory is left to them: a damaged archive asks for any amount.
    """
    if not isinstance(error, MemoryError) and (outage := outage_of(error)) is not None:
        raise outage from error
