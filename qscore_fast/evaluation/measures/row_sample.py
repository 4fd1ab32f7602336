"""RowSample: all rows while they fit, a seeded uniform sample of them beyond."""

from __future__ import annotations

import numpy as np
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.measures.row_blocks import (
    Array,
    device_of,
    finite_rows,
    row_blocks,
)

MAX_ROWS = 8192


class RowSample:
    """At most ``max_rows`` non-zero finite rows of a stream, every subset as likely, without replacement.

    Every row draws a random number and the smallest win, so that samples of parts merge to a sample of the
    whole. The same rows in the same order give the same sample, however they are split into batches.
    Memory: ``max_rows`` r float32 and a quarter more; float64 if the rows are.

    Args:
        num_features: r.
        max_rows: kept at most, 2 or more.
        seed: samples that are to be merged need different ones.

    Attributes:
        num_rows: non-zero finite rows seen.
    """

    def __init__(self, num_features: int, max_rows: int = MAX_ROWS, seed: int = 0) -> None:
        if max_rows < 2:
            raise SettingsError(f"max_rows is {max_rows}; a sample needs 2 rows or more")
        self.num_features, self.max_rows, self.seed = int(num_features), int(max_rows), int(seed)
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        self.num_rows = 0
        self._seeds = {self.seed}
        self._random = np.random.default_rng(self.seed)
        self._keys: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._held = 0
        self._limit = np.inf

    def update(self, h: Array) -> RowSample:
        """Add the rows of ``h`` (..., r)."""
        device = device_of(h)
        wide = str(h.dtype).endswith("float64")
        for block in row_blocks(h, self.num_features, device):
            rows, l2 = finite_rows(block)
            if not bool((l2 > 0).all()):
                rows = rows[l2 > 0]
            self.num_rows += len(rows)
            keys = self._random.random(len(rows))
            chosen = np.flatnonzero(keys < self._limit)
            kept = (
                (
                    rows
                    if len(chosen) == len(rows)
                    else rows[torch.from_numpy(chosen).to(rows.device)]
                )
                .cpu()
                .numpy()
            )
            self._take(keys[chosen], kept if wide else kept.astype(np.float32))
        return self

    def merge(self, other: RowSample) -> RowSample:
        """Add the sample of other rows, drawn with another seed."""
        if (self.num_features, self.max_rows) != (other.num_features, other.max_rows):
            raise SettingsError(
                f"cannot merge a sample of {other.max_rows} rows of r = {other.num_features} into one of "
                f"{self.max_rows} rows of r = {self.num_features}"
            )
        if shared := self._seeds & other._seeds:
            raise SettingsError(
                f"both samples were drawn with seed = {min(shared)}: give every part a seed of its own"
            )
        self.num_rows += other.num_rows
        self._seeds |= other._seeds
        for keys, rows in zip(other._keys, other._rows, strict=True):
            self._take(keys, rows)
        return self

    def _take(self, keys: np.ndarray, rows: np.ndarray) -> None:
        if not len(keys):
            return
        self._keys.append(keys)
        self._rows.append(rows)
        self._held += len(keys)
        if self._held > self.max_rows + self.max_rows // 4:
            self._compact()

    def _compact(self) -> None:
        keys, rows = np.concatenate(self._keys), np.concatenate(self._rows)
        if len(keys) > self.max_rows:
            smallest = np.sort(np.argpartition(keys, self.max_rows - 1)[: self.max_rows])
            keys, rows = keys[smallest], rows[smallest]
            self._limit = float(keys.max())
        self._keys, self._rows, self._held = [keys], [rows], len(keys)

    @property
    def exact(self) -> bool:
        """Whether it holds every row."""
        return self.num_rows <= self.max_rows

    @property
    def rows(self) -> np.ndarray:
        """(n, r) float32 or float64, in the order in which they came."""
        if not self._rows:
            return np.empty((0, self.num_features), np.float32)
        self._compact()
        return self._rows[0]

    def about(self) -> dict[str, object]:
        """What a measure of the sample says of it: rows, of how many, and the seed where it matters."""
        about: dict[str, object] = {
            "rows": min(self.num_rows, self.max_rows),
            "of_rows": self.num_rows,
            "exact": self.exact,
        }
        return about if self.exact else {**about, "seed": sorted(self._seeds)}
