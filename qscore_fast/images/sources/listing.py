"""A source's manifest, kept compressed, so that what has changed since can be said by name."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa

MAX_BYTES = 16 * 2**20
"""A longer listing, compressed, is kept as the hash, the first and the last name of each block alone."""

_CHUNK = 4096
_CHOICE = b"the choice of samples (--classes, --limit, --sample) or their labels"
_CHUNKS_A_BLOCK = 16
_NAME_BYTES = 200
_MAX_TEXT = 2**31


class ListedHash(str):
    """The hash of a manifest, as text; pickles as nothing else.

    Attributes:
        listing: what was hashed, for :func:`describe_change`.
    """

    listing: bytes

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


def listed_hash(lines: Iterable[tuple[str, int]]) -> ListedHash:
    """SHA-256 (hex) over names and sizes in bytes (-1 where unknown), in order, with the listing.

    A name that is itself a :class:`ListedHash` is listed by what it stands for, and what is beside it as the
    choice of samples or their labels.
    """
    digest, recorder = hashlib.sha256(), _Recorder()
    rest = iter(lines)
    while chunk := list(islice(rest, _CHUNK)):
        encoded = [_line(name, size) for name, size in chunk]
        digest.update(b"".join(encoded))
        if any(isinstance(name, ListedHash) for name, _ in chunk):
            for (name, _), line in zip(chunk, encoded, strict=True):
                if isinstance(name, ListedHash) and (inner := _Listing.read(name.listing)).is_full:
                    recorder.add([b"%s\n" % each for each in inner.lines()])
                else:
                    recorder.add([_CHOICE + b"\0" + line])
        else:
            recorder.add(encoded)
    found = ListedHash(digest.hexdigest())
    found.listing = recorder.finish(found)
    return found


def hash_of_listing(listing: bytes) -> str | None:
    """The hash of the manifest that a listing is of; None if it is damaged."""
    try:
        return _Listing.read(listing).manifest_hash
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None


def describe_change(before: bytes, after: bytes) -> str:
    """What differs between two whole listings: "3 new, 1 gone; first new: a/7.jpg; first gone: a/1.jpg"."""
    old, new = _Listing.read(before), _Listing.read(after)
    if not (old.is_full and new.is_full):
        return _first_difference(old, new)
    old_lines, old_names = old.hashes()
    new_lines, new_names = new.hashes()
    added = np.flatnonzero(~np.isin(new_lines, old_lines))
    removed = np.flatnonzero(~np.isin(old_lines, new_lines))
    is_changed = np.isin(new_names[added], old_names[removed])
    is_gone = ~np.isin(old_names[removed], new_names[added])
    parts = {
        "new": (new, added[~is_changed]),
        "gone": (old, removed[is_gone]),
        "changed": (new, added[is_changed]),
    }
    counts = [f"{len(where):,} {what}" for what, (_, where) in parts.items() if len(where)]
    if not counts:
        return "the same entries in another order or number"
    first = [
        f"first {what}: {of.name(int(where[0]))}"
        for what, (of, where) in parts.items()
        if len(where)
    ]
    return f"{', '.join(counts)}; {'; '.join(first)}"


def _first_difference(old: _Listing, new: _Listing) -> str:
    """Of listings that are too long to be kept whole: the first block that differs."""
    count = f"{new.num_lines:,} entries instead of {old.num_lines:,}; "
    for number, (one, other) in enumerate(zip(old.blocks, new.blocks, strict=False)):
        if one != other:
            entry = number * _CHUNK * _CHUNKS_A_BLOCK + 1
            return (
                f"{count}the first difference is at or after entry {entry:,}, where {_shown(one[1])} to "
                f"{_shown(one[2])} has become {_shown(other[1])} to {_shown(other[2])}"
            )
    last = (old if len(old.blocks) < len(new.blocks) else new).blocks[-1][2]
    return f"{count}the same up to {_shown(last)}"


def _line(name: str, size: int) -> bytes:
    return b"%s\0%d\n" % (name.encode("utf-8", "surrogatepass"), size)


class _Recorder:
    """Writes lines and blocks as they come; what becomes too large is let go.

    The format is text under Zstandard: a line an entry (its name, NUL, its size; line ends within names as
    ``\\n``), none if they were let go, and one of JSON at the end.
    """

    def __init__(self) -> None:
        self._sink = pa.BufferOutputStream()
        self._stream: pa.CompressedOutputStream | None = pa.CompressedOutputStream(
            self._sink, "zstd"
        )
        self._num_lines = self._num_chunks = 0
        self._block = hashlib.sha256()
        self._first = self._last = b""
        self._blocks: list[tuple[str, str, str]] = []

    def add(self, lines: list[bytes]) -> None:
        """Some more lines, at most a chunk's, but for those of another listing."""
        if not lines:
            return
        text = b"".join(lines)
        if text.count(b"\n") != len(lines):
            lines = [line[:-1].replace(b"\n", b"\\n") + b"\n" for line in lines]
            text = b"".join(lines)
        self._first = self._first or lines[0]
        self._last = lines[-1]
        self._block.update(text)
        self._num_lines += len(lines)
        self._num_chunks += 1
        if self._num_chunks % _CHUNKS_A_BLOCK == 0:
            self._end_block()
        if self._stream is not None:
            self._stream.write(text)
            if self._sink.tell() > MAX_BYTES:
                self._stream = None

    def finish(self, manifest_hash: str) -> bytes:
        """The listing."""
        if self._first:
            self._end_block()
        end = {
            "manifest_hash": manifest_hash,
            "num_lines": self._num_lines,
            "is_full": self._stream is not None,
            "blocks": self._blocks,
        }
        stream = self._stream
        if stream is None:
            self._sink = pa.BufferOutputStream()
            stream = pa.CompressedOutputStream(self._sink, "zstd")
        stream.write(json.dumps(end).encode() + b"\n")
        stream.close()
        return bytes(self._sink.getvalue())

    def _end_block(self) -> None:
        first, last = (
            _name(line).decode("utf-8", "backslashreplace") for line in (self._first, self._last)
        )
        self._blocks.append((self._block.hexdigest()[:16], first[:_NAME_BYTES], last[:_NAME_BYTES]))
        self._block, self._first = hashlib.sha256(), b""


@dataclass(frozen=True)
class _Listing:
    """A listing opened; see ``_Recorder``."""

    manifest_hash: str
    num_lines: int
    is_full: bool
    blocks: list[tuple[str, str, str]]
    _text: bytes = field(repr=False)

    @classmethod
    def read(cls, content: bytes) -> _Listing:
        with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
            text: bytes = stream.read(_MAX_TEXT)
        start = text.rfind(b"\n", 0, -1) + 1
        end = json.loads(text[start:])
        blocks = [(block[0], block[1], block[2]) for block in end["blocks"]]
        return cls(end["manifest_hash"], end["num_lines"], end["is_full"], blocks, text[:start])

    def lines(self) -> Iterator[bytes]:
        """The entries, without line ends."""
        return (line[:-1] for line in io.BytesIO(self._text))

    def hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """(entries,) int64 each: of the whole lines, and of the names alone; good within this process."""
        lines = np.fromiter(map(hash, self.lines()), np.int64, self.num_lines)
        names = np.fromiter((hash(_name(line)) for line in self.lines()), np.int64, self.num_lines)
        return lines, names

    def name(self, index: int) -> str:
        """An entry's name, for people."""
        return _shown(
            _name(next(islice(self.lines(), index, None))).decode("utf-8", "backslashreplace")
        )


def _name(line: bytes) -> bytes:
    """What comes before the size, or what else tells versions of an entry apart."""
    return line.partition(b"\0")[0]


def _shown(name: str) -> str:
    text = name.encode("unicode_escape").decode() if not name.isprintable() else name
    return text if len(text) <= _NAME_BYTES else f"{text[:_NAME_BYTES]}..."
