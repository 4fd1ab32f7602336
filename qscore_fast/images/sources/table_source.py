"""Images in the rows of tables: what Parquet and Arrow files have in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, repeat
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from qscore_fast.errors import ImageError, SourceError
from qscore_fast.images.outage import raise_outage
from qscore_fast.images.sample_id import sample_id_of_path
from qscore_fast.images.sources.file_systems import ListedFile, filesystem_of, is_url
from qscore_fast.images.sources.image_columns import (
    ImageColumns,
    find_columns,
    samples_of_batch,
    texts,
)
from qscore_fast.images.sources.in_order import in_order
from qscore_fast.images.sources.repeats import Repeats
from qscore_fast.images.sources.source import Sample, Unit, manifest_hash

_FILES_AT_ONCE = 8
# ArrowInvalid and bad text are ValueErrors.
_DAMAGE = (OSError, pa.ArrowException, ValueError, KeyError, MemoryError, EOFError)


class Table(Protocol):
    """An open file.

    Attributes:
        schema: its columns.
        rows: how many rows each group has.
        damage: why there is nothing after the last group; None if the file is whole.
    """

    @property
    def schema(self) -> pa.Schema: ...
    @property
    def rows(self) -> Sequence[int]: ...
    @property
    def damage(self) -> str | None: ...

    def batches(self, group: int, columns: ImageColumns) -> Iterator[pa.RecordBatch]:
        """A group's rows in order, in batches that fit in memory."""
        ...

    def column(self, group: int, name: str) -> Iterator[pa.RecordBatch]:
        """One column of a group, of small values."""
        ...


@dataclass(frozen=True)
class _File:
    sample_id: str
    path: str
    rows: tuple[int, ...]
    damage: str | None
    first_row: int

    @property
    def num_samples(self) -> int:
        return sum(self.rows) + (self.damage is not None)


_GroupReader = Callable[[Table, _File, int], Iterator[Sample]]


class TableSource(ABC):
    """Listed files, cut at their groups of rows. See the classes that derive from it."""

    kind: ClassVar[str]

    def __init__(
        self,
        location: str,
        files: Sequence[ListedFile],
        num_ignored: int,
        column: str | None,
        label_column: str | None,
        id_column: str | None,
    ) -> None:
        self._name = location
        schemas: list[pa.Schema] = []
        self._files: list[_File] = []
        first_row = 0
        looks = in_order((partial(self._look, file) for file in files), _FILES_AT_ONCE)
        for listed, (schema, rows, damage) in zip(files, looks, strict=True):
            if schema is not None and not schemas:
                schemas.append(schema)
            sample_id = sample_id_of_path(listed.name)
            self._files.append(_File(sample_id, listed.path, rows, damage, first_row))
            first_row += sum(rows)
        if not schemas:
            raise SourceError(
                f"no file of {location} can be read; the first: {self._files[0].damage}"
            )
        if not first_row:
            raise SourceError(f"{location} holds no row: give files with images")
        self._columns = find_columns(schemas[0], location, column, label_column, id_column)
        self.has_labels = self._columns.label is not None
        self.num_samples = sum(file.num_samples for file in self._files)
        self.notes = {
            "files of other kinds ignored": num_ignored,
            "damaged files": sum(file.damage is not None for file in self._files),
        }
        chosen = (self._columns.image, self._columns.label, self._columns.id)
        listed_lines = ((f"{sample_id_of_path(f.name)}\0{f.tag}", f.size) for f in files)
        self.manifest_hash = manifest_hash([(repr(chosen), -1), *listed_lines])
        self._repeats: Repeats | None = None
        if id_column is not None:
            self._repeats = Repeats(self._ids, first_row)

    @property
    def location(self) -> str:
        """What was listed, as text."""
        return self._name.encode("utf-8", "backslashreplace").decode()

    def units(self, size: int) -> Sequence[Unit]:
        """Whole groups of one file, as many as come to ``size`` rows at most, but at least one."""
        units: list[Unit] = []
        for number, file in enumerate(self._files):
            counts = [*file.rows, 1] if file.damage is not None else list(file.rows)
            start = 0
            while start < len(counts):
                stop, rows = start + 1, counts[start]
                while stop < len(counts) and rows + counts[stop] <= size:
                    rows += counts[stop]
                    stop += 1
                if rows:
                    name = f"{file.sample_id}#{start}-{stop - 1}"
                    units.append(Unit(len(units), name, rows, (number, start, stop)))
                start = stop
        return units

    def read(self, unit: Unit) -> Iterator[Sample]:
        """The rows of a unit; those of a damaged group are errors from where it breaks off."""
        return self._numbered(unit, self._contents)

    def heads(self, unit: Unit) -> Iterator[Sample]:
        """The same rows without images: of the files, labels and ids alone are read."""
        return self._numbered(unit, self._labels_and_ids)

    def known_classes(self) -> frozenset[str] | None:
        """The labels that rows have, which are read; None where some of them cannot be read."""
        if self._columns.label is None:
            return frozenset()
        found: set[str] = set()
        of_files = (partial(self._labels_of, file) for file in self._files)
        for labels in in_order(of_files, _FILES_AT_ONCE):
            if labels is None:
                return None
            found |= labels
        return frozenset(found)

    def _labels_of(self, file: _File) -> set[str] | None:
        if file.damage is not None:
            return None
        found: set[str | None] = set()
        try:
            with self._open(file.path) as table:
                for group in range(len(file.rows)):
                    found.update(self._values(table, group, self._columns.label))
        except _DAMAGE:
            return None
        return {label for label in found if label is not None}

    def _values(self, table: Table, group: int, name: str | None) -> Iterator[str | None]:
        """A column's values as text, None for ever without a column."""
        if name is None:
            return repeat(None)
        names = self._columns.class_names if name == self._columns.label else ()
        return chain.from_iterable(texts(batch, name, names) for batch in table.column(group, name))

    def _numbered(self, unit: Unit, of_group: _GroupReader) -> Iterator[Sample]:
        """The rows of a unit; an id that comes again becomes an error with a number of its own."""
        number, start, stop = unit.payload
        file = self._files[number]
        position = file.first_row + sum(file.rows[:start])
        for sample in self._read_groups(file, range(start, stop), of_group):
            again = self._repeats.number(position) if self._repeats else None
            if again is not None and not (file.damage and sample.sample_id == file.sample_id):
                error = ImageError(f"a second sample of the id {sample.sample_id}", "read")
                sample = Sample(f"{sample.sample_id}#{again}", sample.label, error=error)
            yield sample
            position += 1

    def _read_groups(self, file: _File, groups: range, of_group: _GroupReader) -> Iterator[Sample]:
        whole = [group for group in groups if group < len(file.rows)]
        table, reason = None, "the file has changed since it was listed"
        with ExitStack() as stack:
            try:
                if whole:
                    table = stack.enter_context(self._open(file.path))
            except _DAMAGE as error:
                raise_outage(error)
                reason = f"cannot be read: {error}"
            for group in whole:
                samples: Iterator[Sample] = iter(())
                if table is not None:
                    samples = _until_damage(of_group(table, file, group), file, group)
                done = 0
                for sample in islice(samples, file.rows[group]):
                    yield sample
                    done += 1
                yield from _lost(file, group, done, reason)
        if len(whole) < len(groups):
            yield Sample(file.sample_id, error=ImageError(str(file.damage), "read"))

    def _contents(self, table: Table, file: _File, group: int) -> Iterator[Sample]:
        folder = None if is_url(self._name) else os.path.dirname(file.path)
        done = 0
        for batch in table.batches(group, self._columns):
            row_id = partial(_row_id, file, group, done)
            for sample in samples_of_batch(batch, self._columns, row_id, folder):
                yield sample
                done += 1

    def _labels_and_ids(self, table: Table, file: _File, group: int) -> Iterator[Sample]:
        labels = self._values(table, group, self._columns.label)
        ids = self._values(table, group, self._columns.id)
        for row, label, own_id in zip(range(file.rows[group]), labels, ids, strict=False):
            yield Sample(_row_id(file, group, 0, row) if own_id is None else own_id, label)

    def _look(self, listed: ListedFile) -> tuple[pa.Schema | None, tuple[int, ...], str | None]:
        try:
            with self._open(listed.path) as table:
                return table.schema, tuple(table.rows), table.damage
        except _DAMAGE as error:
            raise_outage(error)
            return None, (), f"cannot be read: {error}"

    def _open(self, path: str) -> AbstractContextManager[Table]:
        filesystem = filesystem_of(self._name)[0] if is_url(self._name) else None
        return self._open_table(filesystem, path)

    @abstractmethod
    def _open_table(self, filesystem: Any, path: str) -> AbstractContextManager[Table]: ...

    def _ids(self) -> Iterator[str]:
        """The id of every row, in order; the row's number where it cannot be read."""
        name = self._columns.id
        assert name is not None
        for file in self._files:
            for group, rows in enumerate(file.rows):
                done = 0
                try:
                    with self._open(file.path) as table:
                        for batch in table.column(group, name):
                            for text in texts(batch, name):
                                yield _row_id(file, group, 0, done) if text is None else text
                                done += 1
                except _DAMAGE:
                    pass
                for row in range(done, rows):
                    yield _row_id(file, group, 0, row)


def _until_damage(samples: Iterator[Sample], file: _File, group: int) -> Iterator[Sample]:
    """A group's samples; what is wrong in it ends it, not the groups after it."""
    done = 0
    try:
        for sample in samples:
            yield sample
            done += 1
    except _DAMAGE as error:
        raise_outage(error)
        yield from _lost(file, group, done, f"the group of rows is damaged: {error}")


def _row_id(file: _File, group: int, first: int, row: int) -> str:
    return f"{file.sample_id}#{group}/{first + row}"


def _lost(file: _File, group: int, done: int, reason: str) -> Iterator[Sample]:
    for row in range(done, file.rows[group]):
        yield Sample(_row_id(file, group, 0, row), error=ImageError(reason, "read"))
