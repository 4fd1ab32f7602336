"""A list of image files or URLs: text, CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import os
import posixpath
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain, repeat
from typing import ClassVar

from qscore_fast.errors import ImageError, SourceError
from qscore_fast.images.sample_id import sample_id_of_path
from qscore_fast.images.sources.fetch import fetch
from qscore_fast.images.sources.file_systems import filesystem_of
from qscore_fast.images.sources.in_order import in_order
from qscore_fast.images.sources.list_formats import Blank, Columns, open_list
from qscore_fast.images.sources.look import UNKNOWN, forget_listings, look
from qscore_fast.images.sources.packed_bytes import PackedBytes
from qscore_fast.images.sources.read_ahead import Fetch, read_ahead
from qscore_fast.images.sources.repeats import Repeats
from qscore_fast.images.sources.source import Sample, Unit, is_url, manifest_hash, runs

_FILES_A_LOOK, _URLS_A_LOOK = 4096, 16
_URL = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]+://")


class FileListSource:
    """The image files that a list names, in the list's order.

    ``.txt`` holds one path a line: blank lines are passed over, there are no comments (a file name may
    begin with ``#``), and spaces belong to the path. ``.csv`` and ``.tsv`` have a header; ``.jsonl`` (or
    ``.ndjson``) has one object a line, of which the first shows the columns. These may be compressed
    (``.gz``). In ``.parquet`` the paths are a column of text. Text is UTF-8, with or without a byte order
    mark, and either line end; bytes of a path that are not UTF-8 stay as they are.

    An entry may be a URL of a file system that fsspec knows, such as ``s3://bucket/1.jpg``; up to 16 are
    fetched at the same time. The list may lie at a URL itself, and so may ``root``.

    Without a column of ids a sample's id is its path below ``root``, as in a folder; a path or URL that
    lies elsewhere is its own id.

    An entry is looked for when it is decoded, not before. One without a path, and each one that repeats an
    earlier id, is a Sample with an error.

    Args:
        path: the list, or its URL.
        column: the column of the paths; None: the first there is of path, filepath, file_path, filename,
            file_name and image, in either case.
        root: the folder or URL that relative paths start from; None: that of the list.
        label_column: of the labels; None: label, if there is one.
        id_column: of the sample ids; None: sample_id or id, if there is one.
        sizes: whether the sizes of the files are part of the manifest, and behind URLs of object stores
            their ETags, which takes a look at each of them, 16 at a time. Without, a file that changed is
            not noticed.

    Raises:
        SourceError: the list is missing, unreadable, damaged or empty, lacks a column, or has URLs that
            fsspec does not know; or there is no folder ``root``.
        MissingExtraError: the driver of a URL is not installed.

    Attributes:
        path: the list.
        root: absolute, or a URL.
    """

    kind: ClassVar[str] = "list"

    def __init__(
        self,
        path: str | os.PathLike[str],
        column: str | None = None,
        root: str | os.PathLike[str] | None = None,
        *,
        label_column: str | None = None,
        id_column: str | None = None,
        sizes: bool = True,
    ) -> None:
        self.path = os.fspath(path)
        self.root = _root(self.path, None if root is None else os.fspath(root))
        self._with_sizes = sizes
        self._urls: dict[bytes, str] = {}  # the first of each protocol
        self._paths = PackedBytes()
        self._ids: PackedBytes | None = None
        self._classes: tuple[str, ...] = ()
        self._labels = array("l")  # places in _classes, -1 for none; empty without a column
        self._blank_lines = 0
        self._list(Columns(column, label_column, id_column))
        if not len(self._paths):
            raise SourceError(f"{self.location} lists no file")
        self._repeats = Repeats(self._listed_ids, len(self._paths))

    @property
    def location(self) -> str:
        """The list's path, as text."""
        return self.path.encode("utf-8", "backslashreplace").decode()

    @property
    def has_labels(self) -> bool:
        """Whether any entry has a label."""
        return bool(self._classes)

    def known_classes(self) -> frozenset[str]:
        """The labels that entries have."""
        return frozenset(self._classes)

    @property
    def num_samples(self) -> int:
        """How many entries there are."""
        return len(self._paths)

    @property
    def notes(self) -> dict[str, int]:
        """What was passed over."""
        return {"blank lines": self._blank_lines}

    def units(self, size: int) -> Sequence[Unit]:
        """Runs of ``size`` entries; the last may be shorter."""
        return [
            Unit(index, f"entries {run.start} to {run.stop - 1}", len(run), run)
            for index, run in enumerate(runs(len(self._paths), size))
        ]

    def read(self, unit: Unit) -> Iterator[Sample]:
        """The entries of a unit, by their paths; those behind URLs with their content.

        Raises:
            UnavailableError: a store does not answer.
        """
        if not self._urls:
            yield from map(self._sample, unit.payload)
            return
        fetches = (Fetch(index, self._fetch(self._sample(index))) for index in unit.payload)
        for index, future in read_ahead(fetches):
            sample = self._sample(index)
            if future is not None:
                try:
                    sample = Sample(sample.sample_id, sample.label, content=future.result())
                except ImageError as error:
                    sample = Sample(sample.sample_id, sample.label, error=error)
            yield sample

    def heads(self, unit: Unit) -> Iterator[Sample]:
        """The same without the content of URLs."""
        return map(self._sample, unit.payload)

    @cached_property
    def manifest_hash(self) -> str:
        """SHA-256 (hex) over every id, path, label, tag and size, in order; -1 for sizes that are not known.

        Raises:
            UnavailableError: a store does not answer.
        """
        known = self._looks() if self._with_sizes else repeat(UNKNOWN)
        return manifest_hash(
            (f"{self._listed_id(i)}\0{sample_id_of_path(path)}\0{self._label(i) or ''}{tag}", size)
            for (i, path), (size, tag) in zip(enumerate(self._paths), known, strict=False)
        )

    def _looks(self) -> Iterator[tuple[int, str]]:
        """Size of each entry, and the store's mark of its version, if there is one, after a NUL."""
        forget_listings(self._urls.values())
        entries = runs(len(self._paths), _URLS_A_LOOK if self._urls else _FILES_A_LOOK)
        looks = in_order(partial(self._looks_at, run) for run in entries)
        return chain.from_iterable(looks)

    def _looks_at(self, entries: range) -> list[tuple[int, str]]:
        paths = (self._paths[index] for index in entries)
        return [look(self._place(path)) if path else UNKNOWN for path in paths]

    def _place(self, path: bytes) -> bytes:
        """An entry's path or URL."""
        if _URL.match(path):
            return path
        if is_url(self.root) and not path.startswith(b"/"):
            scheme, _, place = os.fsencode(self.root).partition(b"://")
            # ``..`` has its usual meaning here: there are no links on the way.
            return scheme + b"://" + posixpath.normpath(posixpath.join(place, path))
        return os.path.join(os.fsencode(self.root), path)

    def _sample(self, index: int) -> Sample:
        sample_id, path, label = self._listed_id(index), self._paths[index], self._label(index)
        number = self._repeats.number(index)
        if number is not None:
            error = ImageError(f"an earlier entry of the list has the id {sample_id}", "list")
            return Sample(f"{sample_id}#{number}", label, error=error)
        if not path:
            error = ImageError(f"entry {index + 1} of the list names no file", "list")
            return Sample(sample_id, label, error=error)
        return Sample(sample_id, label, path=self._place(path))

    def _fetch(self, sample: Sample) -> Callable[[], bytes] | None:
        """What fetches an entry; None for a local one."""
        if sample.path is None or not _URL.match(sample.path):
            return None
        return partial(fetch, os.fsdecode(sample.path))

    def _list(self, asked: Columns) -> None:
        root = os.fsencode(self.root).removesuffix(b"/") + b"/"
        places: dict[bytes, int] = {}
        if match := _URL.match(root):
            self._urls[match[0]] = self.root
        with open_list(self.path, asked) as (columns, rows):
            with_labels = columns is not None and columns.label is not None
            if columns is not None and columns.sample_id is not None:
                self._ids = PackedBytes()
            for row in rows:
                if isinstance(row, Blank):
                    self._blank_lines += 1
                    continue
                self._paths.append(self._relative(row.path, root))
                if self._ids is not None:
                    self._ids.append(row.sample_id or b"")
                if with_labels:
                    label = row.label
                    self._labels.append(places.setdefault(label, len(places)) if label else -1)
        self._classes = tuple(_text(label) for label in places)
        for url in self._urls.values():
            filesystem_of(url)  # a driver that is missing shows at once

    def _relative(self, path: bytes | None, root: bytes) -> bytes:
        """Below the root where it lies there, without empty and ``.`` parts; empty: no usable path."""
        if not path or b"\0" in path:
            return b""
        if match := _URL.match(path):
            self._urls.setdefault(match[0], os.fsdecode(path))
            return path.removeprefix(root)
        if b"//" in path or b"./" in path:
            # No ``..`` is resolved: behind a symbolic link it means something else.
            parts = [part for part in path.split(b"/") if part not in (b"", b".")]
            path = b"/" * path.startswith(b"/") + b"/".join(parts)
        return path.removeprefix(root)

    def _label(self, index: int) -> str | None:
        place = self._labels[index] if self._labels else -1
        return None if place < 0 else self._classes[place]

    def _listed_ids(self) -> Iterator[str]:
        return map(self._listed_id, range(self.num_samples))

    def _listed_id(self, index: int) -> str:
        """The id before it is made unique."""
        if self._ids is not None and (given := self._ids[index]):
            return _text(given)
        if path := self._paths[index]:
            return sample_id_of_path(path)
        return f"{sample_id_of_path(os.fsencode(os.path.basename(self.path)))}#{index + 1}"


def _root(path: str, root: str | None) -> str:
    """The folder of relative paths, absolute, or a URL."""
    if root is not None and not is_url(root):
        if not os.path.isdir(root):
            shown = path.encode("utf-8", "backslashreplace").decode()
            raise SourceError(f"there is no folder {root} for the paths of {shown}")
        return os.path.abspath(root)
    if root is None and is_url(path):
        root = path.rpartition("/")[0]
    return os.path.abspath(os.path.dirname(path)) if root is None else root.rstrip("/")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
