"""ScoreIndex: pages of a run's scores, sorted and filtered, in milliseconds at ten million rows."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qscore_fast.errors import MissingExtraError, StoreError
from qscore_fast.scoring.atomic import replacing

if TYPE_CHECKING:
    import duckdb

VERSION = 1
NAME = ".serve-index.duckdb"
SORTS = {"score": "images", "name": "by_name", "active": "by_active", "norm": "by_norm"}
NUMBERS = ("q_score", "num_active", "num_highly_active", "mean", "std", "l1", "l2")

Sort = Literal["score", "name", "active", "norm"]


@dataclass(frozen=True)
class Query:
    """Which images, in which order.

    Attributes:
        sort: "score", "name" (of the file), "active" (features) or "norm" (L2).
        descending: the largest first.
        label: of this class alone.
        least, most: scores in this range, ends included.
        search: the sample id contains this, in any case.
    """

    sort: Sort = "score"
    descending: bool = False
    label: str | None = None
    least: float | None = None
    most: float | None = None
    search: str = ""


class ScoreIndex:
    """A DuckDB file beside a run's scores, made once: the rows in the order of each key.

    Where a page begins is then counted, not sorted for. Safe to use from many threads.

    Args:
        scores: the run's scores.parquet.
    """

    def __init__(self, scores: Path) -> None:
        """Open the index, or make it; in a temporary folder where the run's cannot be written.

        Raises:
            MissingExtraError: duckdb is not installed.
            StoreError: the scores cannot be read, or the index not be made.
        """
        try:
            import duckdb
        except ImportError:
            raise MissingExtraError("duckdb", "serve") from None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        stamp = _stamp(scores)
        path = scores.with_name(NAME)
        self._connection = _opened(path, stamp)
        if self._connection is None:
            try:
                with replacing(path) as temporary:
                    _build(duckdb, scores, temporary, stamp)
            except StoreError:
                self._temporary = tempfile.TemporaryDirectory(prefix="qscore-serve-")
                path = Path(self._temporary.name) / NAME
                _build(duckdb, scores, path, stamp)
            self._connection = _opened(path, stamp)
        if self._connection is None:
            raise StoreError(f"the index {path} cannot be read back: delete it and try again")
        self._lock = threading.Lock()
        self._known: dict[tuple[Any, ...], int] = {}
        self.labels: list[str] = [
            name for (name,) in self._rows("select name from labels order by code")
        ]
        self.num_rows: int = self._rows("select count(*) from images")[0][0]

    def close(self) -> None:
        """Let go of the file."""
        assert self._connection is not None
        self._connection.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def count(self, query: Query) -> int:
        """How many images a query has."""
        where, values = self._conditions(query)
        if not where:
            return self.num_rows
        key = (query.label, query.least, query.most, query.search)
        if key not in self._known:
            if len(self._known) > 256:
                self._known.clear()
            self._known[key] = self._rows(f"select count(*) from images{where}", values)[0][0]
        return self._known[key]

    def page(self, query: Query, offset: int, limit: int) -> list[dict[str, Any]]:
        """The rows from ``offset`` on, ``limit`` at most, with their row in scores.parquet."""
        total = self.count(query)
        limit = max(0, min(limit, total - offset))
        if not limit:
            return []
        # Backwards from the end is forwards from the other side.
        first = total - offset - limit if query.descending else offset
        where, values = self._conditions(query)
        table = SORTS[query.sort]
        place = "rowid" if table == "images" else "place"
        if where:
            chosen = self._rows(
                f"select {place} from {table}{where} limit {limit} offset {first}", values
            )
        else:
            chosen = self._rows(
                f"select {place} from {table} where rowid between {first} and {first + limit - 1}"
            )
        places = [row[0] for row in chosen]
        found = self.at_places(places)
        ordered = [found[place] for place in places]
        return ordered[::-1] if query.descending else ordered

    def at_places(self, places: list[int]) -> dict[int, dict[str, Any]]:
        """Place by ascending score -> the image."""
        if not places:
            return {}
        columns = ("row", "sample_id", *NUMBERS)
        marks = ", ".join("?" * len(places))
        rows = self._rows(
            f"select images.rowid, name, {', '.join(columns)} from images left join labels "
            f"on images.label = labels.code where images.rowid in ({marks})",
            places,
        )
        return {
            place: {"place": place, "label": label, **dict(zip(columns, rest, strict=True))}
            for place, label, *rest in rows
        }

    def at_row(self, row: int) -> dict[str, Any] | None:
        """The image at a row of scores.parquet."""
        places = self._rows("select rowid from images where row = ?", [row])
        return next(iter(self.at_places([places[0][0]]).values())) if places else None

    def _conditions(self, query: Query) -> tuple[str, list[Any]]:
        parts: list[str] = []
        values: list[Any] = []
        if query.label is not None:
            code = self.labels.index(query.label) if query.label in self.labels else -2
            parts.append("label = ?")
            values.append(code)
        for bound, sign in ((query.least, ">="), (query.most, "<=")):
            if bound is not None:
                parts.append(f"q_score {sign} ?")
                values.append(bound)
        if query.search:
            parts.append("contains(folded, lower(?))")
            values.append(query.search)
        return (" where " + " and ".join(parts) if parts else ""), values

    def _rows(self, text: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        assert self._connection is not None
        with self._lock:
            cursor = self._connection.cursor()
        try:
            return cursor.execute(text, values or []).fetchall()
        finally:
            cursor.close()


def _stamp(scores: Path) -> str:
    """What an index must have been made from to be used."""
    try:
        status = os.stat(scores)
    except OSError as error:
        raise StoreError(f"{scores} cannot be read: {error.strerror}") from error
    return json.dumps([VERSION, status.st_size, status.st_mtime_ns])


def _opened(path: Path, stamp: str) -> duckdb.DuckDBPyConnection | None:
    """The index, read-only; None where it is missing, damaged or of other scores."""
    import duckdb

    if not path.is_file():
        return None
    connection = None
    with suppress(duckdb.Error):
        connection = duckdb.connect(str(path), read_only=True, config=_settings())
        if connection.execute("select stamp from about").fetchone() == (stamp,):
            return connection
    if connection is not None:
        connection.close()
    return None


def _settings() -> dict[str, str | bool | int | float | list[str]]:
    """Of a connection that reads one file and nothing else, without extensions."""
    return {
        "enable_external_access": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "lock_configuration": True,
    }


def _build(duckdb: Any, scores: Path, path: Path, stamp: str) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    spill = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with duckdb.connect(str(path), config={"temp_directory": str(spill)}) as connection:
            _fill(connection, scores)
            connection.execute("create table about as select ? as stamp", [stamp])
            connection.execute("checkpoint")
    except duckdb.Error as error:
        reason = str(error).split("\n")[0]
        raise StoreError(f"no index of {scores} can be made in {path.parent}: {reason}") from error
    finally:
        with suppress(OSError):
            spill.rmdir()
        with suppress(OSError):
            path.with_name(f"{path.name}.wal").unlink()


def _fill(connection: Any, scores: Path) -> None:
    execute = connection.execute
    execute("set preserve_insertion_order = true")
    execute(
        "create temp view source as select *, file_row_number as row "
        f"from read_parquet({_quoted(scores)}, file_row_number = true)"
    )
    execute(
        "create table labels as select cast(row_number() over (order by name) - 1 as integer) as code, "
        "name from (select distinct label as name from source where label is not null)"
    )
    numbers = ", ".join(f"source.{name}" for name in NUMBERS)
    execute(
        "create table images as select cast(source.row as integer) as row, source.sample_id, "
        f"lower(source.sample_id) as folded, coalesce(labels.code, -1) as label, {numbers} "
        "from source left join labels on source.label = labels.name "
        "order by source.q_score, source.row"
    )
    keys = {"by_name": "sample_id", "by_active": "num_active", "by_norm": "l2"}
    for table, key in keys.items():
        execute(
            f"create table {table} as select cast(rowid as integer) as place, label, q_score, folded "
            f"from images order by {key}, row"
        )


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
