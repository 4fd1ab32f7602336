"""A list of image files: text, CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import ClassVar

from qscore_fast.errors import ImageError, SourceError
from qscore_fast.images.sample_id import sample_id_of_path
from qscore_fast.images.sources.list_formats import Blank, Columns, open_list
from qscore_fast.images.sources.packed_bytes import PackedBytes
from qscore_fast.images.sources.repeats import Repeats
from qscore_fast.images.sources.source import Sample, Unit, manifest_hash, runs

_URL = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]+://")


class FileListSource:
    """The image files that a list names, in the list's order.

    ``.txt`` holds one path a line: blank lines are passed over, there are no comments (a file name may
    begin with ``#``), and spaces belong to the path. ``.csv`` and ``.tsv`` have a header; ``.jsonl`` (or
    ``.ndjson``) has one object a line, of which the first shows the columns. These may be compressed
    (``.gz``). In ``.parquet`` the paths are a column of text. Text is UTF-8, with or without a byte order
    mark, and either line end; bytes of a path that are not UTF-8 stay as they are.

    Without a column of ids a sample's id is its path below ``root``, as in a folder; a path that lies
    elsewhere is its own id.

    A file is looked for when it is decoded, not before. An entry without a path, and each one that repeats
    an earlier id, is a Sample with an error.

    Args:
        path: the list.
        column: the column of the paths; None: the first there is of path, filepath, file_path, filename,
            file_name and image, in either case.
        root: the folder that relative paths start from; None: that of the list.
        label_column: of the labels; None: label, if there is one.
        id_column: of the sample ids; None: sample_id or id, if there is one.

    Raises:
        SourceError: the list is missing, unreadable, damaged or empty, lacks a column, or holds URLs; or
            there is no folder ``root``.

    Attributes:
        path: the list.
        root: absolute.
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
    ) -> None:
        self.path = os.fspath(path)
        if root is not None and not os.path.isdir(root):
            raise SourceError(
                f"there is no folder {os.fspath(root)} for the paths of {self.location}"
            )
        self.root = os.path.abspath(os.path.dirname(self.path) if root is None else os.fspath(root))
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
        """The entries of a unit, by their paths."""
        root = os.fsencode(self.root)
        for index in unit.payload:
            sample_id, path, label = self._listed_id(index), self._paths[index], self._label(index)
            number = self._repeats.number(index)
            if number is not None:
                error = ImageError(f"an earlier entry of the list has the id {sample_id}", "list")
                yield Sample(f"{sample_id}#{number}", label, error=error)
            elif not path:
                error = ImageError(f"entry {index + 1} of the list names no file", "list")
                yield Sample(sample_id, label, error=error)
            else:
                yield Sample(sample_id, label, path=os.path.join(root, path))

    @cached_property
    def manifest_hash(self) -> str:
        """SHA-256 (hex) over every id, path and label, in order; sizes are not looked up."""
        return manifest_hash(
            (f"{self._listed_id(i)}\0{sample_id_of_path(path)}\0{self._label(i) or ''}", -1)
            for i, path in enumerate(self._paths)
        )

    def _list(self, asked: Columns) -> None:
        root = os.fsencode(self.root).removesuffix(b"/") + b"/"
        places: dict[bytes, int] = {}
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

    def _relative(self, path: bytes | None, root: bytes) -> bytes:
        """Below the root where it lies there, without empty and ``.`` parts; empty: no usable path."""
        if not path or b"\0" in path:
            return b""
        if _URL.match(path):
            raise SourceError(
                f"entry {len(self._paths) + 1} of {self.location} is a URL, {_text(path)[:100]}: a list "
                "names local files"
            )
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


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
