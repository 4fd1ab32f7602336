"""Writes TensorFlow "V2" checkpoints (tensor bundles), independently of the package's reader.

Layout from tensorflow/core/util/tensor_bundle and tensorflow/core/protobuf/tensor_bundle.proto: an
``.index`` file, which is an SSTable of protocol buffers, and raw little-endian ``.data`` shards.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

MAGIC = 0xDB4775248B80FB57
CASTAGNOLI = 0x82F63B78
# DataType of tensorflow/core/framework/types.proto.
DTYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "bool": 10,
    "bfloat16": 14,
    "float16": 19,
}


def write_bundle(
    prefix: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    shards: int = 1,
    *,
    block_entries: int = 16,
    restart_interval: int = 4,
    endianness: int = 0,
    compression: int = 0,
) -> None:
    """Write ``prefix.index`` and ``prefix.data-0000i-of-0000n``; tensors go to the shards in turn.

    ``endianness=1`` and ``compression=1`` only set the fields, so that a reader's refusal can be
    tested; the content stays little-endian and uncompressed.
    """
    prefix = Path(prefix)
    data = [bytearray() for _ in range(shards)]
    header = _varint_field(1, shards) + _varint_field(2, endianness)
    header += _bytes_field(3, _varint_field(1, 1))
    rows = [(b"", header)]
    for number, (name, array) in enumerate(sorted(tensors.items())):
        shard = number % shards
        raw = np.ascontiguousarray(array).tobytes()
        entry = _entry(array, shard, len(data[shard]), raw)
        data[shard] += raw
        rows.append((name.encode(), entry))
    rows.sort()
    table = _table(rows, block_entries, restart_interval, compression)
    _beside(prefix, ".index").write_bytes(table)
    for shard, raw_shard in enumerate(data):
        _beside(prefix, f".data-{shard:05d}-of-{shards:05d}").write_bytes(raw_shard)


def write_checkpoint_state(prefix: str | os.PathLike[str]) -> None:
    """Write the text file ``checkpoint`` that names ``prefix`` as the latest one of its folder."""
    name = Path(prefix).name
    text = f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'
    Path(prefix).with_name("checkpoint").write_text(text)


def write_table(path: str | os.PathLike[str], rows: list[tuple[bytes, bytes]]) -> None:
    """Write any sorted (key, value) rows as an SSTable, for tests of a reader's refusals."""
    Path(path).write_bytes(_table(rows, 16, 4, 0))


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), computed in parallel lanes that are joined by linearity."""
    lanes = 1024
    length = len(data) // lanes if len(data) >= 64 * lanes else 0
    head = np.frombuffer(data, np.uint8, lanes * length).reshape(lanes, length)
    state = 0xFFFFFFFF
    if length:
        lane_state = np.zeros(lanes, np.uint32)
        lane_state[0] = state
        for column in np.ascontiguousarray(head.T):
            lane_state = _TABLE[(lane_state ^ column) & 0xFF] ^ (lane_state >> 8)
        basis = np.uint32(1) << np.arange(32, dtype=np.uint32)
        for _ in range(length):
            basis = _TABLE[basis & 0xFF] ^ (basis >> 8)
        state = 0
        for lane in lane_state:
            bits = np.flatnonzero(state >> np.arange(32) & 1)
            state = int(np.bitwise_xor.reduce(basis[bits])) ^ int(lane)
    for byte in data[lanes * length :]:
        state = int(_TABLE[(state ^ byte) & 0xFF]) ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(CASTAGNOLI), table >> 1)
    return table.astype(np.uint32)


_TABLE = _crc_table()


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _entry(array: np.ndarray, shard: int, offset: int, raw: bytes) -> bytes:
    shape = b"".join(_bytes_field(2, _varint_field(1, size)) for size in array.shape)
    return (
        _varint_field(1, DTYPES[str(array.dtype)])
        + _bytes_field(2, shape)
        + _varint_field(3, shard)
        + _varint_field(4, offset)
        + _varint_field(5, len(raw))
        + _varint(6 << 3 | 5)
        + struct.pack("<I", _masked(crc32c(raw)))
    )


def _table(
    rows: list[tuple[bytes, bytes]], block_entries: int, interval: int, compression: int
) -> bytes:
    out = bytearray()

    def append(block: bytes) -> bytes:
        handle = _varint(len(out)) + _varint(len(block))
        stored = block + bytes([compression])
        out.extend(stored + struct.pack("<I", _masked(crc32c(stored))))
        return handle

    index = []
    for start in range(0, len(rows), block_entries):
        part = rows[start : start + block_entries]
        index.append((part[-1][0], append(_block(part, interval))))
    metaindex = append(_block([], 1))
    footer = metaindex + append(_block(index, 1))
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def _block(rows: list[tuple[bytes, bytes]], interval: int) -> bytes:
    out, restarts, previous = bytearray(), [0], b""
    for number, (key, value) in enumerate(rows):
        shared = 0
        if number % interval == 0:
            restarts = [*restarts, len(out)] if number else restarts
        else:
            shared = next(
                (
                    i
                    for i, pair in enumerate(zip(previous, key, strict=False))
                    if pair[0] != pair[1]
                ),
                min(len(previous), len(key)),
            )
        out += _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
        out += key[shared:] + value
        previous = key
    return bytes(out) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _beside(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)
