"""Images in a folder that Hugging Face's ``datasets`` saved."""

from __future__ import annotations

import json
import os
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa

from qscore_fast.errors import SourceError, UnavailableError
from qscore_fast.images.sources.arrow_messages import (
    BATCH,
    DICTIONARY,
    SCHEMA,
    Message,
    messages,
    read_batch,
    read_schema,
)
from qscore_fast.images.sources.file_systems import (
    ListedFile,
    filesystem_of,
    is_file,
    is_folder,
    list_files,
    open_file,
    open_place,
)
from qscore_fast.images.sources.image_columns import ImageColumns
from qscore_fast.images.sources.parquet import open_parquet
from qscore_fast.images.sources.table_source import Table, TableSource

MAX_JSON_BYTES = 2**26


class HFDatasetSource(TableSource):
    """The rows of a saved data set; a unit is one or more whole record batches of one file.

    The folder is what ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote (all splits; give a
    split's own folder for that one), a folder of Arrow files of the library's cache, or a folder of Parquet
    files as on its hub, which is read as by ``ParquetSource``. Arrow files on a disk are
    mapped into memory; of those behind a URL a record batch is read at a time, whole, also where only labels
    are asked for.

    Ids are ``FILE#BATCH/ROW``, with the file's path below the folder. A file that breaks off ends with one
    sample with an error, whose id is the file's name.

    Args:
        folder: a path, or a URL of a file system that fsspec knows.
        column, label_column, id_column: as for ``ParquetSource``.

    Raises:
        SourceError: there is no such folder, it holds no data set, or the columns are not clear.
        MissingExtraError: the URL's driver is not installed.
    """

    kind = "hf_dataset"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        column: str | None = None,
        label_column: str | None = None,
        id_column: str | None = None,
    ) -> None:
        name = os.fspath(folder)
        if not is_folder(name):
            raise SourceError(f"there is no folder {name}: give one that datasets saved")
        files, num_ignored = _arrow_files(name)
        if not files:
            _, files, num_ignored = list_files(name, ".parquet")
        if not files:
            raise SourceError(f"no data set in {name}: it has no .arrow and no .parquet file")
        super().__init__(name, files, num_ignored, column, label_column, id_column)

    def _open_table(self, filesystem: Any, path: str) -> Any:
        if path.lower().endswith(".parquet"):
            return open_parquet(filesystem, path)
        return _mapped_arrow(path) if filesystem is None else _streamed_arrow(filesystem, path)


def _arrow_files(folder: str) -> tuple[list[ListedFile], int]:
    """Those that the state of each split names, in its order; without one, all but cached results."""
    filesystem, files, num_ignored = list_files(folder, ".arrow")
    states = _splits(folder)
    if not states:
        kept = [file for file in files if not _last(file).startswith(b"cache-")]
        return kept, num_ignored + len(files) - len(kept)
    root = folder if filesystem is None else filesystem_of(folder)[1]
    by_name = {file.name: file for file in files}
    named: list[ListedFile] = []
    for split in states:
        for name in _state_files(folder, split):
            missing = ListedFile(os.fsencode(name), os.path.join(root, name), -1)
            named.append(by_name.get(missing.name, missing))
    return named, num_ignored + len(by_name.keys() - {file.name for file in named})


def _splits(folder: str) -> list[str]:
    """The folders with a state, relative; none where there is no state."""
    if is_file(os.path.join(folder, "state.json")):
        return [""]
    if not is_file(os.path.join(folder, "dataset_dict.json")):
        return []
    splits = _json(os.path.join(folder, "dataset_dict.json")).get("splits")
    if not isinstance(splits, list) or not all(_is_name(split) for split in splits):
        raise SourceError(f"{folder}: dataset_dict.json names no splits: save the data set again")
    return splits


def _state_files(folder: str, split: str) -> list[str]:
    """The files of a split, by their paths below the folder."""
    place = os.path.join(folder, split)
    try:
        names = [
            entry["filename"] for entry in _json(os.path.join(place, "state.json"))["_data_files"]
        ]
    except (KeyError, TypeError):
        names = [None]
    if not all(_is_name(name) for name in names):
        raise SourceError(f"{place}: state.json names no data files: save the data set again")
    return [posixpath.join(split, name) for name in names]


def _json(path: str) -> dict[str, Any]:
    try:
        with open_place(path) as file:
            value = json.loads(file.read(MAX_JSON_BYTES))
    except UnavailableError as error:
        raise SourceError(f"cannot read {path}: {error.args[0]}") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    return value if isinstance(value, dict) else {}


def _is_name(name: Any) -> bool:
    """Whether it is the name of something in a folder, which leads nowhere else."""
    plain = isinstance(name, str) and name not in ("", ".", "..")
    return plain and not any(sign in name for sign in "/\\\0:")


def _last(file: ListedFile) -> bytes:
    return file.name.rpartition(b"/")[2]


@contextmanager
def _mapped_arrow(path: str) -> Iterator[Table]:
    with pa.memory_map(os.fsencode(path)) as stream:
        yield _MappedTable(stream)


@contextmanager
def _streamed_arrow(filesystem: Any, path: str) -> Iterator[Table]:
    with open_file(filesystem, path) as stream:
        yield _StreamedTable(stream)


class _ArrowTable(ABC):
    """An Arrow stream or file."""

    def __init__(self, schema: pa.Schema, rows: list[int], damage: str | None) -> None:
        self.schema, self.rows, self.damage = schema, rows, damage

    @abstractmethod
    def _batch(self, group: int) -> pa.RecordBatch: ...

    def batches(self, group: int, columns: ImageColumns) -> Iterator[pa.RecordBatch]:
        yield self._batch(group)

    def column(self, group: int, name: str) -> Iterator[pa.RecordBatch]:
        yield self._batch(group).select([name])


class _MappedTable(_ArrowTable):
    """On a disk. Batches are found one after the other; their content is not touched."""

    def __init__(self, stream: Any) -> None:
        damage: str | None = None
        self._batches: list[pa.RecordBatch] = []
        if stream.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(stream)
            self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        else:
            stream.seek(0)
            reader = pa.ipc.open_stream(stream)
            try:
                self._batches.extend(reader)
            except (OSError, pa.ArrowException) as error:
                damage = f"the file breaks off: {error}"
        super().__init__(reader.schema, [batch.num_rows for batch in self._batches], damage)

    def _batch(self, group: int) -> pa.RecordBatch:
        return self._batches[group]


class _StreamedTable(_ArrowTable):
    """Behind a URL. A batch is read when it is asked for, whole."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        damage: str | None = None
        found: list[Message] = []
        try:
            found.extend(messages(stream))
        except ValueError as error:
            damage = f"the file breaks off: {error}"
        if not found or found[0].kind != SCHEMA:
            raise ValueError(damage or "no Arrow stream: it does not begin with a schema")
        self._of_batches = [m for m in found if m.kind == BATCH]
        self._others = [m for m in found if m.kind in (SCHEMA, DICTIONARY)]
        schema = read_schema(stream, found[0])
        super().__init__(schema, [batch.rows for batch in self._of_batches], damage)

    def _batch(self, group: int) -> pa.RecordBatch:
        batch = self._of_batches[group]
        before = [other for other in self._others if other.start < batch.start]
        return read_batch(self._stream, before, batch)
