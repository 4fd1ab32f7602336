"""The forwards in NumPy, as someone without PyTorch would write them; ``h`` is (N, r) float32."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]

EPS = 4.0
KEEP_EPS = 2.0
"""Above this the sparse activations keep an entry, as ``qscore score`` does by default."""


def row_stats(h: Array) -> tuple[Array, ...]:
    return (
        h.mean(-1),
        h.std(-1, ddof=1),
        np.abs(h).sum(-1),
        np.linalg.norm(h, axis=-1),
    )


def _active(h: Array, eps: float) -> tuple[Array, Array]:
    mean = h.mean(-1, keepdims=True)
    return mean, h > mean + eps * h.std(-1, ddof=1, keepdims=True)


def q_score(h: Array) -> Array:
    mean, active = _active(h, EPS)
    norm = np.linalg.norm(h, axis=-1)
    total = ((h - mean) * active).sum(-1)
    return total / (np.maximum(active.sum(-1), 1) * np.where(norm > 0, norm, 1))


def activation_counts(h: Array) -> Array:
    return _active(h, EPS)[1].sum(0)


def sparse_activations(h: Array) -> tuple[Array, ...]:
    mean, active = _active(h, KEEP_EPS)
    row, feature = active.nonzero()
    stats = row_stats(h)
    value = (h[row, feature] - mean[row, 0]) / stats[3][row]
    offsets = np.concatenate(([0], active.sum(-1).cumsum()))
    return (offsets, feature, value, *stats)
