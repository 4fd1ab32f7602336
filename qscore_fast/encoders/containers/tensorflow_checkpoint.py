"""TensorFlow "V2" checkpoints: an .index table and .data shards, read without TensorFlow.

Source: tensorflow/core/protobuf/tensor_bundle.proto and tensorflow/core/util/tensor_bundle.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from qscore_fast.encoders.containers.file_map import FileMap
from qscore_fast.encoders.containers.limits import MAX_DIMENSIONS, MAX_INDEX_BYTES, MAX_SHARDS
from qscore_fast.encoders.containers.sstable import read_table
from qscore_fast.encoders.containers.values import CopyBudget
from qscore_fast.encoders.containers.wire import read_fields, signed
from qscore_fast.errors import EncoderError

# DataType of tensorflow/core/framework/types.proto.
_DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    8: torch.complex64,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    17: torch.uint16,
    18: torch.complex128,
    19: torch.float16,
    22: torch.uint32,
    23: torch.uint64,
}
_STRING = 7
_SUFFIX = re.compile(r"(.+?)\.(index|meta|data-\d{5,}-of-\d{5,})")

Extent = tuple[int, int]  # first index, and how many (-1: all)


@dataclass
class _Entry:
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    slices: list[tuple[Extent, ...]]


@dataclass
class _Shards:
    """The data files, mapped (an empty one is None), and how much may still be read of them."""

    files: list[FileMap | None]
    budget: CopyBudget


def find_prefix(path: Path) -> Path | None:
    """The prefix of the checkpoint that ``path`` means, or None.

    ``path`` is a prefix itself ("model.ckpt-225206"), one of its files, a folder with one, or a
    SavedModel's or TF-Hub module's folder or ``saved_model.pb``.

    Raises:
        EncoderError: a folder holds several checkpoints and no file ``checkpoint`` that names one.
    """
    if path.is_dir():
        return _in_folder(path)
    if path.name == "saved_model.pb":
        return _in_folder(path.parent)
    match = _SUFFIX.fullmatch(path.name)
    if match and _index(path.with_name(match[1])).is_file():
        return path.with_name(match[1])
    return path if not path.is_file() and _index(path).is_file() else None


def read_tensorflow(prefix: Path) -> dict[str, Tensor]:
    """The variables by name, as views of the mapped shards; texts are left out.

    Raises:
        EncoderError: a file is missing or damaged, or holds what cannot be read.
    """
    index = _index(prefix)
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise EncoderError(f"{index.name} is larger than {MAX_INDEX_BYTES:,} bytes")
    table = read_table(index.read_bytes())
    shards = _shards(prefix, table.pop(b"", b""))
    tensors = {}
    for key, message in table.items():
        if key.startswith(b"\0"):
            continue  # a slice of a partitioned variable, read with the variable
        name = key.decode("utf-8", "replace")
        entry = _entry(message, name)
        if entry.dtype == _STRING:
            continue
        if entry.slices:
            tensors[name] = _assembled(name, key, entry, table, shards)
        else:
            tensors[name] = _tensor(name, entry, shards)
    return tensors


def _index(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _in_folder(folder: Path) -> Path | None:
    state = folder / "checkpoint"
    if state.is_file():
        head = state.read_bytes()[:4096].decode("utf-8", "replace")
        named = re.search(r'^model_checkpoint_path: "([^"\n]+)"', head, re.MULTILINE)
        if named and _index(folder / Path(named[1]).name).is_file():
            return folder / Path(named[1]).name
    for inner in (folder, folder / "variables"):
        found = sorted(inner.glob("*.index"))
        if len(found) > 1:
            names = ", ".join(path.stem for path in found[:5])
            raise EncoderError(f"it holds {len(found)} TensorFlow checkpoints, name one: {names}")
        if found:
            return found[0].with_suffix("")
    return None


def _shards(prefix: Path, header: bytes) -> _Shards:
    fields = dict(read_fields(header))
    count = fields.get(1, 1)
    if fields.get(2, 0) != 0:
        raise EncoderError("its numbers are big-endian, which is not read")
    if not isinstance(count, int) or not 1 <= count <= MAX_SHARDS:
        raise EncoderError(f"its .index file claims {count!r} data files")
    names = [f"{prefix.name}.data-{i:05d}-of-{count:05d}" for i in range(count)]
    missing = [name for name in names if not prefix.with_name(name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise EncoderError(f"its data file {missing[0]}{more} is missing: put it beside the .index")
    paths = [prefix.with_name(name) for name in names]
    sizes = [path.stat().st_size for path in paths]
    files = [FileMap(path) if size else None for path, size in zip(paths, sizes, strict=True)]
    return _Shards(files, CopyBudget(sum(sizes)))


def _entry(message: bytes, name: str) -> _Entry:
    entry = _Entry(0, (), 0, 0, 0, [])
    for field, value in read_fields(message):
        if isinstance(value, int):
            if field == 1:
                entry.dtype = value
            elif field == 3:
                entry.shard = value
            elif field == 4:
                entry.offset = value
            elif field == 5:
                entry.size = value
        elif field == 2:
            entry.shape = _shape(value, name)
        elif field == 7:
            entry.slices.append(_slice(value))
    if entry.dtype not in _DTYPES and entry.dtype != _STRING:
        raise EncoderError(f"its variable {name!r:.80} is of TensorFlow's type {entry.dtype}")
    return entry


def _shape(message: bytes, name: str) -> tuple[int, ...]:
    sizes = []
    for field, value in read_fields(message):
        if field == 2 and isinstance(value, bytes):
            size = dict(read_fields(value)).get(1, 0)
            sizes.append(signed(size) if isinstance(size, int) else -1)
    if len(sizes) > MAX_DIMENSIONS or any(not 0 <= size < 2**48 for size in sizes):
        raise EncoderError(f"its variable {name!r:.80} has the shape {tuple(sizes)!r:.80}")
    return tuple(sizes)


def _slice(message: bytes) -> tuple[Extent, ...]:
    extents = []
    for field, value in read_fields(message):
        if field == 1 and isinstance(value, bytes):
            fields = dict(read_fields(value))
            start, length = fields.get(1, 0), fields.get(2, 2**64 - 1)
            if not isinstance(start, int) or not isinstance(length, int):
                raise EncoderError("the .index file is damaged (a slice)")
            extents.append((signed(start), signed(length)))
    return tuple(extents)


def _tensor(name: str, entry: _Entry, shards: _Shards) -> Tensor:
    dtype, numel = _DTYPES[entry.dtype], math.prod(entry.shape)
    if entry.size != numel * dtype.itemsize:
        raise EncoderError(
            f"its variable {name!r:.80} has {entry.size:,} bytes, not {numel:,} of {dtype}"
        )
    shards.budget.spend(entry.size)
    if entry.shard >= len(shards.files):
        raise EncoderError(
            f"its variable {name!r:.80} lies in data file {entry.shard}, which is none"
        )
    shard = shards.files[entry.shard]
    if shard is None or numel == 0:
        if numel:
            raise EncoderError(f"the data file {entry.shard} of its variable {name!r:.80} is empty")
        return torch.empty(entry.shape, dtype=dtype)
    return shard.tensor(dtype, entry.offset, numel).view(entry.shape)


def _assembled(
    name: str,
    key: bytes,
    entry: _Entry,
    table: dict[bytes, bytes],
    shards: _Shards,
) -> Tensor:
    """A partitioned variable, put together from its slices, which must fill it exactly once."""
    dtype = _DTYPES[entry.dtype]
    parts = []
    for extents in entry.slices:
        message = table.get(_slice_key(key, extents))
        ranges = [
            (start, size if length < 0 else length)
            for (start, length), size in zip(extents, entry.shape, strict=False)
        ]
        part = _entry(message, name) if message is not None else None
        if (
            part is None
            or len(extents) != len(entry.shape)
            or part.dtype != entry.dtype
            or part.shape != tuple(length for _, length in ranges)
            or any(s < 0 or s + n > size for (s, n), size in zip(ranges, entry.shape, strict=True))
        ):
            raise EncoderError(f"the slices of its variable {name!r:.80} do not fit it")
        index = tuple(slice(start, start + length) for start, length in ranges)
        parts.append((index, _tensor(name, part, shards)))
    if sum(part.numel() for _, part in parts) != math.prod(entry.shape):
        raise EncoderError(f"the slices of its variable {name!r:.80} do not fill it")
    whole = torch.empty(entry.shape, dtype=dtype)
    filled = torch.zeros(entry.shape, dtype=torch.bool)
    for index, part_tensor in parts:
        whole[index] = part_tensor
        filled[index] = True
    if not filled.all():
        raise EncoderError(f"the slices of its variable {name!r:.80} do not fill it")
    return whole


def _slice_key(name: bytes, extents: tuple[Extent, ...]) -> bytes:
    """The key of a slice, in the encoding that keeps keys in order (tensorflow OrderedCode)."""
    escaped = name.replace(b"\0", b"\0\xff").replace(b"\xff", b"\xff\0")
    rank = bytes([1, len(extents)]) if extents else b"\0"
    numbers = b"".join(_ordered(number) for extent in extents for number in extent)
    return b"\0" + escaped + b"\0\x01" + rank + numbers


def _ordered(number: int) -> bytes:
    """A whole number from -1 up: as many leading one bits as bytes, then a zero, then its bits."""
    if number < 0:
        return b"\x7f"
    size = next(size for size in range(1, 8) if number < 1 << (7 * size - 1))
    marker = ((1 << size) - 1) << (8 * size - size)
    return (number | marker).to_bytes(size, "big")
