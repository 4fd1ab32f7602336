"""scores.parquet and errors.parquet: what a run's parts and its D say about every image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.errors import StoreError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.scoring.atomic import replacing
from qscore_fast.scoring.part import STATS, Part
from qscore_fast.scoring.record import library_versions
from qscore_fast.scoring.store import Store
from qscore_fast.scoring.stored_entries import row_scores

if TYPE_CHECKING:
    from qscore_fast.scoring.unit_rows import Failure

ROWS_A_GROUP = 65_536

SCORES = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("q_score", pa.float32(), nullable=False),
        pa.field("num_active", pa.int32(), nullable=False),
        pa.field("num_highly_active", pa.int32(), nullable=False),
        *(pa.field(name, pa.float32()) for name in STATS),
    ]
)
ERRORS = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("sample_id", "stage", "error")]
)


def features_hash(features: DiscriminativeFeatures) -> str:
    """SHA-256 (hex) of D, its eps and sides, and its encoder."""
    sides = " two-sided" if features.two_sided else ""
    digest = hashlib.sha256(f"{features.eps!r} {features.fingerprint}{sides}\n".encode())
    digest.update(np.packbits(features.mask.cpu().numpy()).data)
    return digest.hexdigest()


def scores_of_part(part: Part, mask: np.ndarray, eps: float) -> pa.Table:
    """The scores of a part's OK rows; see ``row_scores``."""
    q, num_active, num_highly_active = row_scores(part, mask, eps)
    return pa.Table.from_arrays(
        [
            part.column("sample_id"),
            part.column("label"),
            pa.array(q),
            pa.array(num_active),
            pa.array(num_highly_active),
            *(part.column(name) for name in STATS),
        ],
        schema=SCORES,
    )


@dataclass
class Totals:
    """What a run's scores come to.

    Attributes:
        num_scored: images with a score. num_empty: those without an active feature of D.
        total, absolute: the sum of the representations' entries, and of their absolute values.
    """

    num_scored: int = 0
    num_empty: int = 0
    total: float = 0.0
    absolute: float = 0.0

    def add(self, scores: pa.Table, num_features: int) -> None:
        """Count some more images."""
        self.num_scored += len(scores)
        self.num_empty += int(np.count_nonzero(scores["num_active"].to_numpy() == 0))
        self.total += scores["mean"].to_numpy().sum(dtype=np.float64) * num_features
        self.absolute += scores["l1"].to_numpy().sum(dtype=np.float64)

    @property
    def empty_fraction(self) -> float:
        """Share of the images without an active feature of D, 0 to 1."""
        return self.num_empty / max(self.num_scored, 1)

    @property
    def share_below_zero(self) -> float:
        """How much of the absolute sum is of features below 0, 0 to 1."""
        return (self.absolute - self.total) / (2 * self.absolute) if self.absolute else 0.0


@dataclass(frozen=True)
class ScoresHeader:
    """What scores.parquet says about itself, as key-value metadata under ``qscore_fast.``.

    Attributes:
        run: the key of the run's record.
        parts: see ``parts_digest``; "" in a file from before there was one.
        request: how eps and D were asked for, so that the same request need not be answered twice.
        eps: the one in use.
        features_hash, encoder_fingerprint: which D, which encoder.
        notes: what the user was told.
        version: of qscore-fast.
    """

    run: str
    request: dict[str, Any]
    eps: float
    features_hash: str
    encoder_fingerprint: str
    notes: list[str]
    parts: str = ""
    version: str = field(default_factory=lambda: library_versions().get("qscore-fast", "unknown"))

    @classmethod
    def read(cls, path: Path) -> ScoresHeader | None:
        """The header of a scores.parquet; None if it is missing, damaged or of another kind."""
        try:
            found = pq.read_metadata(path).metadata or {}
            keys = {f.name: _header_key(f.name) for f in fields(cls) if f.name != "parts"}
            if (parts := _header_key("parts")) in found:
                keys["parts"] = parts
            return cls(**{name: json.loads(found[key]) for name, key in keys.items()})
        except (OSError, pa.ArrowException, KeyError, ValueError):
            return None

    def metadata(self) -> dict[bytes, bytes]:
        """Each field as JSON."""
        return {_header_key(key): json.dumps(value).encode() for key, value in asdict(self).items()}


def _header_key(name: str) -> bytes:
    return f"qscore_fast.{name}".encode()


def write_scores(
    store: Store, features: DiscriminativeFeatures, header_of: Callable[[Totals], ScoresHeader]
) -> ScoresHeader:
    """Write scores.parquet, a row group in memory at a time, with the header that its totals lead to."""
    mask = features.mask.cpu().numpy()
    totals = Totals()
    with (
        replacing(store.path / "scores.parquet") as temporary,
        pq.ParquetWriter(
            temporary,
            SCORES,
            use_dictionary=["label"],
            write_page_checksum=True,
            store_schema=False,  # Arrow would take the header for no part of the schema that it keeps
        ) as writer,
    ):
        tables = store.map_parts(lambda part: scores_of_part(part, mask, features.eps))
        for table in _in_groups(tables):
            totals.add(table, len(mask))
            writer.write_table(table, row_group_size=len(table))
        header = header_of(totals)
        writer.add_key_value_metadata(header.metadata())
    return header


def _in_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Whole tables together, ``ROWS_A_GROUP`` rows or a little more at a time."""
    waiting: list[pa.Table] = []
    num_rows = 0
    for table in tables:
        waiting.append(table)
        num_rows += len(table)
        if num_rows >= ROWS_A_GROUP:
            yield pa.concat_tables(waiting)
            waiting, num_rows = [], 0
    if num_rows:
        yield pa.concat_tables(waiting)


def write_errors(store: Store, parts: str) -> None:
    """Write errors.parquet: one row for each image without a score.

    Args:
        parts: the digest of the parts that are there.
    """
    errors = (notes["errors"] for notes in store.part_notes())
    write_error_rows(store.path / "errors.parquet", errors, parts)


def write_error_rows(path: Path, errors: Iterable[Sequence[Failure]], parts: str | None) -> None:
    """Write a table of errors, in order.

    Args:
        parts: the digest of the parts that they are the errors of; None where these are not complete, so that
            no complete run takes the table for its own.
    """
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, ERRORS, write_page_checksum=True) as writer,
    ):
        for rows in errors:
            if rows:
                writer.write_table(pa.Table.from_pylist(list(rows), schema=ERRORS))
        if parts is not None:
            writer.add_key_value_metadata({_header_key("parts"): json.dumps(parts).encode()})


def errors_are_of(path: Path, parts: str) -> bool:
    """Whether an errors.parquet is whole and was made of the parts with this digest."""
    try:
        found = pq.read_metadata(path).metadata or {}
        return bool(json.loads(found[_header_key("parts")]) == parts) and is_intact(path)
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return False


def is_intact(path: Path) -> bool:
    """Whether every page of a table can be read and has the checksum that it was written with."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group)
    except (OSError, pa.ArrowException):
        return False
    return True


def read_result(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A finished table, or some of its columns.

    Raises:
        StoreError: it is missing or damaged.
    """
    with _reading(path) as file:
        return file.read(columns)


@contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        reason = str(error).split("\n")[0]
        raise StoreError(
            f"{path} is missing or damaged ({reason}): run the same qscore score again"
        ) from error


def lowest_scores(path: Path, n: int) -> pa.Table:
    """The ``n`` rows of a scores.parquet with the lowest scores, ascending, ties in the file's order.

    Raises:
        StoreError: it is missing or damaged.
    """
    q = read_result(path, ["q_score"])["q_score"].to_numpy()
    n = min(n, len(q))
    if n == 0:
        return SCORES.empty_table()
    limit = np.partition(q, n - 1)[n - 1]
    candidates = np.flatnonzero(q < limit)
    candidates = np.append(candidates, np.flatnonzero(q == limit)[: n - len(candidates)])
    rows = candidates[np.lexsort((candidates, q[candidates]))]
    with _reading(path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        group_of = np.searchsorted(ends, rows, side="right")
        found = [
            file.read_row_group(group).take(rows[group_of == group] - (ends[group] - sizes[group]))
            for group in np.unique(group_of).tolist()
        ]
    by_group = np.argsort(group_of, kind="stable")
    place = np.empty(n, np.int64)
    place[by_group] = np.arange(n)
    return pa.concat_tables(found).replace_schema_metadata(None).take(place)
