"""Images in a folder that Hugging Face's ``datasets`` saved."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa

from qscore_fast.errors import SourceError
from qscore_fast.images.sources.file_systems import ListedFile, list_files
from qscore_fast.images.sources.image_columns import ImageColumns
from qscore_fast.images.sources.parquet import open_parquet
from qscore_fast.images.sources.table_source import Table, TableSource


class HFDatasetSource(TableSource):
    """The rows of a saved data set; a unit is one or more whole record batches of one file.

    The folder is what ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote (all splits; give a
    split's own folder for that one), a folder of Arrow files of the library's cache, or a folder of Parquet
    files as on its hub, which is read as by ``ParquetSource``. Arrow files are mapped into memory.

    Ids are ``FILE#BATCH/ROW``, with the file's path below the folder. A file that breaks off ends with one
    sample with an error, whose id is the file's name.

    Args:
        folder: a local folder.
        column, label_column, id_column: as for ``ParquetSource``.

    Raises:
        SourceError: there is no such folder, it holds no data set, or the columns are not clear.
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
        if not os.path.isdir(name):
            raise SourceError(f"there is no folder {name}: give one that datasets saved")
        files, num_ignored = _arrow_files(name)
        if not files:
            _, files, num_ignored = list_files(name, ".parquet")
        if not files:
            raise SourceError(f"no data set in {name}: it has no .arrow and no .parquet file")
        super().__init__(name, files, num_ignored, column, label_column, id_column)

    def _open_table(self, filesystem: Any, path: str) -> Any:
        return open_parquet(None, path) if path.lower().endswith(".parquet") else _open_arrow(path)


def _arrow_files(folder: str) -> tuple[list[ListedFile], int]:
    """Those that the state of each split names, in its order; without one, all but cached results."""
    _, files, num_ignored = list_files(folder, ".arrow")
    by_path = {os.path.normpath(file.path): file for file in files}
    states = _splits(folder)
    if not states:
        kept = [file for file in files if not _last(file).startswith(b"cache-")]
        return kept, num_ignored + len(files) - len(kept)
    named: list[ListedFile] = []
    for split in states:
        for path in _state_files(os.path.join(folder, split)):
            missing = ListedFile(os.fsencode(os.path.relpath(path, folder)), path, -1)
            named.append(by_path.get(os.path.normpath(path), missing))
    named = [replace(file, name=file.name.replace(os.sep.encode(), b"/")) for file in named]
    return named, num_ignored + len(files) - len(by_path.keys() & {_normal(f) for f in named})


def _splits(folder: str) -> list[str]:
    """The folders with a state, relative; none where there is no state."""
    if os.path.isfile(os.path.join(folder, "state.json")):
        return [""]
    if not os.path.isfile(os.path.join(folder, "dataset_dict.json")):
        return []
    splits = _json(os.path.join(folder, "dataset_dict.json")).get("splits")
    if not isinstance(splits, list) or not all(_is_name(split) for split in splits):
        raise SourceError(f"{folder}: dataset_dict.json names no splits: save the data set again")
    return splits


def _state_files(folder: str) -> list[str]:
    try:
        names = [
            entry["filename"] for entry in _json(os.path.join(folder, "state.json"))["_data_files"]
        ]
    except (KeyError, TypeError):
        names = [None]
    if not all(_is_name(name) for name in names):
        raise SourceError(f"{folder}: state.json names no data files: save the data set again")
    return [os.path.join(folder, name) for name in names]


def _json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    return value if isinstance(value, dict) else {}


def _is_name(name: Any) -> bool:
    """Whether it is the name of something in a folder, which leads nowhere else."""
    plain = isinstance(name, str) and name not in ("", ".", "..")
    return plain and not any(sign in name for sign in "/\\\0:")


def _last(file: ListedFile) -> bytes:
    return file.name.rpartition(b"/")[2]


def _normal(file: ListedFile) -> str:
    return os.path.normpath(file.path)


@contextmanager
def _open_arrow(path: str) -> Iterator[Table]:
    with pa.memory_map(os.fsencode(path)) as stream:
        yield _ArrowTable(stream)


class _ArrowTable:
    """An Arrow stream or file. Batches are found one after the other; their content is not touched."""

    def __init__(self, stream: Any) -> None:
        self.damage: str | None = None
        self._batches: list[pa.RecordBatch] = []
        if stream.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(stream)
            self.schema = reader.schema
            self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        else:
            stream.seek(0)
            reader = pa.ipc.open_stream(stream)
            self.schema = reader.schema
            try:
                self._batches.extend(reader)
            except (OSError, pa.ArrowException) as error:
                self.damage = f"the file breaks off: {error}"
        self.rows = [batch.num_rows for batch in self._batches]

    def batches(self, group: int, columns: ImageColumns) -> Iterator[pa.RecordBatch]:
        yield self._batches[group]

    def column(self, group: int, name: str) -> Iterator[pa.RecordBatch]:
        yield self._batches[group].select([name])
