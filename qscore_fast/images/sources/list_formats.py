"""The formats of a list of files, as rows of bytes."""

from __future__ import annotations

import csv as python_csv
import difflib
import gzip
import io
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from qscore_fast.errors import SourceError
from qscore_fast.images.sources.file_systems import open_binary
from qscore_fast.images.sources.source import is_url

PATH_COLUMNS = ("path", "filepath", "file_path", "filename", "file_name", "image")
LABEL_COLUMNS = ("label",)
ID_COLUMNS = ("sample_id", "id")

# Longer lines mean that the file is something else; they are not read into memory to find out.
MAX_PATH_LINE = 1 << 16
MAX_JSON_LINE = 1 << 24
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """One entry; None where the list has no such column, no value there, or one that is no text."""

    path: bytes | None
    label: bytes | None = None
    sample_id: bytes | None = None


class Blank(NamedTuple):
    """A line without an entry."""


BLANK = Blank()


@dataclass(frozen=True)
class Columns:
    """The names of the columns: asked for, where None leaves the choice to the names; or found."""

    path: str | None
    label: str | None
    sample_id: str | None

    @property
    def present(self) -> list[str]:
        """Each column once."""
        return list(dict.fromkeys(n for n in (self.path, self.label, self.sample_id) if n))


Found = tuple[Columns | None, Iterator[Row | Blank]]


@contextmanager
def open_list(name: str, asked: Columns) -> Iterator[Found]:
    """The columns of a list (None for .txt) and its rows, read as they are asked for.

    Args:
        name: a local path or a URL.
        asked: the columns asked for.

    Raises:
        SourceError: missing, unreadable, damaged, of another format, or without the column.
    """
    stem = name.lower()
    packed = stem.endswith(".gz")
    extension = os.path.splitext(stem.removesuffix(".gz"))[1]
    rows = _FORMATS.get(extension)
    if rows is None or (packed and extension == ".parquet"):
        raise SourceError(
            f"{name} is no list of files: that is a .txt, .csv, .tsv or .jsonl (or one of them with "
            ".gz), or a .parquet"
        )
    try:
        with _opened(name) as content, _unpacked(content) if packed else content as file:
            if file.peek(2)[:2] in _UTF16:
                raise SourceError(f"{name} is UTF-16 text: save it as UTF-8")
            yield rows(file, name, asked)
    except FileNotFoundError:
        raise SourceError(f"there is no list of files {name}") from None
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
        raise SourceError(f"cannot read the list {name}: {reason}") from error


def _opened(name: str) -> io.BufferedReader:
    if is_url(name):
        return io.BufferedReader(cast(io.RawIOBase, open_binary(name)))
    if not stat.S_ISREG(os.stat(name).st_mode):
        raise SourceError(f"{name} is no regular file: give a list of files, one path a line")
    return open(name, "rb")


def _unpacked(content: IO[bytes]) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=content, mode="rb")


def _text(file: IO[bytes], name: str, asked: Columns) -> Found:
    if asked.present:
        raise SourceError(
            f"{name} has no columns, so no {asked.present[0]!r}: one path a line, or give a .csv"
        )

    def rows() -> Iterator[Row | Blank]:
        for _, line in _lines(file, name, MAX_PATH_LINE):
            yield Row(line) if line.strip() else BLANK

    return None, rows()


def _delimited(delimiter: str) -> Callable[[IO[bytes], str, Columns], Found]:
    def open_(file: IO[bytes], name: str, asked: Columns) -> Found:
        _, header = next(_lines(file, name, MAX_JSON_LINE), (0, b""))
        fields = next(python_csv.reader([_decode(header)], delimiter=delimiter), [])
        columns = choose_columns(name, fields, asked)
        file.seek(0)
        reader = csv.open_csv(
            file,
            csv.ReadOptions(use_threads=False, column_names=_unique(fields), skip_rows=1),
            csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            csv.ConvertOptions(
                check_utf8=False,
                include_columns=columns.present,
                column_types={column: pa.large_binary() for column in columns.present},
                strings_can_be_null=False,
            ),
        )
        return columns, _batches(reader, columns)

    return open_


def _jsonl(file: IO[bytes], name: str, asked: Columns) -> Found:
    lines = _lines(file, name, MAX_JSON_LINE)
    first = next(((n, line) for n, line in lines if line.strip()), None)
    keys = [] if first is None else list(_parsed(name, *first))
    columns = choose_columns(name, keys, asked)

    def rows() -> Iterator[Row | Blank]:
        file.seek(0)
        for number, line in _lines(file, name, MAX_JSON_LINE):
            if not line.strip():
                yield BLANK
                continue
            values = _parsed(name, number, line)
            path = values.get(columns.path or "")
            yield Row(
                _encode(path) if isinstance(path, str) else None,
                *(
                    None if wanted is None else _json_text(values.get(wanted))
                    for wanted in (columns.label, columns.sample_id)
                ),
            )

    return columns, rows()


def _parquet(file: IO[bytes], name: str, asked: Columns) -> Found:
    table = pq.ParquetFile(file)
    schema = table.schema_arrow
    columns = choose_columns(name, schema.names, asked)
    for wanted in columns.present:
        kind = schema.field(wanted).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if wanted == columns.path and not text:
            raise SourceError(
                f"column {wanted!r} of {name} is {kind}, not text: a list has paths there "
                "(images inside Parquet are another source)"
            )
        if pa.types.is_nested(kind):
            raise SourceError(f"column {wanted!r} of {name} is {kind}, not one value a row")
    return columns, _batches(table.iter_batches(65536, columns=columns.present), columns)


_FORMATS: dict[str, Callable[[Any, str, Columns], Found]] = {
    ".txt": _text,
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}


def choose_columns(name: str, fields: Sequence[str], asked: Columns) -> Columns:
    """The columns of a list whose header is ``fields``.

    Raises:
        SourceError: no column of paths, none of a name that was asked for, or more than one of a name.
    """
    lower = [field.lower() for field in fields]

    def among(candidates: Iterable[str]) -> str | None:
        return next((fields[lower.index(c)] for c in candidates if c in lower), None)

    if not fields:
        raise SourceError(f"{name} lists no file")
    listed = ", ".join(map(repr, fields[:20]))
    for wanted in asked.present:
        if wanted not in fields:
            near = difflib.get_close_matches(wanted, fields, n=1, cutoff=0)[0]
            raise SourceError(
                f"{name} has no column {wanted!r}: the nearest of {listed} is {near!r}"
            )
    chosen = Columns(
        asked.path or among(PATH_COLUMNS),
        asked.label or among(LABEL_COLUMNS),
        asked.sample_id or among(ID_COLUMNS),
    )
    if chosen.path is None:
        raise SourceError(
            f"{name} has no column {' or '.join(PATH_COLUMNS)}: say which of {listed} has the paths"
        )
    for wanted in chosen.present:
        if fields.count(wanted) > 1:
            raise SourceError(f"{name} has {fields.count(wanted)} columns {wanted!r}: rename one")
    return chosen


def _lines(file: IO[bytes], name: str, longest: int) -> Iterator[tuple[int, bytes]]:
    """Line numbers from 1 and lines, without their ends and without a byte order mark."""
    number = 0
    while line := file.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise SourceError(f"line {number} of {name} is longer than {longest:,} bytes: no list")
        if number == 1:
            line = line.removeprefix(_BOM)
        yield number, line.removesuffix(b"\n").removesuffix(b"\r")


def _batches(batches: Iterable[pa.RecordBatch], columns: Columns) -> Iterator[Row | Blank]:
    for batch in batches:
        none = [None] * batch.num_rows
        yield from map(
            Row,
            *(
                none if column is None else _bytes(batch.column(column))
                for column in (columns.path, columns.label, columns.sample_id)
            ),
        )


def _bytes(values: pa.Array) -> list[bytes | None]:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not pa.types.is_large_binary(values.type):
        values = values.cast(pa.large_string()).cast(pa.large_binary())
    return values.to_pylist()


def _parsed(name: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"line {number} of {name} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise SourceError(f"line {number} of {name} is no JSON object, but {str(values)[:40]}")
    return values


def _json_text(value: Any) -> bytes | None:
    if value is None or isinstance(value, dict | list):
        return None
    return _encode(value) if isinstance(value, str) else json.dumps(value).encode()


def _encode(text: str) -> bytes | None:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:  # half a surrogate pair, which no file name holds
        return None


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")


def _unique(fields: Sequence[str]) -> list[str]:
    """Other names for repeated columns, none of which is read."""
    return [
        field if fields.count(field) == 1 else f"{field} ({n})" for n, field in enumerate(fields)
    ]
