"""What every source of images offers: work units, listed the same each time, and their samples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from qscore_fast.errors import ImageError
from qscore_fast.images.sources.listing import listed_hash

MAX_IMAGE_BYTES = 256 * 2**20
"""No encoded image is larger; what claims to be is a sample with an error."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Sample:
    """One image of a unit, not decoded yet.

    Exactly one of ``path``, ``content`` and ``error`` is given.

    Attributes:
        sample_id: stable, and unique in its source; UTF-8 text.
        label: its class, where the source knows one.
        path: a local file, the operating system's bytes.
        content: the encoded image.
        error: why there is none; the sample is recorded and left out.
        file_name: what the image's file was called, where the id does not say it and the source does.
    """

    sample_id: str
    label: str | None = None
    path: bytes | None = None
    content: bytes | None = field(default=None, repr=False)
    error: ImageError | None = None
    file_name: str | None = None


@dataclass(frozen=True)
class Unit:
    """What one worker reads from beginning to end, and what makes one part.

    Attributes:
        index: its place in the source's list, from 0.
        name: for people, such as a shard's file name.
        num_samples: where it is known without reading it.
        payload: what the source needs to read it; pickles.
    """

    index: int
    name: str
    num_samples: int | None = None
    payload: Any = field(default=None, repr=False)


class Source(Protocol):
    """Images from anywhere.

    Attributes:
        kind: "folder", "list", "webdataset" and so on.
        location: for people.
        has_labels: whether its samples carry labels.
        num_samples: where it is known without reading everything.
        manifest_hash: SHA-256 (hex) over what is listed (names and sizes, in order). Two listings of an
            unchanged source agree; a changed one differs.
        notes: what was passed over when it was listed -> how many, such as "files of other kinds
            ignored".
    """

    @property
    def kind(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def has_labels(self) -> bool: ...
    @property
    def num_samples(self) -> int | None: ...
    @property
    def manifest_hash(self) -> str: ...
    @property
    def notes(self) -> dict[str, int]: ...

    def units(self, size: int) -> Sequence[Unit]:
        """The work units, in a fixed order.

        Args:
            size: samples a unit, where the source can choose; shards are units of their own.
        """
        ...

    def read(self, unit: Unit) -> Iterator[Sample]:
        """The samples of a unit, in a fixed order; one at a time in memory.

        What is damaged is a Sample with an error, never an exception: a unit that breaks off in the
        middle ends with one such sample, whose id names the unit.
        """
        ...


def is_url(name: str) -> bool:
    """Whether a name is a URL, not a local path."""
    return _URL.match(name) is not None


def manifest_hash(lines: Iterable[tuple[str, int]]) -> str:
    """SHA-256 (hex) over names and sizes in bytes (-1 where unknown), in order."""
    return listed_hash(lines)


def runs(total: int, size: int) -> Iterator[range]:
    """``range(total)`` in runs of ``size``; the last may be shorter."""
    for start in range(0, total, size):
        yield range(start, min(start + size, total))
