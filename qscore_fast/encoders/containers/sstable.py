"""The sorted table of LevelDB's format in which TensorFlow keeps the names of its variables."""

from __future__ import annotations

from collections.abc import Iterator

from qscore_fast.encoders.containers.wire import masked_crc32c, read_varint
from qscore_fast.errors import EncoderError

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_BYTES = 48
_DAMAGED = "the .index file is damaged"


def read_table(data: bytes) -> dict[bytes, bytes]:
    """All entries of a table, in order.

    Layout: blocks, then an index block of (last key, block handle), then a footer of 48 bytes with
    the handle of the index and a magic number. Each block is followed by a byte for its compression
    and a masked CRC-32C, which is checked.

    Raises:
        EncoderError: it is no table, is damaged, or is compressed.
    """
    if len(data) < _FOOTER_BYTES or data[-8:] != MAGIC:
        raise EncoderError("the .index file is no table of TensorFlow's, or is truncated")
    footer = data[-_FOOTER_BYTES:]
    _, position = _handle(footer, 0)
    index, _ = _handle(footer, position)
    table: dict[bytes, bytes] = {}
    read_bytes = 0
    for _, value in _entries(_block(data, index)):
        handle, _ = _handle(value, 0)
        read_bytes += handle[1]
        if read_bytes > len(data):
            raise EncoderError(f"{_DAMAGED} (its blocks overlap)")
        for key, entry in _entries(_block(data, handle)):
            if key in table:
                raise EncoderError(f"{_DAMAGED} (it has {key!r:.80} twice)")
            table[key] = entry
    return table


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """(offset, size) of a block, and the position after it."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _block(data: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    end = offset + size
    if end + 5 > len(data):
        raise EncoderError(f"{_DAMAGED} (a block goes beyond its end)")
    if masked_crc32c(data[offset : end + 1]) != int.from_bytes(data[end + 1 : end + 5], "little"):
        raise EncoderError(f"{_DAMAGED} (a checksum is wrong)")
    if data[end] != 0:
        raise EncoderError(
            "the .index file is compressed, which TensorFlow's Saver never does; "
            "save the checkpoint again"
        )
    return data[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of a block, whose keys are stored without what they share with the one before."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if len(block) < 4 or end < 0:
        raise EncoderError(f"{_DAMAGED} (a block without its restarts)")
    key, position = b"", 0
    while position < end:
        shared, position = read_varint(block, position)
        own, position = read_varint(block, position)
        size, position = read_varint(block, position)
        if shared > len(key) or position + own + size > end:
            raise EncoderError(f"{_DAMAGED} (an entry goes beyond its block)")
        key = key[:shared] + block[position : position + own]
        position += own + size
        yield key, block[position - size : position]
