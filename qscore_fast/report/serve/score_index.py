"""ScoreIndex: pages of a run's scores, sorted and filtered, in milliseconds at ten million rows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qscore_fast.report.serve.index_file import COLUMNS, open_index

Sort = Literal["score", "name", "active", "norm"]
TABLES = {"score": "images", "name": "by_name", "active": "by_active", "norm": "by_norm"}
KEYS = {
    "score": "place",
    "name": "name_place",
    "active": "num_active, place",
    "norm": "l2, place",
}
FOUND = "place, name_place, q_score, num_active, l2, label"
"""Of what a search found: what it can be sorted and filtered by."""
MOST_MATCHES = 100_000
"""Of a search, that are kept; what matches more often is found again page by page."""
KEPT_SEARCHES = 16
SMALLEST_WINDOW, LARGEST_WINDOW = 2**17, 2**20
"""Rows of an order that are looked through at a time."""
NAMES = ", ".join(COLUMNS)


@dataclass(frozen=True)
class Query:
    """Which images, in which order.

    Attributes:
        sort: "score", "name" (of the file), "active" (features) or "norm" (L2).
        descending: the largest first.
        label: of the class of this code alone.
        least, most: scores in this range, ends included.
        search: the sample id contains this, in any case.
    """

    sort: Sort = "score"
    descending: bool = False
    label: int | None = None
    least: float | None = None
    most: float | None = None
    search: str = ""


class ScoreIndex:
    """The index of a run's scores; safe to use from many threads.

    Every order lies on the disk, so that where a page begins is counted, not sorted for; so does each
    class by itself. What a search found is kept.

    Args:
        scores: the run's scores.parquet.

    Raises:
        MissingExtraError: duckdb is not installed.
        StoreError: the scores cannot be read, or the index not be made.
    """

    def __init__(self, scores: Path) -> None:
        self._file = open_index(scores)
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, tuple[Any, ...]], int] = {}
        self._matches: OrderedDict[str, str | None] = OrderedDict()
        self._num_searches = 0
        self.labels: list[str] = [
            name for (name,) in self._rows("select name from labels order by code")
        ]
        self.num_rows: int = self._rows("select count(*) from images")[0][0]
        # What every search looks at, in memory before the first one.
        self._rows("select count(*) from images where contains(folded, '\n')")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def count(self, query: Query) -> int:
        """How many images a query has."""
        return self._counted(*self._plan(query))

    def page(self, query: Query, offset: int, limit: int) -> list[dict[str, Any]]:
        """The rows from ``offset`` on, ``limit`` at most, with their row in scores.parquet."""
        table, where, values = self._plan(query)
        total = self._counted(table, where, values)
        limit = max(0, min(limit, total - offset))
        if not limit:
            return []
        # Backwards from the end is forwards from the other side.
        first = total - offset - limit if query.descending else offset
        if table != "images":
            return self._sorted(table, where, values, query, first, limit)
        order = TABLES[query.sort]
        if where:
            return self._filtered(order, where, values, offset, limit, query.descending)
        inside = f"rowid between {first} and {first + limit - 1}"
        found = self._images(f"select {NAMES} from {order} where {inside}", [])
        return found[::-1] if query.descending else found

    def _filtered(
        self, table: str, where: str, values: list[Any], skip: int, limit: int, backwards: bool
    ) -> list[dict[str, Any]]:
        """What the conditions leave of an order, looked through from one end as far as needed."""
        found: list[dict[str, Any]] = []
        low, high, window = 0, self.num_rows, SMALLEST_WINDOW
        while len(found) < limit and low < high:
            start, stop = (max(low, high - window), high) if backwards else (low, low + window)
            inside = f"{where} and rowid >= {start} and rowid < {stop}"
            count = self._rows(f"select count(*) from {table}{inside}", values)[0][0]
            take = min(limit - len(found), max(0, count - skip))
            if take:
                first = count - skip - take if backwards else skip
                page = self._images(
                    f"select {NAMES} from {table}{inside} limit {take} offset {first}", values
                )
                found += page[::-1] if backwards else page
            skip = max(0, skip - count)
            low, high = (low, start) if backwards else (stop, high)
            window = min(2 * window, LARGEST_WINDOW)
        return found

    def _sorted(
        self, table: str, where: str, values: list[Any], query: Query, first: int, limit: int
    ) -> list[dict[str, Any]]:
        """A page of a class or of what a search found, which are sorted when they are asked for."""
        chosen = self._rows(
            f"select place from {table}{where} order by {KEYS[query.sort]} limit {limit} offset {first}",
            values,
        )
        places = [place for (place,) in chosen]
        # One row each, by its place: together they would be looked for in all rows.
        each = " union all ".join(f"select {NAMES} from images where rowid = {p}" for p in places)
        found = {image["place"]: image for image in self._images(each, [])}
        return [found[place] for place in (places[::-1] if query.descending else places)]

    def at_row(self, row: int) -> dict[str, Any] | None:
        """The image at a row of scores.parquet."""
        place = self._rows("select place from by_row where rowid = ?", [row])
        if not place:
            return None
        return self._images(f"select {NAMES} from images where rowid = {place[0][0]}", [])[0]

    def _plan(self, query: Query) -> tuple[str, str, list[Any]]:
        """The table to read, and the conditions that are left; "images" stands for any order of all."""
        parts: list[str] = []
        values: list[Any] = []
        if query.label is not None:
            parts.append("label = ?")
            values.append(query.label)
        for bound, sign in ((query.least, ">="), (query.most, "<=")):
            if bound is not None:
                parts.append(f"q_score {sign} ?")
                values.append(bound)
        table = "images" if query.label is None else "by_label"
        if query.search:
            found = self._search(query.search) if query.label is None else None
            if found is not None:
                table = found
            else:
                parts.append("contains(folded, lower(?))")
                values.append(query.search)
        return table, " where " + " and ".join(parts) if parts else "", values

    def _search(self, text: str) -> str | None:
        """The table of what a search found; None where that is too much."""
        with self._lock:
            if text in self._matches:
                self._matches.move_to_end(text)
                return self._matches[text]
            self._num_searches += 1
            table = f"memory.main.found_{self._num_searches}"
            self._execute(
                f"create table {table} as select {FOUND} from images "
                f"where contains(folded, lower(?)) limit {MOST_MATCHES + 1}",
                [text],
            )
            many = self._execute(f"select count(*) from {table}", [])[0][0] > MOST_MATCHES
            if many:
                self._execute(f"drop table {table}", [])
            self._matches[text] = None if many else table
            while len(self._matches) > KEPT_SEARCHES:
                _, old = self._matches.popitem(last=False)
                if old is not None:
                    self._execute(f"drop table {old}", [])
            return self._matches[text]

    def _counted(self, table: str, where: str, values: list[Any]) -> int:
        key = (f"{table}{where}", tuple(values))
        if key not in self._counts:
            if len(self._counts) > 256:
                self._counts.clear()
            self._counts[key] = self._rows(f"select count(*) from {table}{where}", values)[0][0]
        return self._counts[key]

    def _images(self, text: str, values: list[Any]) -> list[dict[str, Any]]:
        return [dict(zip(COLUMNS, row, strict=True)) for row in self._rows(text, values)]

    def _rows(self, text: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        return self._execute(text, values or [])

    def _execute(self, text: str, values: list[Any]) -> list[tuple[Any, ...]]:
        cursor = self._file.connection.cursor()
        try:
            cursor.execute("use scores")
            return cursor.execute(text, values).fetchall()
        finally:
            cursor.close()
