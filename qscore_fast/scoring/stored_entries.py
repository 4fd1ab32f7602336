"""What the stored entries of a part come to at any eps: by the native kernels, by NumPy where there are none.

Both give the same bits.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from qscore_fast.backends import native_kernels
from qscore_fast.scoring.part import Part


def row_scores(
    part: Part, mask: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q (rows,) float32, |L & D| and |L|, both (rows,) int32, of a part's OK rows.

    Q is the mean of the distances in L (z > eps, strictly) and D, and 0 where there are none.

    Args:
        mask: D, bool (r,).
        eps: at least the part's activation_eps.
    """
    if kernels := native_kernels():
        return kernels.score_entries(_stored(kernels, part), np.ascontiguousarray(mask), eps)
    highly_active = part.z > eps
    active = mask[part.feature] & highly_active
    num_active = part.per_row(np.add, active, np.int32)
    # In the order of the entries, as the kernel sums; a ufunc's reduction would add in pairs.
    total = np.bincount(_rows(part), part.distance * active, part.num_ok)
    q = (total / np.maximum(num_active, 1)).astype(np.float32)
    return q, num_active, part.per_row(np.add, highly_active, np.int32)


def counts_above(part: Part, thresholds: np.ndarray, num_features: int) -> np.ndarray:
    """(thresholds, r) int64: how many OK rows have z > threshold, strictly, in each feature.

    Args:
        thresholds: ascending, float64, at least the part's activation_eps.
    """
    if kernels := native_kernels():
        exactly = kernels.count_entries(_stored(kernels, part), thresholds, num_features)
    else:
        cells = np.searchsorted(thresholds, part.z) * num_features + part.feature
        found = np.bincount(cells, minlength=(len(thresholds) + 1) * num_features)
        exactly = found.reshape(-1, num_features)
    return exactly[:0:-1].cumsum(axis=0)[::-1]


def mask_words(masks: np.ndarray) -> np.ndarray:
    """(r,) uint64 from (thresholds, r) bool, at most 64: bit k says whether the feature is in mask k."""
    return (masks * _bits(len(masks))[:, None]).sum(axis=0, dtype=np.uint64)


def filled_levels(part: Part, thresholds: np.ndarray, in_masks: np.ndarray) -> np.ndarray:
    """(thresholds,) int64: how many OK rows have an entry with z > threshold, strictly, in its mask.

    Args:
        thresholds: ascending, float64, at least the part's activation_eps; at most 64.
        in_masks: (r,) uint64, the ``mask_words`` of a mask for each threshold.
    """
    bits = _bits(len(thresholds))  # of a row's word: whether it has such an entry
    if kernels := native_kernels():
        words = kernels.fill_levels(_stored(kernels, part), thresholds, in_masks)
    else:
        below = np.append(np.uint64(0), np.cumsum(bits))
        words = in_masks[part.feature] & below[np.searchsorted(thresholds, part.z)]
        words = part.per_row(np.bitwise_or, words, np.uint64)
    return np.array([np.count_nonzero(words & bit) for bit in bits])


def _stored(kernels: ModuleType, part: Part) -> Any:
    return kernels.StoredRows(part.lengths, part.feature, part.value, part.scale, part.least_z)


def _bits(count: int) -> np.ndarray:
    return np.uint64(1) << np.arange(count, dtype=np.uint64)


def _rows(part: Part) -> np.ndarray:
    return np.repeat(np.arange(part.num_ok), part.lengths)
