"""The messages of an Arrow stream or file, found without reading what they hold.

Source: https://arrow.apache.org/docs/format/Columnar.html (encapsulated messages) and its Message.fbs.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import pyarrow as pa

SCHEMA, DICTIONARY, BATCH = 1, 2, 3
_CONTINUED = b"\xff\xff\xff\xff"
_MAX_HEAD_BYTES = 2**26


class Message(NamedTuple):
    """One message.

    Attributes:
        kind: SCHEMA, DICTIONARY, BATCH or another number.
        start, end: its place in the file, bytes.
        rows: of a BATCH.
    """

    kind: int
    start: int
    end: int
    rows: int


def messages(stream: BinaryIO) -> Iterator[Message]:
    """The messages in their order; only what describes them is read.

    Raises:
        ValueError: the stream breaks off, or is no Arrow.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    # A file has its stream between this and a footer that repeats where the messages are.
    position = 8 if stream.read(6) == b"ARROW1" else 0
    while position < size:
        stream.seek(position)
        prefix = stream.read(8)
        continued = prefix.startswith(_CONTINUED)
        head_size = int.from_bytes(prefix[4:] if continued else prefix[:4], "little", signed=True)
        if not head_size:
            return
        head_start = position + (8 if continued else 4)
        if not 0 < head_size <= min(size - head_start, _MAX_HEAD_BYTES):
            raise ValueError(f"no message of Arrow at byte {position:,}, or one that is cut off")
        stream.seek(head_start)
        kind, rows, body_size = _described(stream.read(head_size))
        end = head_start + head_size + body_size
        if body_size < 0 or rows < 0 or end > size:
            raise ValueError(f"the message at byte {position:,} ends at {end:,} of {size:,}")
        yield Message(kind, position, end, rows)
        position = end


def read_batch(stream: BinaryIO, before: Sequence[Message], batch: Message) -> pa.RecordBatch:
    """A batch, from its own bytes and those of the schema and the dictionaries ``before`` it.

    Raises:
        pa.ArrowException, OSError: it is damaged.
    """
    pieces = _Pieces(stream, [*before, batch])
    return pa.ipc.open_stream(pieces).read_next_batch()


def read_schema(stream: BinaryIO, schema: Message) -> pa.Schema:
    """The schema of its message.

    Raises:
        pa.ArrowException, OSError: it is damaged.
    """
    return pa.ipc.open_stream(_Pieces(stream, [schema])).schema


class _Pieces(io.RawIOBase):
    """Messages one after the other, wherever they stand."""

    def __init__(self, stream: BinaryIO, pieces: Sequence[Message]) -> None:
        self._stream = stream
        self._left = [(piece.start, piece.end) for piece in pieces]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts = []
        while self._left and size:
            start, end = self._left[0]
            self._stream.seek(start)
            part = self._stream.read(end - start if size < 0 else min(size, end - start))
            if not part:
                break
            parts.append(part)
            size = size if size < 0 else size - len(part)
            self._left[:1] = [(start + len(part), end)] if start + len(part) < end else []
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _described(head: bytes) -> tuple[int, int, int]:
    """Kind, rows and bytes of the body, of a FlatBuffer with a Message."""
    try:
        table = _table(head, 0)
        kind = _field(head, table, 1, "<B")
        rows = 0
        if kind == BATCH:
            place = _place(head, table, 2)
            rows = _field(head, _table(head, place), 0, "<q") if place else 0
        return kind, rows, _field(head, table, 3, "<q")
    except struct.error:
        raise ValueError("a damaged description of a message") from None


def _table(head: bytes, place: int) -> int:
    return place + int(struct.unpack_from("<I", head, place)[0])


def _place(head: bytes, table: int, field: int) -> int:
    """Where a field of a table is; 0 where it is left out."""
    vtable = table - int(struct.unpack_from("<i", head, table)[0])
    if vtable < 0:
        raise struct.error
    (size,) = struct.unpack_from("<H", head, vtable)
    offset = 4 + 2 * field
    if offset + 2 > size:
        return 0
    (within,) = struct.unpack_from("<H", head, vtable + offset)
    return table + within if within else 0


def _field(head: bytes, table: int, field: int, form: str) -> int:
    place = _place(head, table, field)
    return int(struct.unpack_from(form, head, place)[0]) if place else 0
