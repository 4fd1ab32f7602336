"""The members of a tar, read in place from a binary stream, within bounds."""

from __future__ import annotations

import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NoReturn, cast

from qscore_fast.errors import ImageError
from qscore_fast.images.outage import raise_outage
from qscore_fast.images.sources.local_file import open_local
from qscore_fast.images.sources.source import MAX_IMAGE_BYTES

MAX_MEMBER_BYTES = MAX_IMAGE_BYTES
MAX_NAME_BYTES = 4096
# Long names and PAX records stand in blocks of their own, which are read as a whole.
MAX_HEADER_BYTES = 2**20

OpenBinary = Callable[[str], BinaryIO]

_BLOCK = tarfile.BLOCKSIZE
_GZIP = b"\x1f\x8b"
_UNREADABLE = {
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
}
_KINDS = {
    tarfile.LNKTYPE: "a hard link, which is not followed",
    tarfile.SYMTYPE: "a symbolic link, which is not followed",
    tarfile.CHRTYPE: "a device, not a file",
    tarfile.BLKTYPE: "a device, not a file",
    tarfile.FIFOTYPE: "a named pipe, not a file",
    tarfile.GNUTYPE_SPARSE: "a sparse file, which is not supported",
}
_EXTENSION_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
)


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a tar that is no directory.

    Attributes:
        name: its path in the tar, bytes, without a leading ``./``; never to be opened.
        header: where its first header begins, bytes from the start of the stream.
        offset: where its content begins.
        size: of its content, bytes.
        problem: why the content must not be used, or None.
    """

    name: bytes
    header: int
    offset: int
    size: int
    problem: str | None = None


@contextmanager
def open_tar(name: str, open_binary: OpenBinary = open_local) -> Iterator[BinaryIO]:
    """A plain or gzip-compressed tar as a stream of its plain bytes.

    Args:
        name: what ``open_binary`` takes.
        open_binary: gives a seekable binary stream.

    Raises:
        ImageError: it cannot be opened or read (also while the stream is in use), or is compressed in
            another way; stage "read".
        UnavailableError: nothing can be read there now.
    """
    try:
        with open_binary(name) as stream:
            head = stream.read(6)
            stream.seek(0)
            for magic, method in _UNREADABLE.items():
                if head.startswith(magic):
                    _fail(f"compressed with {method}, which is not read: make it a plain .tar")
            if head.startswith(_GZIP):
                with gzip.GzipFile(fileobj=stream, mode="rb") as plain:
                    yield cast(BinaryIO, plain)
            else:
                yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise_outage(error)
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot be read: {reason}", "read") from error


def members(stream: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """The members of a tar, in its order; only headers are read.

    Directories are left out. Links, devices, sparse files, files above ``MAX_MEMBER_BYTES`` and names
    that lead out of the tar come with a ``problem``. The stream may be read between two members.

    Args:
        stream: a seekable one, as ``open_tar`` gives it.
        start: where the tar, or one of its members' headers, begins in the stream, bytes.
        end: where the tar ends in the stream; None for the stream's end.

    Raises:
        ImageError: the tar is damaged, cut off, or goes on after its end marker; stage "read".
    """
    # TarFile is not used: it takes a damaged header for the end, keeps every member, reads long names
    # of any length, and with a negative size goes round in circles (CVE-2025-8194).
    position = first = start
    name: bytes | None = None
    records: dict[bytes, bytes] = {}
    while True:
        header = _header(stream, position, end)
        if header is None:
            _check_rest(stream, position, end)
            return
        position += _BLOCK
        if header.type in _EXTENSION_HEADERS:
            if header.type != tarfile.XGLTYPE:
                body = _extension(stream, position, header.size, end)
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    name = body.split(b"\0", 1)[0]
                elif header.type != tarfile.GNUTYPE_LONGLINK:
                    records |= _pax_records(body, position)
            position += _padded(header.size)
            continue
        size = _size(header, records, position)
        own = header.name.encode("utf-8", "surrogateescape")
        path = records.get(b"path", own if name is None else name)
        sparse = any(key.startswith(b"GNU.sparse.") for key in records)
        if not header.isdir():
            yield _member(header.type, path, first, position, size, sparse)
        if header.isreg() or header.type not in tarfile.SUPPORTED_TYPES:
            position += _padded(size)
        first, name, records = position, None, {}


def content(stream: BinaryIO, member: Member) -> bytes:
    """What a member without a ``problem`` holds.

    Raises:
        ImageError: the tar ends before the member does; stage "read".
    """
    assert member.problem is None and member.size <= MAX_MEMBER_BYTES
    stream.seek(member.offset)
    data = stream.read(member.size)
    if len(data) < member.size:
        _fail(f"cut off at byte {member.offset + len(data):,}, within a file")
    return data


def skip(stream: BinaryIO, member: Member) -> None:
    """Pass over what ``content`` would give, up to its last byte.

    Raises:
        ImageError: as ``content``; stage "read".
    """
    if member.size == 0 or isinstance(stream, gzip.GzipFile):
        # Every byte has to be decompressed anyway, and a damaged one shows where ``content`` finds it.
        content(stream, member)
        return
    stream.seek(member.offset + member.size - 1)
    if not stream.read(1):
        _fail(f"cut off within a file of {member.size:,} bytes at byte {member.offset:,}")


def _fail(reason: str) -> NoReturn:
    raise ImageError(reason, "read")


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _read(stream: BinaryIO, position: int, size: int, end: int | None) -> bytes:
    stream.seek(position)
    return stream.read(size if end is None else max(0, min(size, end - position)))


def _header(stream: BinaryIO, position: int, end: int | None) -> tarfile.TarInfo | None:
    """The header at ``position``; None for the end marker."""
    block = _read(stream, position, _BLOCK, end)
    if len(block) < _BLOCK:
        _fail(f"cut off at or before byte {position + len(block):,}: there is no end marker")
    if not block.strip(b"\0"):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        _fail(f"not a tar, or damaged: no valid header at byte {position:,}")
    # Sizes can be negative or above what a file can have; neither may move the position.
    if not 0 <= header.size < 2**60:
        _fail(f"damaged: a size of {header.size} in the header at byte {position:,}")
    return header


def _extension(stream: BinaryIO, position: int, size: int, end: int | None) -> bytes:
    if size > MAX_HEADER_BYTES:
        _fail(f"damaged: a header of {size:,} bytes at byte {position:,}")
    body = _read(stream, position, size, end)
    if len(body) < size:
        _fail(f"cut off at byte {position + len(body):,}, within a header")
    return body


def _pax_records(body: bytes, position: int) -> dict[bytes, bytes]:
    """The ``LENGTH KEY=VALUE`` lines of a PAX header."""
    records = {}
    start = 0
    while start < len(body.rstrip(b"\0")):
        match = re.match(rb"(\d{1,7}) ([^=]+)=", body[start : start + 256])
        length = int(match[1]) if match else 0
        if match is None or not match.end() < length <= len(body) - start:
            _fail(f"damaged: no valid PAX record at byte {position + start:,}")
        records[match[2]] = body[start + match.end() : start + length - 1]
        start += length
    return records


def _size(header: tarfile.TarInfo, records: dict[bytes, bytes], position: int) -> int:
    text = records.get(b"size")
    if text is None:
        return header.size
    if not re.fullmatch(rb"\d{1,18}", text):
        _fail(f"damaged: no valid size in the header before byte {position:,}")
    return int(text)


def _member(kind: bytes, path: bytes, header: int, offset: int, size: int, sparse: bool) -> Member:
    while path.startswith(b"./"):
        path = path[2:].lstrip(b"/")
    problem = _KINDS.get(kind)
    if sparse:
        problem = _KINDS[tarfile.GNUTYPE_SPARSE]
    elif problem is None and size > MAX_MEMBER_BYTES:
        problem = f"{size:,} bytes is above the limit of {MAX_MEMBER_BYTES:,} bytes"
    if len(path) > MAX_NAME_BYTES:
        problem = f"a name of {len(path):,} bytes is above the limit of {MAX_NAME_BYTES:,}"
        # The extension is kept, by which sources tell images.
        path = path[:200] + b"..." + os.path.splitext(path)[1][-20:]
    elif not path or b"\0" in path or path.startswith(b"/") or b".." in path.split(b"/"):
        problem = "its name leads out of the archive or is not valid"
    return Member(path, header, offset, size, problem)


def _check_rest(stream: BinaryIO, position: int, end: int | None) -> None:
    """After the end marker come zeros only; a hole in the file looks like an end marker, too."""
    while chunk := _read(stream, position, 2**20, end):
        if chunk.strip(b"\0"):
            _fail(
                f"data after the end marker, in the {len(chunk):,} bytes from byte {position:,}: a hole, "
                "or several tars joined"
            )
        position += len(chunk)
