"""nearest: exact search by cosine, a block of queries against a block of references at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows, as_tensor

# On a CPU: rows of a block; wide references are faster in blocks of no more than so many numbers.
QUERIES, REFERENCES, REFERENCE_NUMBERS = 2048, 8192, 1 << 22
# On a GPU, of float32: queries as they stay there while the references pass by once (a block of which is no
# larger), and their cosines.
QUERY_BYTES, COSINE_BYTES = 1 << 30, 2 << 30
TIED_ROWS = 4096  # that are sorted whole, at a time


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
    together = QUERIES
    size = max(k, min(REFERENCES, REFERENCE_NUMBERS // queries.num_features))
    if torch.device(device).type == "cuda":
        together = max(1, QUERY_BYTES // (4 * queries.num_features))
        size = max(k, min(together, COSINE_BYTES // (4 * min(together, len(queries)))))
    start = 0
    for block in queries.blocks(together):
        query = unit_block(block, device)
        passing = (unit_block(part, device) for part in references.blocks(size))
        found, rows = nearest_to(query, passing, k, start if itself else None)
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
    h = as_tensor(block).to(device).float()
    if not bool(torch.isfinite(h).all()):
        raise SettingsError("the representations hold NaN or Inf: leave such rows out")
    return torch.nn.functional.normalize(h, eps=1e-30)


def unit_blocks(rows: FeatureRows, size: int) -> Iterator[np.ndarray]:
    """All rows at length 1, float32, a block at a time."""
    for block in rows.blocks(size):
        yield unit_block(block).numpy()


def nearest_to(
    query: Tensor, references: Iterable[Tensor], k: int, first: int | None = None
) -> tuple[Tensor, Tensor]:
    """The k largest cosines (or all, of fewer) with rows that pass by in blocks; of equal ones the first.

    Args:
        query: (b, r) at length 1. references: blocks (c, r) at length 1, on the same device.
        first: the queries are the references from this row on: no row is its own neighbour.

    Returns:
        cosines (b, k), descending, and rows (b, k) int64.
    """
    best = query.new_empty((len(query), 0))
    rows = torch.empty((len(query), 0), dtype=torch.int64, device=query.device)
    start = 0
    for block in references:
        cosine = query @ block.T
        if first is not None:
            own = torch.arange(first - start, first - start + len(query), device=query.device)
            here = (own >= 0) & (own < len(block))
            cosine[here.nonzero()[:, 0], own[here]] = -torch.inf
        if best.shape[1] == k:
            values, at = _above(cosine, best[:, -1:], k)
        else:
            values, at = _largest(cosine, min(k, len(block)))
        # What came before has lower rows: a stable sort keeps it first among equals.
        values, rows_at = torch.cat([best, values], 1), torch.cat([rows, at + start], 1)
        best, order = values.sort(dim=1, descending=True, stable=True)
        best, rows = best[:, :k], rows_at.gather(1, order)[:, :k]
        start += len(block)
    return best, rows


def _above(cosine: Tensor, bar: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of each row (b, c) what can still be among its k largest: entries above its bar (b, 1), by column.

    The later the block, the fewer there are; to list them costs much less than to select. Rows with fewer
    than others are filled up with minus infinity.
    """
    width = cosine.shape[1]
    if cosine.device.type == "cpu":  # NumPy is several times faster at it
        flat = torch.from_numpy(np.flatnonzero(cosine.numpy() > bar.numpy()))
    else:
        flat = (cosine > bar).flatten().nonzero()[:, 0]
    if len(flat) > cosine.numel() // 8:
        return _largest(cosine, min(k, width))
    row, column = flat // width, flat % width
    counts = row.bincount(minlength=len(cosine))
    widest = int(counts.max())
    if widest > max(4 * k, width // 8):  # one row's entries would make the list long for all
        return _largest(cosine, min(k, width))
    place = torch.arange(len(flat), device=flat.device) - (counts.cumsum(0) - counts)[row]
    values = cosine.new_full((len(cosine), widest), -torch.inf)
    at = torch.zeros(values.shape, dtype=torch.int64, device=flat.device)
    values[row, place] = cosine.flatten()[flat]
    at[row, place] = column
    return values, at


def _largest(cosine: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, equal ones by column."""
    values, at = cosine.topk(min(k + 1, cosine.shape[1]), dim=1)
    equal = values[:, 1:] == values[:, :-1]
    # One more is as large as the last that is taken: topk may have left out the first of them.
    open_end = equal[:, k - 1] if equal.shape[1] == k else equal.new_zeros(len(equal))
    tied = equal.any(1)
    values, at = values[:, :k], at[:, :k]
    if bool(tied.any()):
        columns, order = at[tied].sort(dim=1)
        found, order = values[tied].gather(1, order).sort(dim=1, descending=True, stable=True)
        values[tied], at[tied] = found, columns.gather(1, order)
        for some in open_end.nonzero()[:, 0].split(TIED_ROWS):
            found, columns = cosine[some].sort(dim=1, descending=True, stable=True)
            values[some], at[some] = found[:, :k], columns[:, :k]
    return values, at
