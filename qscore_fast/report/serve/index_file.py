"""The DuckDB file beside a run's scores: made once, opened read-only."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qscore_fast.errors import MissingExtraError, StoreError
from qscore_fast.scoring.atomic import replacing

if TYPE_CHECKING:
    import duckdb

VERSION = 1
NAME = ".serve-index.duckdb"
NUMBERS = ("q_score", "num_active", "num_highly_active", "l2")
COLUMNS = ("place", "row", "sample_id", "name", *NUMBERS)
"""Of an image: its place by ascending score, its row in scores.parquet, its id, its class."""


@dataclass(frozen=True)
class IndexFile:
    """An open index.

    Attributes:
        connection: to a database in memory, with the index attached as ``scores``, read-only.
        folder: a temporary one that holds it, where the run's own cannot be written.
    """

    connection: duckdb.DuckDBPyConnection
    folder: tempfile.TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()
        if self.folder is not None:
            self.folder.cleanup()


def open_index(scores: Path) -> IndexFile:
    """Open the index of a scores.parquet; make it where it is missing or of older scores.

    Raises:
        MissingExtraError: duckdb is not installed.
        StoreError: the scores cannot be read, or the index not be made.
    """
    try:
        import duckdb  # noqa: F401
    except ImportError:
        raise MissingExtraError("duckdb", "serve") from None
    stamp = _stamp(scores)
    path = scores.with_name(NAME)
    folder = None
    connection = _opened(path, stamp)
    if connection is None:
        if os.access(scores.parent, os.W_OK):
            with replacing(path) as temporary:
                _build(scores, temporary, stamp)
        else:
            folder = tempfile.TemporaryDirectory(prefix="qscore-serve-")
            path = Path(folder.name) / NAME
            _build(scores, path, stamp)
        connection = _opened(path, stamp)
    if connection is None:
        raise StoreError(f"the index {path} cannot be read back: delete it and try again")
    return IndexFile(connection, folder)


def _stamp(scores: Path) -> str:
    """What an index must have been made from to be used."""
    try:
        status = os.stat(scores)
    except OSError as error:
        raise StoreError(f"{scores} cannot be read: {error.strerror}") from error
    return json.dumps([VERSION, status.st_size, status.st_mtime_ns])


def _opened(path: Path, stamp: str) -> duckdb.DuckDBPyConnection | None:
    """None where the index is missing, damaged or of other scores."""
    import duckdb

    if not path.is_file():
        return None
    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    with suppress(duckdb.Error):
        connection.execute(f"attach {_quoted(path)} as scores (read_only)")
        found = connection.execute("select stamp from scores.about").fetchone()
        # From here on the connection can reach no other file.
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        if found == (stamp,):
            return connection
    connection.close()
    return None


def _build(scores: Path, path: Path, stamp: str) -> None:
    import duckdb

    try:
        with (
            tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-serve-") as spill,
            duckdb.connect(str(path), config={"temp_directory": spill}) as connection,
        ):
            _fill(connection, scores)
            connection.execute("create table about as select ? as stamp", [stamp])
            connection.execute("checkpoint")
    except duckdb.Error as error:
        reason = str(error).split("\n")[0]
        raise StoreError(f"no index of {scores} can be made in {path.parent}: {reason}") from error


def _fill(connection: Any, scores: Path) -> None:
    """The images in the order of each key, and of each class; a page lies together in every one."""
    execute = connection.execute
    execute(
        "create temp view source as select *, file_row_number as row "
        f"from read_parquet({_quoted(scores)}, file_row_number = true)"
    )
    execute(
        "create table labels as select cast(row_number() over (order by name) - 1 as integer) as code, "
        "name from (select distinct label as name from source where label is not null)"
    )
    numbers = ", ".join(f"source.{name}" for name in NUMBERS)
    # A search looks at every name: they are kept as they are, for to unpack them would take longer.
    execute("set force_compression = 'uncompressed'")
    execute(
        "create table images as select cast(row_number() over (order by source.q_score, source.row) - 1 "
        "as integer) as place, cast(source.row as integer) as row, source.sample_id, labels.name, "
        f"{numbers}, coalesce(labels.code, -1) as label, cast(row_number() over (order by "
        "source.sample_id, source.q_score, source.row) - 1 as integer) as name_place, "
        "lower(source.sample_id) as folded "
        "from source left join labels on source.label = labels.name order by place"
    )
    execute("reset force_compression")
    own = ", ".join((*COLUMNS, "label", "folded"))
    for table, key in (("by_name", "sample_id"), ("by_active", "num_active"), ("by_norm", "l2")):
        execute(f"create table {table} as select {own} from images order by {key}, place")
    execute(
        "create table by_label as select place, name_place, q_score, num_active, l2, label, folded "
        "from images order by label, place"
    )
    execute("create table by_row as select place from images order by row")


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
