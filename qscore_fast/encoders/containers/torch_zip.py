"""The zip archives that torch.save has written since torch 1.6."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

from qscore_fast.encoders.containers.file_map import FileMap
from qscore_fast.encoders.containers.limits import (
    EXTRA_COPIED_BYTES,
    MAX_PICKLE_BYTES,
    MAX_ZIP_ENTRIES,
)
from qscore_fast.encoders.containers.plain import to_plain
from qscore_fast.encoders.containers.torch_storage import same_type, storage_identifier
from qscore_fast.encoders.containers.unpickler import Unpickler
from qscore_fast.encoders.containers.values import CopyBudget, Storage
from qscore_fast.errors import EncoderError

_CHECKPOINT_NAMES = (".pth", ".pt", ".pth.tar", ".ckpt", ".torch", ".pkl", ".safetensors", ".index")
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def read_torch_zip(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The content and the names of its stubs; the tensors are views of the mapped file.

    Raises:
        EncoderError: the archive is not one that torch.save writes, or its content is refused.
    """
    with zipfile.ZipFile(path) as archive:
        entries = _checked_entries(archive, path)
        root = _root(entries)
        order = f"{root}/byteorder"
        if order in entries and archive.read(order) != b"little":
            raise EncoderError("its numbers are big-endian, which is not read")
        if entries[f"{root}/data.pkl"].file_size > MAX_PICKLE_BYTES:
            raise EncoderError(f"its pickle is larger than {MAX_PICKLE_BYTES:,} bytes")
        pickled = archive.read(f"{root}/data.pkl")
    file = FileMap(path)
    storages: dict[str, Storage] = {}

    def persistent_load(identifier: Any) -> Storage:
        dtype, key, numel = storage_identifier(identifier)
        if key not in storages:
            entry = entries.get(f"{root}/data/{key}")
            if entry is None:
                raise EncoderError(f"its tensor data {key!r:.40} is missing")
            if numel * dtype.itemsize != entry.file_size:
                raise EncoderError(
                    f"its tensor data {key!r:.40} has {entry.file_size:,} bytes, "
                    f"not {numel:,} of {dtype}"
                )
            start = _data_start(file, entry)
            storages[key] = Storage(dtype, numel, lambda: file.tensor(dtype, start, numel))
        return same_type(storages[key], dtype, numel)

    budget = CopyBudget(2 * len(pickled) + EXTRA_COPIED_BYTES)
    machine = Unpickler(memoryview(pickled), budget, persistent_load)
    return to_plain(machine.load(), budget)


def _checked_entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    listed = archive.infolist()
    entries = {entry.filename: entry for entry in listed}
    if len(listed) > MAX_ZIP_ENTRIES:
        raise EncoderError(f"the archive has more than {MAX_ZIP_ENTRIES:,} entries")
    if len(entries) < len(listed):
        raise EncoderError("the archive has two entries of one name")
    if any(name.split("/")[-1] == "constants.pkl" or "/code/" in name for name in entries):
        raise EncoderError(
            "it is a TorchScript archive, which holds code: save the module's state_dict instead"
        )
    if any("/.data/extern_modules" in f"/{name}" for name in entries):
        raise EncoderError("it is a torch.package archive, which holds code: save a state_dict")
    for entry in listed:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise EncoderError(
                f"its entry {entry.filename!r:.80} is compressed or encrypted, which torch.save "
                "never does: unpack the archive, or save the checkpoint again"
            )
    if sum(max(entry.file_size, entry.compress_size) for entry in listed) > path.stat().st_size:
        raise EncoderError("the archive claims to hold more than the file does")
    return entries


def _root(entries: dict[str, zipfile.ZipInfo]) -> str:
    """The folder of the archive that holds data.pkl."""
    roots = [name[: -len("/data.pkl")] for name in entries if name.endswith("/data.pkl")]
    if len(roots) == 1 and "/" not in roots[0]:
        return roots[0]
    if roots:
        raise EncoderError("it is no archive of torch.save: data.pkl is not in one folder, once")
    inside = [name for name in entries if name.endswith(_CHECKPOINT_NAMES)]
    if inside:
        raise EncoderError(f"it is an archive with {inside[0]!r:.80} inside: unpack it first")
    raise EncoderError("it is a zip archive, but not one that torch.save writes (no data.pkl)")


def _data_start(file: FileMap, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin; the header before them has its own lengths."""
    header = file.bytes(entry.header_offset, _LOCAL_HEADER.size)
    encoding = "utf-8" if entry.flag_bits & 0x800 else "cp437"
    signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    start = entry.header_offset + _LOCAL_HEADER.size
    name = file.bytes(start, name_length)
    if signature != b"PK\x03\x04" or name != entry.orig_filename.encode(encoding):
        raise EncoderError(f"the archive's two records of {entry.filename!r:.80} differ")
    return start + name_length + extra_length
