"""One work unit's part: its rows, written once, read as arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qscore_fast.errors import StoreError

OK, UNDECODABLE, NON_FINITE = "ok", "undecodable", "non_finite"
STATS = ("mean", "std", "l1", "l2")
KEY = b"qscore_fast.run"
CONTENT = b"qscore_fast.content"


class DamagedPartError(StoreError):
    """A part is missing, or its content is not what was written: it must be made again."""


@cache
def part_schema(num_features: int) -> pa.Schema:
    """The columns of a part. The lists hold the entries of L at ``activation_eps``, ascending."""
    index = pa.uint16() if num_features <= 2**16 else pa.uint32()
    return pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False),
            pa.field("label", pa.string()),
            *(pa.field(name, pa.float32()) for name in STATS),
            pa.field("feature", pa.list_(pa.field("item", index, nullable=False))),
            pa.field("value", pa.list_(pa.field("item", pa.float32(), nullable=False))),
            pa.field("status", pa.string(), nullable=False),
        ]
    )


@dataclass
class PartRows:
    """The rows of a unit on their way into a part; n images, nnz active entries.

    Attributes:
        sample_ids, labels: one an image.
        status: (n,) of OK, UNDECODABLE, NON_FINITE.
        stats: (n, 4) float32: mean, std, l1, l2; meaningless where the status is not OK.
        lengths: (n,) int32, how many active entries each image has.
        feature: (nnz,) unsigned. value: (nnz,) float32.
        embeddings: (number of OK rows, r) float16, or None.
        errors: {"sample_id", "stage", "error"} of every image that is not OK.
        made_with: see ``made_with``; None where nobody knows.
    """

    sample_ids: list[str]
    labels: list[str | None]
    status: list[str]
    stats: np.ndarray
    lengths: np.ndarray
    feature: np.ndarray
    value: np.ndarray
    embeddings: np.ndarray | None = None
    errors: list[dict[str, str]] = field(default_factory=list)
    made_with: dict[str, Any] | None = None

    def digest(self) -> str:
        """SHA-256 (hex) of all but the embeddings and ``made_with``."""
        texts = [self.sample_ids, self.labels, self.status, self.errors]
        digest = hashlib.sha256(json.dumps(texts).encode())
        ok = np.array([status == OK for status in self.status], dtype=bool)
        for numbers in (self.stats[ok], self.lengths, self.feature, self.value):
            digest.update(np.ascontiguousarray(numbers).data)
        return digest.hexdigest()

    def table(self, schema: pa.Schema) -> pa.Table:
        """The rows as Arrow; numbers are wrapped, not copied one by one."""
        failed = np.array([status != OK for status in self.status], dtype=bool)
        offsets = np.zeros(len(failed) + 1, dtype=np.int32)
        np.cumsum(self.lengths, out=offsets[1:])
        columns: list[pa.Array] = [
            pa.array(self.sample_ids, pa.string()),
            pa.array(self.labels, pa.string()),
        ]
        columns += [pa.array(np.ascontiguousarray(s), mask=failed) for s in self.stats.T]
        for name, values in (("feature", self.feature), ("value", self.value)):
            columns.append(
                pa.ListArray.from_arrays(
                    pa.array(offsets),
                    pa.array(values),
                    type=schema.field(name).type,
                    mask=pa.array(failed),
                )
            )
        columns.append(pa.array(self.status, pa.string()))
        return pa.Table.from_arrays(columns, schema=schema)


def write_table(table: pa.Table, path: Path, metadata: dict[bytes, bytes]) -> None:
    """Write one parquet file with page checksums, so that damage is noticed when it is read."""
    pq.write_table(
        table.replace_schema_metadata(metadata),
        path,
        compression="zstd",
        use_dictionary=["label", "status"],
        write_page_checksum=True,
    )


@dataclass(frozen=True)
class Part:
    """A part read back. ``table`` holds all of its rows; the arrays hold the OK rows only.

    Attributes:
        table: the columns of :func:`part_schema`.
        activation_eps: the threshold with which the entries were kept.
    """

    table: pa.Table
    activation_eps: float

    @classmethod
    def read(
        cls,
        path: Path,
        activation_eps: float,
        num_features: int,
        columns: Sequence[str] | None = None,
    ) -> Part:
        """Read and verify a part, or some of its columns, status among them.

        Raises:
            DamagedPartError: the file is missing or damaged. StoreError: it cannot be read now.
        """
        try:
            # Not read_table: that reads through a dataset, which knows no checksums.
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                # Parts are read side by side; threads for the columns as well would be in the way.
                table = file.read(columns and list(columns), use_threads=False)
            part = cls(table, activation_eps)
            part._check_columns(num_features, columns)
        except (OSError, pa.ArrowException) as error:
            reason = str(error).split("\n")[0]
            if not is_damage(error):
                raise StoreError(f"cannot read {path}: {reason}") from error
            raise DamagedPartError(
                f"{path} is damaged ({reason}): delete it and run the same qscore score again, "
                "which redoes this part alone"
            ) from error
        return part

    def _check_columns(self, num_features: int, columns: Sequence[str] | None) -> None:
        """ArrowInvalid where columns are missing or of other types, or where the native kernels, which trust
        the entries, would read beyond an array.
        """
        expected = part_schema(num_features)
        for name in columns or expected.names:
            if name not in self.table.column_names:
                raise pa.ArrowInvalid(f"it has no column {name}")
            found = self.table.schema.field(name).type
            if found != expected.field(name).type:
                raise pa.ArrowInvalid(f"its column {name} is {found}")
        if not {"feature", "value"} <= {*self.table.column_names}:
            return
        feature, value = (self.table[name] for name in ("feature", "value"))
        fit = self._list_lengths.equals(pc.list_value_length(value))
        if not fit or not pc.is_valid(feature).equals(self._is_ok):
            raise pa.ArrowInvalid("its lists of features and values do not fit together")
        largest = int(self.feature.max(initial=0))
        if largest >= num_features:
            raise pa.ArrowInvalid(f"it names feature {largest} of {num_features}, counted from 0")

    @cached_property
    def _is_ok(self) -> pa.ChunkedArray:
        return pc.equal(self.table["status"], OK)

    @cached_property
    def num_ok(self) -> int:
        """How many images were scored."""
        return pc.sum(self._is_ok).as_py() or 0

    def column(self, name: str) -> pa.Array:
        """One of sample_id, label, mean, std, l1, l2 of the OK rows."""
        column = self.table[name]
        if self.num_ok < len(self.table):
            column = column.filter(self._is_ok)
        return column.combine_chunks()

    def stat(self, name: str) -> np.ndarray:
        """One of mean, std, l1, l2 of the OK rows, float32."""
        return self.column(name).to_numpy(zero_copy_only=False)

    @cached_property
    def _list_lengths(self) -> pa.ChunkedArray:
        """(rows,) int32; null for those that are not OK, whose lists are null."""
        return pc.list_value_length(self.table["feature"])

    @cached_property
    def lengths(self) -> np.ndarray:
        """(OK rows,) int32: how many entries each has."""
        return self._list_lengths.drop_null().to_numpy()

    @cached_property
    def feature(self) -> np.ndarray:
        """(nnz,) unsigned: the entries' features, ascending in each row."""
        return pc.list_flatten(self.table["feature"]).to_numpy()

    @cached_property
    def value(self) -> np.ndarray:
        """(nnz,) float32: the entries' (h_ij - mu_i) / ||h_i||; below 0 in a two-sided run alone."""
        return pc.list_flatten(self.table["value"]).to_numpy()

    @cached_property
    def distance(self) -> np.ndarray:
        """(nnz,) float32: the entries' |h_ij - mu_i| / ||h_i||, whose mean within D is Q."""
        return np.abs(self.value)

    @cached_property
    def scale(self) -> np.ndarray:
        """(OK rows,) float64: ||h_i|| / sigma_i, which makes a distance a z."""
        l2, std = (self.stat(name).astype(np.float64) for name in ("l2", "std"))
        return np.divide(l2, std, out=np.zeros_like(l2), where=std > 0)  # else: no entries

    @property
    def least_z(self) -> float:
        """Stored means active at ``activation_eps``, whatever the rounding of value says."""
        return float(np.nextafter(self.activation_eps, np.inf))

    @cached_property
    def z(self) -> np.ndarray:
        """(nnz,) float64: the entries' |h_ij - mu_i| / sigma_i, all above ``activation_eps``."""
        z = np.repeat(self.scale, self.lengths)
        z *= self.distance
        return np.maximum(z, self.least_z, out=z)

    def per_row(self, combine: np.ufunc, entries: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
        """(OK rows,): each row's entries combined, 0 for a row without entries."""
        result = np.zeros(self.num_ok, dtype)
        filled = self.lengths > 0
        if len(entries):
            starts = np.cumsum(self.lengths) - self.lengths
            result[filled] = combine.reduceat(entries, starts[filled], dtype=dtype)
        return result


def part_footer(path: Path) -> tuple[int, dict[bytes, bytes]]:
    """Number of rows and metadata, from the footer alone.

    Raises:
        StoreError: the file is no parquet file, or cut off.
    """
    try:
        metadata: Any = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    return metadata.num_rows, metadata.metadata or {}


def is_damage(error: Exception) -> bool:
    """Whether it is about the content, not about the machine; Arrow gives only the latter an errno."""
    if isinstance(error, OSError):
        return error.errno is None or isinstance(error, FileNotFoundError)
    return isinstance(error, pa.ArrowInvalid)
