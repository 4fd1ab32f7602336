"""Files on the local disk and behind URLs that fsspec knows: listed, opened, tried again."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

import fsspec

from qscore_fast.errors import MissingExtraError, SourceError, UnavailableError
from qscore_fast.images import retries
from qscore_fast.images.sources.local_file import open_local
from qscore_fast.images.sources.source import is_url

T = TypeVar("T")

_DRIVERS = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
    "abfss": ("adlfs", "azure"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
}
# Waiting does not mend these. Drivers raise errors of their own for the rest, so those are not listed.
_PERMANENT = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    TypeError,
    NotImplementedError,
    ImportError,
)


@dataclass(frozen=True)
class ListedFile:
    """One file of a listing.

    Attributes:
        name: relative to what was listed, with ``/`` separators; bytes.
        path: what ``open_file`` takes.
        size: bytes; -1 where unknown.
        tag: the store's mark of this version of the content, "" where it has none.
    """

    name: bytes
    path: str
    size: int
    tag: str = ""


def filesystem_of(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path there.

    Credentials and endpoints come from fsspec's own configuration and the driver's environment.

    Raises:
        MissingExtraError: its driver is not installed.
        SourceError: fsspec knows no such file system, or its settings are wrong.
    """
    protocol = url.split("://", 1)[0].lower()
    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
    except ImportError as error:
        if protocol in _DRIVERS:
            raise MissingExtraError(*_DRIVERS[protocol]) from error
        raise SourceError(f"cannot open {url}: {_text(error)}") from error
    except Exception as error:  # whatever a driver raises
        raise SourceError(f"cannot open {url}: {_text(error)}") from error


def with_retries(call: Callable[[], T]) -> T:
    """The result of ``call``, tried again as long as it fails in a way that may pass.

    Raises:
        OSError: it failed in a way that waiting does not mend; the text says how.
        UnavailableError: it failed each time.
    """
    try:
        return retries.tried_again(call, lambda error: not isinstance(error, _PERMANENT))
    except UnavailableError:
        raise
    except Exception as error:
        if isinstance(error, _PERMANENT):
            raise _as_os_error(error) from error
        raise UnavailableError(f"failed {len(retries.WAITS) + 1} times: {_text(error)}") from error


def open_binary(url: str) -> BinaryIO:
    """A seekable stream over a URL's content, read in pieces; reads that fail are tried again.

    Raises:
        OSError: it cannot be opened.
        UnavailableError: nor later; as ``with_retries``, also while it is read.
        MissingExtraError, SourceError: as ``filesystem_of``.
    """
    return open_file(*filesystem_of(url))


def open_place(place: str) -> BinaryIO:
    """A seekable stream over a local file, or as ``open_binary`` over what a URL names."""
    return open_binary(place) if is_url(place) else open_local(place)


def is_folder(place: str) -> bool:
    """Whether a path or URL is a folder.

    Raises:
        SourceError: the store does not say.
    """
    if not is_url(place):
        return os.path.isdir(place)
    filesystem, path = filesystem_of(place)
    return bool(listing(lambda: filesystem.isdir(path), place))


def is_file(place: str) -> bool:
    """Whether a path or URL is a file; raises as ``is_folder``."""
    if not is_url(place):
        return os.path.isfile(place)
    filesystem, path = filesystem_of(place)
    return bool(listing(lambda: filesystem.isfile(path), place))


def open_file(filesystem: Any, path: str) -> BinaryIO:
    """``open_binary`` for a path of an fsspec file system, or of the local disk if that is None."""
    if filesystem is None:
        return open_local(path)
    stream = with_retries(lambda: filesystem.open(path, "rb", block_size=4 * 2**20))
    return io.BufferedReader(_RetryingStream(stream), 2**20)


def list_files(location: str, *endings: str) -> tuple[Any, list[ListedFile], int]:
    """The files that a path, pattern or URL names, sorted by their names' bytes.

    Args:
        location: a file, a folder (its files at any depth that end so), or a pattern with ``*``, ``?``,
            ``[...]`` or ``**``. Hidden files are passed over; links to folders are not followed.
        endings: of the files of a folder, lower case, with their dots.

    Returns:
        The fsspec file system (None: the local disk), the files, and how many others a folder holds.

    Raises:
        SourceError: there is nothing, or it cannot be read.
        MissingExtraError: the URL's driver is not installed.
    """
    filesystem, path = filesystem_of(location) if is_url(location) else (None, location)
    entries = _remote(filesystem, path, location) if filesystem else _local(path)
    wanted_ends = tuple(ending.encode() for ending in endings)
    wanted, others = [], 0
    for entry in entries:
        last = entry.name.rpartition(b"/")[2].lower()
        if last.startswith(b".") or not (last.endswith(wanted_ends) or entry.path == path):
            others += 1
        else:
            wanted.append(entry)
    return filesystem, sorted(wanted, key=lambda entry: entry.name), others


def _local(path: str) -> Iterator[ListedFile]:
    if os.path.isfile(path):
        yield _entry(os.path.dirname(path), path)
    elif os.path.isdir(path):

        def refuse(error: OSError) -> None:
            raise SourceError(f"cannot read {error.filename}: {error.strerror}") from error

        for folder, _, names in os.walk(path, onerror=refuse):
            for name in names:
                yield _entry(path, os.path.join(folder, name))
    else:
        matches = [m for m in glob.glob(path, recursive=True) if os.path.isfile(m)]
        if not matches:
            raise SourceError(f"there is no file or folder {path}")
        for match in matches:
            yield _entry(_fixed_part(path), match)


def _entry(root: str, path: str) -> ListedFile:
    name = os.path.relpath(path, root or os.curdir).replace(os.sep, "/")
    try:
        size = os.stat(path).st_size
    except OSError:
        size = -1
    return ListedFile(os.fsencode(name), path, size)


def _remote(filesystem: Any, path: str, location: str) -> Iterator[ListedFile]:
    def find() -> tuple[str, dict[str, dict[str, Any]]]:
        filesystem.invalidate_cache()
        if glob.has_magic(path):
            return _fixed_part(path), filesystem.glob(path, detail=True)
        if filesystem.isfile(path):
            return path.rpartition("/")[0], {path: filesystem.info(path)}
        return path.rstrip("/"), filesystem.find(path, detail=True)

    root, found = listing(find, location)
    if not found:
        raise SourceError(f"there is no file or folder {location}")
    for name, info in found.items():
        if info.get("type") != "directory":
            yield listed_file(root, name, info)


def listing(call: Callable[[], T], location: str) -> T:
    """The result of a call that lists ``location``, tried again as by ``with_retries``.

    Raises:
        SourceError: it failed.
    """
    try:
        return with_retries(call)
    except FileNotFoundError:
        raise SourceError(f"there is no {location}: check the name and the endpoint") from None
    except UnavailableError as error:
        raise SourceError(f"cannot list {location}: {error.args[0]}") from error
    except OSError as error:
        raise SourceError(f"cannot list {location}: {_text(error)}") from error


def listed_file(root: str, path: str, info: dict[str, Any]) -> ListedFile:
    """An entry of an fsspec listing, named relative to ``root``."""
    name = path.removeprefix(root).lstrip("/")
    tags = (info.get(key) for key in ("ETag", "etag", "md5Hash", "content_md5"))
    tag = str(next((tag for tag in tags if tag), "")).strip('"')
    size = info.get("size")
    if not isinstance(size, int) or size < 0:
        size = -1
    return ListedFile(name.encode("utf-8", "surrogateescape"), path, size, tag)


def _fixed_part(pattern: str) -> str:
    """The folders of a pattern before the first with a wildcard."""
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else "")


def _as_os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(_text(error))


def _text(error: BaseException) -> str:
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())


class _RetryingStream(io.RawIOBase):
    """A stream whose reads are tried again from the same place."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readinto(self, buffer: Any) -> int:
        start = self._stream.tell()

        def read() -> bytes:
            if self._stream.tell() != start:
                self._stream.seek(start)
            return cast(bytes, self._stream.read(len(buffer)))

        content = with_retries(read)
        buffer[: len(content)] = content
        return len(content)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        self._stream.close()
        super().close()
