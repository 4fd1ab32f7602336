"""Correctness: which samples a probe got right, read from a file and joined on the sample id."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_names import same_classes
from qscore_fast.evaluation.sample_file import (
    ID,
    check_ids,
    read_samples,
    refuse_nulls,
    some_of,
    text_of,
)

# What qscore probe and qscore knn write of a probe's answers; its confidence was trained on labels.
PROBE_FILE = frozenset({ID, "label", "prediction", "correct"})
PROBE_COLUMN = "confidence"


@dataclass(frozen=True)
class Correctness:
    """The rows of a file, one a sample.

    Attributes:
        path: the file.
        sample_ids: (n,) Arrow strings, no two the same.
        correct: (n,) bool.
        labels: (n,) Arrow strings, or None without a column label.
        columns: (n,) float64 scores by column name; higher means more trusted.
        of_probe: those of the columns that are a probe's own, so that they use labels. Of others nothing is
            known.
    """

    path: Path
    sample_ids: pa.Array
    correct: np.ndarray
    labels: pa.Array | None = None
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    of_probe: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: str | os.PathLike[str], columns: Sequence[str] = ()) -> Correctness:
        """Read a Parquet or CSV file with sample_id and correct, or sample_id, label and prediction.

        Args:
            columns: numeric columns to take along as scores.

        Raises:
            SettingsError: missing, another format, columns or values missing, an id that occurs twice.
        """
        path = Path(path)
        table = read_samples(path)
        asked = [name for name in columns if name not in table.column_names]
        if ID not in table.column_names or asked:
            missing = ", ".join(asked) or ID
            raise SettingsError(
                f"{path} has the columns {', '.join(table.column_names)}: {missing} is missing"
            )
        ids = text_of(table[ID])
        check_ids(path, ids)
        labels = text_of(table["label"]) if "label" in table.column_names else None
        found = {name: _numbers(path, table[name], name, ids) for name in columns}
        by_probe = set(table.column_names) >= PROBE_FILE
        of_probe = frozenset({PROBE_COLUMN} & set(columns) if by_probe else ())
        if "correct" in table.column_names:
            # Correctness is the file's own word: its labels decide nothing, so nothing hangs on them.
            return cls(path, ids, _outcomes(path, table["correct"], ids), None, found, of_probe)
        if labels is None or "prediction" not in table.column_names:
            raise SettingsError(
                f"{path} has the columns {', '.join(table.column_names)}: it needs sample_id and correct, or "
                "sample_id, label and prediction"
            )
        for name in ("label", "prediction"):
            refuse_nulls(path, table[name], name, ids)
        right = same_classes(labels, text_of(table["prediction"]))
        return cls(path, ids, right.to_numpy(zero_copy_only=False), labels, found)

    def rows_of(
        self,
        sample_ids: pa.Array,
        labels: pa.Array | None = None,
        failed: Collection[str] = (),
        subset: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Join: which scored samples have an outcome, and the row of this file that holds it.

        Args:
            sample_ids: (N,) of the scored samples, no two the same.
            labels: (N,) of the same, null where unknown; must agree with this file's where it has a column
                label and no column correct.
            failed: ids without a score, which the file may hold for nothing.
            subset: join what both sides have, instead of refusing when one side has more.

        Returns:
            (m,) int64 indices of the scored samples, ascending, and (m,) of this file's rows.

        Raises:
            SettingsError: ids or labels do not match.
        """
        place = pc.index_in(sample_ids, value_set=self.sample_ids)
        scored = np.flatnonzero(pc.is_valid(place).to_numpy(zero_copy_only=False))
        rows = place.drop_null().to_numpy().astype(np.int64)
        if len(scored) == 0:
            raise SettingsError(
                f"no sample_id of {self.path} is one of the run's: it has {some_of(self.sample_ids)}, "
                f"the run {some_of(sample_ids)}"
            )
        if not subset:
            self._check_all(sample_ids, scored, rows, failed)
        self._check_labels(sample_ids, labels, scored, rows)
        return scored, rows

    def _check_all(
        self, sample_ids: pa.Array, scored: np.ndarray, rows: np.ndarray, failed: Collection[str]
    ) -> None:
        missing = np.setdiff1d(np.arange(len(sample_ids)), scored, assume_unique=True)
        if len(missing):
            raise SettingsError(
                f"{len(missing):,} of {len(sample_ids):,} scored samples are missing in {self.path}, such as "
                f"{some_of(sample_ids.take(missing))}: add them, or evaluate the others alone (--subset)"
            )
        extra = np.setdiff1d(np.arange(len(self.sample_ids)), rows, assume_unique=True)
        unknown = [i for i in self.sample_ids.take(extra).to_pylist() if i not in failed]
        if unknown:
            raise SettingsError(
                f"{len(unknown):,} samples of {self.path} are not in the run, such as {some_of(unknown)}: "
                "give the file of this run's images, or evaluate the others alone (--subset)"
            )

    def _check_labels(
        self, sample_ids: pa.Array, labels: pa.Array | None, scored: np.ndarray, rows: np.ndarray
    ) -> None:
        if labels is None or self.labels is None:
            return
        known = labels.take(scored)
        differ = pc.fill_null(pc.invert(same_classes(known, self.labels.take(rows))), False)
        count = pc.sum(differ).as_py()
        if count:
            at = pc.index(differ, True).as_py()
            raise SettingsError(
                f"{count:,} labels of {self.path} are not the run's: {sample_ids[scored[at]].as_py()!r} is "
                f"{self.labels[rows[at]].as_py()!r} there and {known[at].as_py()!r} in the run; correct the "
                "file, or give a column correct instead of label and prediction"
            )


def _outcomes(path: Path, column: pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
    refuse_nulls(path, column, "correct", ids)
    values = column.combine_chunks()
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        words = pc.utf8_lower(values)
        truth = pc.is_in(words, pa.array(["true", "1"], words.type))
        valid = pc.is_in(words, pa.array(["true", "1", "false", "0"], words.type))
    elif pa.types.is_boolean(values.type):
        return values.to_numpy(zero_copy_only=False)
    else:
        truth, valid = pc.equal(values, 1), pc.is_in(values, pa.array([0, 1]).cast(values.type))
    if not pc.all(valid).as_py():
        at = pc.index(valid, False).as_py()
        raise SettingsError(
            f"correct of {ids[at].as_py()!r} in {path} is {values[at].as_py()!r}: give true or false, 1 or 0"
        )
    return truth.to_numpy(zero_copy_only=False)


def _numbers(path: Path, column: pa.ChunkedArray, name: str, ids: pa.Array) -> np.ndarray:
    refuse_nulls(path, column, name, ids)
    try:
        return column.cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise SettingsError(
            f"the column {name} of {path} is {column.type}: a score is a number"
        ) from error
