"""Pickle files: the streams that torch.save wrote before torch 1.6, and plain pickles."""

from __future__ import annotations

import struct
from typing import Any

from torch import Tensor

from qscore_fast.encoders.containers.file_map import FileMap
from qscore_fast.encoders.containers.limits import EXTRA_COPIED_BYTES
from qscore_fast.encoders.containers.plain import to_plain
from qscore_fast.encoders.containers.torch_storage import same_type, storage_identifier
from qscore_fast.encoders.containers.unpickler import Unpickler
from qscore_fast.encoders.containers.values import CopyBudget, Storage, brief
from qscore_fast.errors import EncoderError

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001


def read_pickle_stream(file: FileMap) -> tuple[Any, tuple[str, ...], bool]:
    """The content, the names of its stubs, and whether it is a stream of torch.save.

    A file that is one pickle of another kind (plain, or written by dill) gives that one's content.
    The stream is five pickles (magic number, version, byte order, the object, the storages' keys)
    and then each storage: its number of entries (int64) and its numbers.

    Raises:
        EncoderError: the stream is damaged or its content is refused.
    """
    budget = CopyBudget(2 * file.size + EXTRA_COPIED_BYTES)
    storages: dict[str, Storage] = {}
    data: dict[str, Tensor] = {}

    def persistent_load(identifier: Any) -> Storage:
        dtype, key, numel = storage_identifier(identifier)
        if key not in storages:
            storages[key] = Storage(dtype, numel, lambda: _present(data, key))
        storage = same_type(storages[key], dtype, numel)
        view = identifier[5] if len(identifier) > 5 else None
        return _storage_view(storage, view) if view is not None else storage

    machine = Unpickler(file.view(), budget, persistent_load)
    first = machine.load()
    if type(first) is not int or first != MAGIC:
        return *to_plain(first, budget), False
    version, system = machine.load(), machine.load()
    if version != VERSION:
        raise EncoderError(f"its stream has the version {brief(version)}; only 1001 is read")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise EncoderError("its numbers are big-endian, which is not read")
    root, keys = machine.load(), machine.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise EncoderError("its list of storages is damaged")
    position = machine.position
    for key in keys:
        storage = storages.get(key)
        if storage is None or key in data:
            raise EncoderError(f"its list of storages names {key!r:.40}, which no tensor has")
        (numel,) = struct.unpack("<q", file.bytes(position, 8))
        if numel != storage.numel:
            raise EncoderError(
                f"its tensor data {key!r:.40} has {numel:,} numbers, not {storage.numel:,}"
            )
        data[key] = file.tensor(storage.dtype, position + 8, numel)
        position += 8 + numel * storage.dtype.itemsize
    return *to_plain(root, budget), True


def _present(data: dict[str, Tensor], key: str) -> Tensor:
    if key not in data:
        raise EncoderError(f"its tensor data {key!r:.40} is missing")
    return data[key]


def _storage_view(storage: Storage, view: Any) -> Storage:
    """A part of a storage, as torch < 0.4 recorded it: (key, offset, number of entries)."""
    if not isinstance(view, tuple) or len(view) != 3:
        raise EncoderError(f"it holds a storage view of an unknown kind ({brief(view)})")
    _, offset, numel = view
    if (
        not all(type(n) is int and n >= 0 for n in (offset, numel))
        or offset + numel > storage.numel
    ):
        raise EncoderError("it holds a view that goes beyond its storage")
    return Storage(storage.dtype, numel, lambda: storage.tensor()[offset : offset + numel])
