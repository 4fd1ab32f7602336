"""FeatureRows: cached representations, one array or many, in memory or mapped from the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qscore_fast.errors import SettingsError

if TYPE_CHECKING:
    from qscore_fast.scoring import ScoreRun

DTYPES = ("float16", "float32", "float64")


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """The rows of several arrays, as if they were one.

    Attributes:
        parts: (n_i, r) float16, float32 or float64, all of one r and dtype; mapped ones stay on the disk.
        columns: the features to read, int64 ascending; None for all. Rows are cut as they are read.

    Raises:
        SettingsError: no row, or arrays that differ in r or dtype, or are no floating-point matrices.
    """

    parts: tuple[np.ndarray, ...]
    columns: np.ndarray | None = None

    def __post_init__(self) -> None:
        for part in self.parts:
            first = self.parts[0]
            if part.ndim != 2 or part.dtype.name not in DTYPES or part.shape[1] == 0:
                raise SettingsError(
                    f"representations have shape {part.shape} and dtype {part.dtype}: give matrices (n, r) "
                    f"of {', '.join(DTYPES)}"
                )
            if part.shape[1] != first.shape[1] or part.dtype != first.dtype:
                raise SettingsError(
                    f"representations are {first.dtype} with r = {first.shape[1]} and {part.dtype} with "
                    f"r = {part.shape[1]}: give those of one encoder in one dtype"
                )
        if not len(self):
            raise SettingsError("there is no representation: give one row or more")

    @classmethod
    def of(cls, source: ScoreRun | str | os.PathLike[str] | np.ndarray | Tensor) -> FeatureRows:
        """Those of a finished run with embeddings, or of its folder, or of one array or tensor (n, r).

        Raises:
            StoreError: no complete run there, or one without embeddings.
            SettingsError: not a floating-point matrix.
        """
        if isinstance(source, Tensor):
            source = source.detach().cpu()
            return cls((source.float().numpy() if source.element_size() < 4 else source.numpy(),))
        if isinstance(source, np.ndarray):
            return cls((source,))
        from qscore_fast.scoring import ScoreRun

        run = source if isinstance(source, ScoreRun) else ScoreRun(source)
        return cls(tuple(part for part in run.iter_embeddings() if len(part)))

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def num_features(self) -> int:
        """r, after ``columns``."""
        return self.parts[0].shape[1] if self.columns is None else len(self.columns)

    @property
    def dtype(self) -> np.dtype:
        """Of the rows as they are read."""
        return self.parts[0].dtype

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return self.num_features * self.dtype.itemsize

    @property
    def num_bytes(self) -> int:
        """Of all rows, were they in memory."""
        return len(self) * self.row_bytes

    def select(self, columns: Sequence[int] | np.ndarray) -> FeatureRows:
        """The same rows with these features alone, in this order.

        Raises:
            SettingsError: no feature, or one outside 0 .. r - 1.
        """
        chosen = np.asarray(columns, dtype=np.int64)
        if chosen.ndim != 1 or not len(chosen) or not (0 <= chosen.min() <= chosen.max()):
            raise SettingsError("features to keep: give a list of one index or more, from 0 on")
        if chosen.max() >= self.num_features:
            raise SettingsError(
                f"feature {chosen.max()} is none of r = {self.num_features}: give indices below r"
            )
        return FeatureRows(self.parts, chosen if self.columns is None else self.columns[chosen])

    def where(self, chosen: np.ndarray) -> FeatureRows:
        """The rows at which ``chosen`` (N,) bool is True; parts that lose some are copied without them.

        Raises:
            SettingsError: no row is chosen.
        """
        parts = []
        for part, first in zip(self.parts, self._starts, strict=False):
            here = chosen[first : first + len(part)]
            parts.append(part if here.all() else part[here])
        return FeatureRows(tuple(part for part in parts if len(part)), self.columns)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """All rows in order, ``size`` at a time (the last are fewer), as (b, r) arrays of ``dtype``.

        A block within one part is a view of it, and read-only where that is; others are joined.
        """
        waiting: list[np.ndarray] = []
        count = 0
        for part in self.parts:
            start = 0
            while start < len(part):
                piece = self._cut(part[start : start + size - count])
                waiting.append(piece)
                start += len(piece)
                count += len(piece)
                if count == size:
                    yield _joined(waiting)
                    waiting, count = [], 0
        if waiting:
            yield _joined(waiting)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """The rows at ``rows`` (k,) int64, in that order: a new array (k, r)."""
        found = np.empty((len(rows), self.num_features), self.dtype)
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for index in np.unique(owner):
            here = np.flatnonzero(owner == index)
            found[here] = self._cut(self.parts[index][rows[here] - self._starts[index]])
        return found

    def to_array(self) -> np.ndarray:
        """(N, r), all in memory; the only part itself where nothing is cut."""
        if len(self.parts) == 1:
            return self._cut(self.parts[0])
        return np.concatenate([self._cut(part) for part in self.parts])

    def _cut(self, rows: np.ndarray) -> np.ndarray:
        return rows if self.columns is None else rows[:, self.columns]

    @cached_property
    def _starts(self) -> np.ndarray:
        """(parts + 1,): the row at which each part begins, and how many there are."""
        return np.cumsum([0, *map(len, self.parts)])


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def as_tensor(block: np.ndarray) -> Tensor:
    """A block as a tensor; copied where it is read-only, which PyTorch does not take."""
    return torch.from_numpy(block if block.flags.writeable else block.copy())
