"""ScoreRows: the scores of a run, whatever its size, in a few bytes a row."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.errors import StoreError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.scoring import ScoreRun


@dataclass(frozen=True, eq=False)
class ScoreRows:
    """Columns of scores.parquet that everything else is chosen by; the rest stays on the disk.

    Attributes:
        path: the file.
        q: (n,) float32 scores, in the order of the file.
        num_active: (n,) int32, |L and D|.
        codes: (n,) int32 class of each row, -1 without one.
        classes: the names, by code.
    """

    path: Path
    q: np.ndarray
    num_active: np.ndarray
    codes: np.ndarray
    classes: tuple[str, ...]

    @classmethod
    def of(cls, run: ScoreRun, labels: str | os.PathLike[str] | None = None) -> ScoreRows:
        """Read a run, row group by row group.

        Args:
            labels: a file with sample_id and label, in place of the run's own labels.

        Raises:
            StoreError: the file is damaged.
            SettingsError: the labels do not fit the run.
        """
        path = run.path / "scores.parquet"
        places: dict[str, int] = {}
        columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        with _opened(path) as file:
            wanted = ["q_score", "num_active", *(["label"] if labels is None else [])]
            for group in range(file.num_row_groups):
                table = _group(file, group, path, wanted)
                own = (
                    _codes(table["label"], places)
                    if labels is None
                    else np.full(len(table), -1, np.int32)
                )
                columns.append((table["q_score"].to_numpy(), table["num_active"].to_numpy(), own))
        q, num_active, codes = (
            np.concatenate(parts) if parts else np.empty(0, kind)
            for parts, kind in zip(
                zip(*columns, strict=True) if columns else ((), (), ()),
                (np.float32, np.int32, np.int32),
                strict=True,
            )
        )
        classes = tuple(places)
        if labels is not None:
            known = ClassLabels.of_run(run, labels)
            codes, classes = known.targets.astype(np.int32), known.classes
        elif classes:
            order = sorted(range(len(classes)), key=classes.__getitem__)
            rank = np.empty(len(order) + 1, np.int32)
            rank[order], rank[-1] = np.arange(len(order)), -1
            codes, classes = rank[codes], tuple(classes[place] for place in order)
        return cls(path, q, num_active, codes, classes)

    def __len__(self) -> int:
        return len(self.q)

    @cached_property
    def order(self) -> np.ndarray:
        """(n,) int64: the rows by ascending score, equal ones in the order of the file."""
        return np.argsort(self.q, kind="stable")

    def lowest(self, count: int) -> list[int]:
        """The rows of the lowest scores, the lowest first."""
        return self.order[:count].tolist()

    def highest(self, count: int) -> list[int]:
        """The rows of the highest scores, the highest first."""
        return self.order[::-1][:count].tolist()

    def typical(self, count: int) -> list[int]:
        """The rows around the median, by ascending score."""
        count = min(count, len(self))
        start = (len(self) - count) // 2
        return self.order[start : start + count].tolist()

    def spread(self, count: int, without: Collection[int] = ()) -> list[int]:
        """Other rows at even steps of the rank, from the lowest score to the highest."""
        left = self.order[~np.isin(self.order, list(without))] if without else self.order
        if not len(left) or count < 1:
            return []
        places = np.unique(np.linspace(0, len(left) - 1, min(count, len(left))).astype(np.int64))
        return left[places].tolist()

    def rows_by_class(self) -> dict[int, np.ndarray]:
        """Code -> its rows by ascending score, for every class that has any."""
        codes = self.codes[self.order]
        grouped = self.order[np.argsort(codes, kind="stable")]
        found, starts = np.unique(np.sort(codes), return_index=True)
        ends = [*starts[1:], len(grouped)]
        return {
            int(code): grouped[start:end]
            for code, start, end in zip(found, starts, ends, strict=True)
            if code >= 0
        }

    def label(self, row: int) -> str | None:
        """The class of a row."""
        code = int(self.codes[row])
        return None if code < 0 else self.classes[code]

    def read(self, rows: list[int]) -> list[dict[str, Any]]:
        """All columns of these rows, as plain values, in their order; reads their row groups alone."""
        found: dict[int, dict[str, Any]] = {}
        with _opened(self.path) as file:
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            ends = np.cumsum(sizes)
            wanted = np.array(sorted(set(rows)), np.int64)
            owner = np.searchsorted(ends, wanted, side="right")
            for group in np.unique(owner).tolist():
                here = wanted[owner == group]
                table = _group(file, group, self.path).take(here - (ends[group] - sizes[group]))
                found.update(zip(here.tolist(), table.to_pylist(), strict=True))
        return [found[row] for row in rows]


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _group(
    file: pq.ParquetFile, group: int, path: Path, columns: list[str] | None = None
) -> pa.Table:
    try:
        return file.read_row_group(group, columns)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreError:
    reason = str(error).split("\n")[0]
    return StoreError(f"{path} is missing or damaged ({reason}): run the same qscore score again")


def _codes(labels: pa.ChunkedArray, places: dict[str, int]) -> np.ndarray:
    """(n,) int32 places of the labels, -1 for none; new names are added to ``places``."""
    encoded = labels.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    names = encoded.dictionary.to_pylist()
    table = np.array([places.setdefault(name, len(places)) for name in names] + [-1], np.int32)
    return table[encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]
