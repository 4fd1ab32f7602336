"""Scores by the distance to the nearest neighbours in a reference set."""

from __future__ import annotations

from torch import Tensor


def neighbour_scores(cosines: Tensor) -> dict[str, Tensor]:
    """The scores that follow from the k nearest neighbours, as ``knn.nearest`` finds them.

    Between unit vectors the distance is sqrt(2 - 2 cos); that of a row of zeros counts its cosine as 0. The
    rounding of a float32 cosine makes distances below about 1e-3 inexact.

    Args:
        cosines: (n, k), descending.

    Returns:
        knn_distance, minus the k-th distance; knn_density, minus their mean: (n,).
    """
    distances = (2 - 2 * cosines).clamp_(min=0).sqrt_()
    return {"knn_distance": -distances[:, -1], "knn_density": -distances.mean(-1)}
