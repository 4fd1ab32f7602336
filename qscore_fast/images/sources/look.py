"""``look``: what a listing says of a file, for a file that no listing gave."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from qscore_fast.errors import SourceError, UnavailableError
from qscore_fast.images.sources.fetch import refusing_status
from qscore_fast.images.sources.file_systems import filesystem_of, listed_file, with_retries
from qscore_fast.images.sources.source import is_url

UNKNOWN = (-1, "")


def look(place: bytes) -> tuple[int, str]:
    """Size in bytes, and after a NUL the mark of this version of an object, where the store has one.

    UNKNOWN where there is nothing or it may not be read: that shows when it is.

    Raises:
        UnavailableError: the store does not answer.
    """
    name = os.fsdecode(place)
    if not is_url(name):
        try:
            return os.stat(place).st_size, ""
        except OSError:
            return UNKNOWN
    over_http = name.lower().startswith(("http://", "https://"))
    try:
        filesystem, path = filesystem_of(name)
        info = with_retries(lambda: _info(filesystem, path, over_http))
    except (SourceError, OSError):
        return UNKNOWN
    except UnavailableError as error:
        raise UnavailableError(f"{name}: {error.args[0]}") from error
    file = listed_file("", path, info)
    # Servers of the same pages give them ETags of their own.
    return file.size, f"\0{file.tag}" if file.tag and not over_http else ""


def forget_listings(urls: Iterable[str]) -> None:
    """Let the file systems of URLs ask their stores, whatever they were told before."""
    for url in urls:
        filesystem_of(url)[0].invalidate_cache()


def _info(filesystem: Any, path: str, over_http: bool) -> dict[str, Any]:
    try:
        return dict(filesystem.info(path))
    except FileNotFoundError as error:
        # Of fsspec's HTTP this stands for every failure, and the cause says which.
        cause = error.__cause__
        if over_http and cause is not None and refusing_status(cause) is None:
            raise cause from None
        raise
