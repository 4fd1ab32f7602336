"""Distances to the nearest neighbours in a reference set, exact, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure.row_scores import check_matrix
from qscore_fast.evaluation.knn import nearest_to

QUERIES, REFERENCES = 4096, 8192


def neighbour_scores(distances: Tensor) -> dict[str, Tensor]:
    """The scores that follow from the distances to the k nearest neighbours.

    Args:
        distances: (n, k), ascending.

    Returns:
        knn_distance, minus the k-th distance; knn_density, minus their mean: (n,).
    """
    return {"knn_distance": -distances[:, -1], "knn_density": -distances.mean(-1)}


def nearest_distances(
    queries: Iterable[Tensor],
    references: Callable[[], Iterable[Tensor]],
    k: int = 10,
    *,
    same: bool = False,
) -> Iterator[Tensor]:
    """Distances between unit vectors, sqrt(2 - 2 cos), to the k nearest reference rows.

    Rows are divided by their L2 norm first; a row of zeros stays one, at cosine 0 to everything. Computed in
    float32, float64 for float64 rows: a cosine's rounding makes distances below about 1e-3 inexact in
    float32. Memory is that of one block of queries and one of references.

    Args:
        queries: blocks (b, r).
        references: gives the blocks (c, r) of the reference set, once for each block of queries.
        k: neighbours.
        same: the queries are the reference set, in the same order: no row is its own neighbour.

    Returns:
        (b, k) ascending, for each block of queries.

    Raises:
        SettingsError: k is not positive, or the reference set has fewer rows to offer.
    """
    if k < 1:
        raise SettingsError(f"k = {k}: give a positive number of neighbours")
    first = 0
    for block in queries:
        yield _block_distances(unit_rows(block), references(), k, first if same else None)
        first += len(block)


def unit_rows(h: Tensor) -> Tensor:
    """h / ||h||_2 by rows, in float32 or float64; rows of zeros stay."""
    check_matrix("a block of embeddings", h)
    return torch.nn.functional.normalize(
        h.to(torch.promote_types(h.dtype, torch.float32)), eps=1e-30
    )


def _block_distances(
    query: Tensor, references: Iterable[Tensor], k: int, first: int | None
) -> Tensor:
    offered = -(first is not None)

    def passing() -> Iterator[Tensor]:
        nonlocal offered
        for block in references:
            offered += len(block)
            yield unit_rows(block).to(query)

    best, _ = nearest_to(query, passing(), k, first)
    if offered < k:
        raise SettingsError(
            f"k = {k}: a reference set of {offered + (first is not None)} samples has {offered} neighbours "
            "to offer; give more samples or a smaller k"
        )
    return (2 - 2 * best).clamp_(min=0).sqrt_()
