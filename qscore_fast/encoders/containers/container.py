"""Which kind of file a checkpoint is, and what it holds."""

from __future__ import annotations

import os
import stat
import struct
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qscore_fast.encoders.containers.file_map import FileMap
from qscore_fast.encoders.containers.limits import MAX_FILE_BYTES
from qscore_fast.encoders.containers.pickle_stream import read_pickle_stream
from qscore_fast.encoders.containers.safetensors_file import read_safetensors
from qscore_fast.encoders.containers.sstable import MAGIC as TABLE_MAGIC
from qscore_fast.encoders.containers.tensorflow_checkpoint import find_prefix, read_tensorflow
from qscore_fast.encoders.containers.torch_zip import read_torch_zip
from qscore_fast.errors import EncoderError

_HEAD_BYTES = 512
# What a user may have instead of a checkpoint, by how the file begins.
_OTHER_KINDS = {
    b"version https://git-lfs": "it is a Git LFS pointer, not the file: run  git lfs pull",
    b"\x1f\x8b": "it is compressed with gzip: unpack it first",
    b"BZh": "it is compressed with bzip2: unpack it first",
    b"\xfd7zXZ\0": "it is compressed with xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "it is compressed with zstd: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "it is a 7z archive: unpack it first",
    b"Rar!": "it is a RAR archive: unpack it first",
    b"\x89HDF\r\n\x1a\n": "it is an HDF5 file, which is not read",
    b"\x93NUMPY": "it is a NumPy array, not a checkpoint",
    b"PK\x05\x06": "it is an empty zip archive",
}
# What the readers, zipfile and torch may raise over bytes that make no sense.
_DAMAGE = (
    *(zipfile.BadZipFile, struct.error, EOFError),
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError),
)
_PICKLE_STARTS = b"\x80(]}cdli"


@dataclass(frozen=True)
class Container:
    """What a checkpoint file holds, as plain data.

    Attributes:
        path: the file; for TensorFlow the prefix of its files.
        format: "torch-zip", "torch-legacy", "safetensors", "pickle" or "tensorflow".
        content: nested dict, list, tuple, set, scalars, dense tensors on the CPU, and Stub objects.
            Tensors are views of the file's memory where that is possible; write to none of them.
        stubs: the names of the classes and functions that Stub objects stand for, sorted.
        metadata: texts beside the content (safetensors).
    """

    path: Path
    format: str
    content: Any
    stubs: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


def read_container(path: str | os.PathLike[str]) -> Container:
    """Read a checkpoint of any known kind; nothing in it is executed.

    Args:
        path: a file that torch.save wrote (any version since 0.2), a safetensors file, a pickle, or a
            TensorFlow checkpoint (its prefix, one of its files, or its folder).

    Raises:
        EncoderError: the file is missing, damaged, of another kind, or refers to what is not on the
            list of harmless names; the text says which.
    """
    path = Path(path)
    try:
        return _read(path)
    except EncoderError as error:
        raise EncoderError(f"cannot read {path}: {error}") from error
    except OSError as error:
        raise EncoderError(f"cannot read {path}: {error.strerror or error}") from error
    except MemoryError as error:
        raise EncoderError(f"cannot read {path}: not enough memory") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120]
        raise EncoderError(f"cannot read {path}: the file is damaged ({reason})") from error


def _read(path: Path) -> Container:
    prefix = find_prefix(path)
    if prefix is not None:
        return Container(prefix, "tensorflow", read_tensorflow(prefix))
    _check_file(path)
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(-min(8, path.stat().st_size), os.SEEK_END)
        tail = file.read(8)
    _refuse_other_kinds(path, head, tail)
    if path.suffix == ".safetensors" or _begins_safetensors(path, head):
        content, metadata = read_safetensors(path)
        return Container(path, "safetensors", content, (), metadata)
    if head.startswith(b"PK\x03\x04"):
        return Container(path, "torch-zip", *read_torch_zip(path))
    if head[:1] not in _PICKLE_STARTS:
        raise EncoderError(
            "it is not a checkpoint of a known kind (torch, safetensors, pickle, TF)"
        )
    content, stubs, from_torch = read_pickle_stream(FileMap(path))
    return Container(path, "torch-legacy" if from_torch else "pickle", content, stubs)


def _check_file(path: Path) -> None:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise EncoderError("it is a folder without a TensorFlow checkpoint; name a file")
    if not stat.S_ISREG(status.st_mode):
        raise EncoderError("it is not a regular file")
    if status.st_size == 0:
        raise EncoderError("the file is empty")
    if status.st_size > MAX_FILE_BYTES:
        raise EncoderError(f"{status.st_size:,} bytes is above the limit of {MAX_FILE_BYTES:,}")


def _refuse_other_kinds(path: Path, head: bytes, tail: bytes) -> None:
    for start, reason in _OTHER_KINDS.items():
        if head.startswith(start):
            raise EncoderError(reason)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise EncoderError("it is a web page, not a checkpoint: the download went wrong")
    if head[257:262] == b"ustar":
        raise EncoderError(_tar_reason(path))
    if tail == TABLE_MAGIC:
        if path.suffix == ".index":
            raise EncoderError("it is the index of a TensorFlow checkpoint, but cannot be named so")
        raise EncoderError(
            "it is a TensorFlow checkpoint of the old version V1, in one file: "
            "save it again with a Saver of version V2"
        )


def _tar_reason(path: Path) -> str:
    try:
        with tarfile.open(path, "r:") as archive:
            first = [member.name for _, member in zip(range(4), archive, strict=False)]
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        return f"it is a damaged tar archive ({error!s:.80})"
    if {"storages", "tensors", "pickle", "sys_info"} & set(first):
        return "it was written by torch 0.1, whose tar format is not read: save it again"
    return f"it is a tar archive with {', '.join(first)[:120] or 'nothing'} inside: unpack it first"


def _begins_safetensors(path: Path, head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= path.stat().st_size - 8
