"""nearest: exact search by cosine, a block of queries against a block of references at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows

QUERIES, REFERENCES = 2048, 8192


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The neighbours of every query, the nearest first.

    Attributes:
        similarity: (q, k) float32 cosines, descending.
        index: (q, k) int64 rows of the reference set.
    """

    similarity: np.ndarray
    index: np.ndarray


def nearest(
    queries: FeatureRows,
    references: FeatureRows,
    k: int,
    *,
    itself: bool = False,
    device: str | torch.device = "cpu",
) -> Neighbours:
    """The k references of the largest cosine with each query, exact; of equal ones the lower rows.

    Products are float32. Memory: a block of queries, one of references, their cosines, and the result.

    Args:
        itself: queries and references are the same rows: no row is its own neighbour.

    Raises:
        SettingsError: k below 1 or more than there are, another r, NaN or Inf in the rows.
    """
    check_k(k, len(references) - itself)
    if queries.num_features != references.num_features:
        raise SettingsError(
            f"queries have r = {queries.num_features} and references {references.num_features}: give those "
            "of one encoder"
        )
    similarity = np.empty((len(queries), k), np.float32)
    index = np.empty((len(queries), k), np.int64)
    start = 0
    for block in queries.blocks(QUERIES):
        query = unit_block(block, device)
        found, rows = _of_block(query, references, k, start if itself else None, device)
        similarity[start : start + len(block)] = found.cpu().numpy()
        index[start : start + len(block)] = rows.cpu().numpy()
        start += len(block)
    return Neighbours(similarity, index)


def check_k(k: int, offered: int) -> None:
    """SettingsError unless 1 <= k <= the neighbours on offer."""
    if not 1 <= k <= offered:
        raise SettingsError(
            f"k = {k}, and the reference set has {offered:,} neighbours to offer: give k from 1 to that"
        )


def unit_block(block: np.ndarray, device: str | torch.device = "cpu") -> Tensor:
    """Float32 rows divided by their L2 norm; rows of zeros stay.

    Raises:
        SettingsError: NaN or Inf.
    """
    h = torch.from_numpy(np.array(block, np.float32)).to(device)
    if not bool(torch.isfinite(h).all()):
        raise SettingsError("the representations hold NaN or Inf: leave such rows out")
    return torch.nn.functional.normalize(h, eps=1e-30)


def unit_blocks(rows: FeatureRows, size: int) -> Iterator[np.ndarray]:
    """All rows at length 1, float32, a block at a time."""
    for block in rows.blocks(size):
        yield unit_block(block).numpy()


def _of_block(
    query: Tensor, references: FeatureRows, k: int, first: int | None, device: str | torch.device
) -> tuple[Tensor, Tensor]:
    best = query.new_empty((len(query), 0))
    rows = torch.empty((len(query), 0), dtype=torch.int64, device=query.device)
    start = 0
    for block in references.blocks(REFERENCES):
        cosine = query @ unit_block(block, device).T
        if first is not None:
            own = torch.arange(first - start, first - start + len(query), device=query.device)
            here = (own >= 0) & (own < len(block))
            cosine[here.nonzero()[:, 0], own[here]] = -torch.inf
        values, at = _largest(cosine, min(k, len(block)))
        # What came before has lower rows: a stable sort keeps it first among equals.
        values, rows_at = torch.cat([best, values], 1), torch.cat([rows, at + start], 1)
        best, order = values.sort(dim=1, descending=True, stable=True)
        best, rows = best[:, :k], rows_at.gather(1, order)[:, :k]
        start += len(block)
    return best, rows


def _largest(cosine: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, equal ones by column."""
    values, at = cosine.topk(k, dim=1)
    at, order = at.sort(dim=1)
    values = values.gather(1, order)
    values, order = values.sort(dim=1, descending=True, stable=True)
    at = at.gather(1, order)
    # More are as large as the last that was taken: topk may have left out the first of them.
    tied = (cosine >= values[:, -1:]).sum(1) > k
    if bool(tied.any()):
        sorted_values, sorted_at = cosine[tied].sort(dim=1, descending=True, stable=True)
        values[tied], at[tied] = sorted_values[:, :k], sorted_at[:, :k]
    return values, at
