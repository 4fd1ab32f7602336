"""Tars as tests need them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def tar_bytes(
    files: Iterable[tuple[str, bytes] | tarfile.TarInfo], format: int = tarfile.GNU_FORMAT
) -> bytes:
    """A tar of files (name, content), and of members without content as their headers."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for file in files:
            if isinstance(file, tarfile.TarInfo):
                tar.addfile(file)
            else:
                header = tarfile.TarInfo(file[0])
                header.size = len(file[1])
                tar.addfile(header, io.BytesIO(file[1]))
    return buffer.getvalue()


def write_tar(path: Path, *files: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    """The same as a file; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(files))
    return path


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """The header of a link, directory or device."""
    header = tarfile.TarInfo(name)
    header.type = kind
    header.linkname = target
    return header


def raw_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """One block with a right checksum and any size, also a negative one."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    octal = b"%011o\0" % size if 0 <= size < 8**11 else b""
    # GNU's base-256: 0xff before a negative number, 0x80 before a large one.
    block[124:136] = octal or (b"\xff" if size < 0 else b"\x80") + size.to_bytes(
        11, "big", signed=True
    )
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
