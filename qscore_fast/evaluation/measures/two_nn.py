"""TwoNN: intrinsic dimension from the two nearest neighbours."""

from __future__ import annotations

import numpy as np

from qscore_fast.errors import MissingExtraError
from qscore_fast.evaluation.measures.measured import Measured

_MIN_ROWS = 10


def two_nn(rows: np.ndarray, discard: float = 0.1) -> Measured:
    """Intrinsic dimension (Facco et al. 2017): the slope of ``-log(1 - F(mu))`` on ``log mu``.

    mu is the ratio of the distances to the second and the first neighbour, F its empirical distribution. The
    line goes through the origin; the largest mu are left out of it, but not of F. Rows with an equal one
    have no mu and are left out (``details["duplicates"]``).

    Args:
        rows: (n, r), Euclidean.
        discard: share of the largest mu that is left out, 0.1 in the paper.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.neighbors import NearestNeighbors
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "evaluation") from error

    if len(rows) < _MIN_ROWS:
        return Measured.undefined(
            f"{len(rows)} rows are finite and not zero: {_MIN_ROWS} are needed"
        )
    _, same, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    apart = counts[same.reshape(-1)] == 1
    about = {"rows": int(apart.sum()), "duplicates": int((~apart).sum()), "discard": discard}
    search = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(rows)
    # Its own distances are roots of a difference of squares, which for near rows is rounding.
    nearest = search.kneighbors(return_distance=False)[apart]
    distances = [np.linalg.norm(rows[apart] - rows[column], axis=1) for column in nearest.T]
    first, second = np.sort(distances, axis=0)
    mu = np.sort(second / first)
    kept = int(len(mu) * (1 - discard))
    if kept < _MIN_ROWS - 1:
        return Measured.undefined(
            f"{about['duplicates']} of {len(rows)} rows have an equal one", **about
        )
    x = np.log(mu[:kept])
    y = -np.log1p(-np.arange(1, kept + 1) / len(mu))
    if not x.any():
        return Measured.undefined("every row is as far from its second neighbour as from its first")
    return Measured.of(float((x * y).sum() / (x * x).sum()), **about)
