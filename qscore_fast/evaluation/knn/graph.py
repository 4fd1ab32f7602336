"""neighbour_graph: the k nearest neighbours of every row as a sparse matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from qscore_fast.errors import MissingExtraError
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.knn.search import nearest

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def neighbour_graph(rows: FeatureRows, k: int, device: str | torch.device = "cpu") -> csr_matrix:
    """(N, N) CSR of cosine distances, 1 - cosine, float64: k a row, the nearest first, no row its own.

    This is what scikit-learn's ``kneighbors_graph(mode="distance")`` makes and cleanlab's Datalab takes.

    Raises:
        SettingsError: k is not from 1 to N - 1, or NaN or Inf in the rows.
        MissingExtraError: SciPy is not installed.
    """
    try:
        from scipy.sparse import csr_matrix
    except ImportError:
        raise MissingExtraError("scipy", "evaluation") from None
    found = nearest(rows, rows, k, itself=True, device=device)
    # Rounding may put a copy of a row at a cosine above 1.
    distance = np.maximum(1 - found.similarity.astype(np.float64), 0)
    n = len(rows)
    starts = np.arange(n + 1, dtype=np.int64) * k
    return csr_matrix((distance.reshape(-1), found.index.reshape(-1), starts), shape=(n, n))
