"""The wire formats inside TensorFlow checkpoints: varints, protocol buffer fields, CRC-32C."""

from __future__ import annotations

from collections.abc import Iterator

from qscore_fast.errors import EncoderError

_DAMAGED = "the .index file is damaged"
_MASK_DELTA = 0xA282EAD8


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """An unsigned 64-bit number and the position after it; raises EncoderError past the end."""
    value = shift = 0
    while shift < 70 and position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    raise EncoderError(f"{_DAMAGED} (a number without an end)")


def read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protocol buffer: numbers unsigned, anything else as bytes.

    Source: the protocol buffers encoding guide; groups, which are deprecated, are refused.
    """
    position = 0
    while position < len(message):
        tag, position = read_varint(message, position)
        kind = tag & 7
        if kind == 0:
            number, position = read_varint(message, position)
            yield tag >> 3, number
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, position = read_varint(message, position)
        if size is None or position + size > len(message):
            raise EncoderError(f"{_DAMAGED} (a field without an end)")
        raw = message[position : position + size]
        position += size
        yield tag >> 3, raw if kind == 2 else int.from_bytes(raw, "little")


def signed(value: int) -> int:
    """A varint as int64."""
    return value - 2**64 if value >= 2**63 else value


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and shifted as LevelDB and TensorFlow store it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE = [_table_entry(byte) for byte in range(256)]
