"""Images in the rows of Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.errors import SourceError
from qscore_fast.images.sources.file_patterns import matching_files
from qscore_fast.images.sources.file_systems import open_file
from qscore_fast.images.sources.image_columns import ImageColumns
from qscore_fast.images.sources.table_source import Table, TableSource

_BATCH_BYTES = 16 * 2**20
_MAX_BATCH_ROWS = 64


class ParquetSource(TableSource):
    """The rows of Parquet files; a unit is one or more whole row groups of one file.

    The images are in a column of bytes or of Hugging Face's structs of ``bytes`` and ``path``; a row with a
    path and no bytes is the local file there, relative to the Parquet file. A row's id is
    ``FILE#ROWGROUP/ROW`` unless a column of ids is named (and its value is not null); all ids are then
    read once when the source is listed, to find those that occur twice.

    Row groups are read page by page: memory holds one page and a small batch, whatever the row group's size.
    (A writer may put 1,024 images into one page; the format's limit is 2 GiB.)

    A damaged row group has one sample with an error for each row that it lost. A file without a readable
    footer is one sample with an error, whose id is the file's name: it does not stop a run.

    Args:
        location: a file, a folder (all ``.parquet`` below it), a pattern with ``*``, ``**`` or braces
            (``{000..146}``, ``{a,b}``), or a URL of any of these on a file system that fsspec knows.
        column: with the images; by default the only column of bytes, or the one that is named ``image``,
            ``img``, ``bytes``, ``jpg``, ``jpeg``, ``png`` or ``webp``.
        label_column: by default ``label``, ``labels``, ``cls`` or ``class``, if there is one. Hugging Face's
            class labels become the classes' names; other values become text. No class where null, or below
            0 for a class label.
        id_column: with sample ids.

    Raises:
        SourceError: there is no such file, none can be read, or the columns are missing or not clear.
        MissingExtraError: the URL's driver is not installed.
    """

    kind = "parquet"

    def __init__(
        self,
        location: str | os.PathLike[str],
        column: str | None = None,
        label_column: str | None = None,
        id_column: str | None = None,
    ) -> None:
        name = os.fspath(location)
        _, files, num_ignored = matching_files(name, ".parquet")
        if not files:
            raise SourceError(f"no Parquet file in {name} (.parquet, at any depth)")
        super().__init__(name, files, num_ignored, column, label_column, id_column)

    def _open_table(self, filesystem: Any, path: str) -> Any:
        return open_parquet(filesystem, path)


@contextmanager
def open_parquet(filesystem: Any, path: str) -> Iterator[Table]:
    """A Parquet file of an fsspec file system, or of the local disk if that is None."""
    with open_file(filesystem, path) as stream:
        yield _ParquetTable(stream)


class _ParquetTable:
    damage: str | None = None

    def __init__(self, stream: Any) -> None:
        # Read in pieces through a buffer: otherwise a row group's column comes into memory whole.
        self._file = pq.ParquetFile(
            stream, buffer_size=2**20, pre_buffer=False, page_checksum_verification=True
        )
        self._footer = self._file.metadata
        self.schema = self._file.schema_arrow
        groups = range(self._footer.num_row_groups)
        self.rows = [self._footer.row_group(group).num_rows for group in groups]

    def batches(self, group: int, columns: ImageColumns) -> Iterator[pa.RecordBatch]:
        info = self._footer.row_group(group)
        chunks = (info.column(index) for index in range(info.num_columns))
        size = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema.split(".")[0] == columns.image
        )
        rows = _BATCH_BYTES * info.num_rows // max(size, 1)
        return self._read(group, columns.leaves(self.schema), min(max(rows, 1), _MAX_BATCH_ROWS))

    def column(self, group: int, name: str) -> Iterator[pa.RecordBatch]:
        return self._read(group, [name], 8192)

    def _read(self, group: int, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        return self._file.iter_batches(rows, [group], columns, use_threads=False)
