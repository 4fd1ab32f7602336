"""``fetch``: the content of one object behind a URL."""

from __future__ import annotations

from typing import Any

from qscore_fast.errors import ImageError, SourceError, UnavailableError
from qscore_fast.images.sources.file_systems import filesystem_of, open_file, with_retries
from qscore_fast.images.sources.source import MAX_IMAGE_BYTES

_WITH_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
# Of HTTP: too slow, too many requests. Of the other 4xx the object itself is the reason.
_PASSING = (408, 429)


def fetch(url: str) -> bytes:
    """The content of an object of unknown size; reads that fail are tried again.

    Raises:
        ImageError: there is none, it may not be read, or is too large; stage "read".
        UnavailableError: the store does not answer, or its bucket is gone or closed.
    """
    try:
        filesystem, path = filesystem_of(url)
        content = read_object(filesystem, path, -1)
    except SourceError as error:
        raise ImageError(str(error), "read") from error
    except UnavailableError as error:
        if (status := refusing_status(error.__cause__)) is not None:
            raise ImageError(f"cannot be read: HTTP status {status}", "read") from error
        raise UnavailableError(f"{url}: {error.args[0]}") from error
    except OSError as error:
        # Credentials that expire, or a bucket that is deleted, close every object.
        if url.partition("://")[0].lower() in _WITH_BUCKETS:
            bucket = path.lstrip("/").partition("/")[0]
            if not filesystem.exists(bucket):
                raise UnavailableError(f"{bucket} is gone or closed: {error}") from error
        missing = isinstance(error, FileNotFoundError)
        reason = "there is no such object" if missing else f"cannot be read: {error}"
        raise ImageError(reason, "read") from error
    if len(content) > MAX_IMAGE_BYTES:
        raise ImageError(f"it is above the limit of {MAX_IMAGE_BYTES:,} bytes", "read")
    return content


def refusing_status(error: BaseException | None) -> int | None:
    """The status by which an HTTP server says that an object is the reason, not the server."""
    status = getattr(error, "status", None)
    refuses = isinstance(status, int) and 400 <= status < 500 and status not in _PASSING
    return status if refuses else None


def read_object(filesystem: Any, path: str, size: int) -> bytes:
    """An object's content, its expected size -1 where unknown.

    Up to one byte more than is expected, so that neither growth nor a false size fills memory.

    Raises:
        OSError, UnavailableError: as ``with_retries``.
    """
    if size > 0:
        return bytes(with_retries(lambda: filesystem.cat_file(path, start=0, end=size + 1)))
    if size == 0:
        # A range of an empty object is an error to some stores.
        return b"" if not with_retries(lambda: filesystem.size(path)) else b"\0"
    with open_file(filesystem, path) as stream:
        return stream.read(MAX_IMAGE_BYTES + 1)
