"""Scores and counts from stored entries of L, on one thread; every array is contiguous."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import _native


class StoredRows(NamedTuple):
    """The entries of n rows, one row after the other.

    Attributes:
        lengths: (n,) int32, how many entries each row has.
        feature: (nnz,) uint16 or uint32, all of them within the encoder's.
        value: (nnz,) float32, (h_ij - mu_i) / ||h_i||.
        scale: (n,) float64, ||h_i|| / sigma_i: |value| times it is z.
        least: what z is at least.
    """

    lengths: np.ndarray
    feature: np.ndarray
    value: np.ndarray
    scale: np.ndarray
    least: float

    def _arguments(self) -> tuple[int, int, int, int, float, int, bool]:
        return (
            self.lengths.ctypes.data,
            len(self.lengths),
            self.value.ctypes.data,
            self.scale.ctypes.data,
            self.least,
            self.feature.ctypes.data,
            self.feature.dtype == np.uint16,
        )


def score_entries(
    rows: StoredRows, mask: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q (n,) float32, |L & D| and |L|, both (n,) int32; ``mask``: (r,) bool."""
    n = len(rows.lengths)
    q, num_active, num_highly_active = (np.empty(n, t) for t in (np.float32, np.int32, np.int32))
    _native.score_entries(
        *rows._arguments(),
        mask.ctypes.data,
        eps,
        q.ctypes.data,
        num_active.ctypes.data,
        num_highly_active.ctypes.data,
    )
    return q, num_active, num_highly_active


def count_entries(rows: StoredRows, thresholds: np.ndarray, num_features: int) -> np.ndarray:
    """(thresholds + 1, r) int64: row k has the entries with exactly the first k thresholds below their z.

    ``thresholds``: ascending, float64.
    """
    counts = np.zeros((len(thresholds) + 1, num_features), np.int64)
    _native.count_entries(
        *rows._arguments(),
        thresholds.ctypes.data,
        len(thresholds),
        num_features,
        counts.ctypes.data,
    )
    return counts


def fill_levels(rows: StoredRows, thresholds: np.ndarray, in_masks: np.ndarray) -> np.ndarray:
    """(n,) uint64: bit k is set where an entry has z above threshold k and bit k of its feature's mask set.

    ``thresholds``: ascending, float64, at most 64. ``in_masks``: (r,) uint64.
    """
    filled = np.empty(len(rows.lengths), np.uint64)
    _native.fill_levels(
        *rows._arguments(),
        thresholds.ctypes.data,
        len(thresholds),
        in_masks.ctypes.data,
        filled.ctypes.data,
    )
    return filled
