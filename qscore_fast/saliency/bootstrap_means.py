"""Means of columns on the same resamples of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from qscore_fast.evaluation.failure.resampling import (
    Interval,
    check_resampling,
    chunks,
    percentile_interval,
    resample_counts,
)
from qscore_fast.scoring.prefetch import default_workers


@dataclass(frozen=True)
class MeanEstimate:
    """The mean of a column's defined values.

    Attributes:
        mean: None where there is none.
        n: how many there are.
        interval: of the mean; None without a value or without resamples.
    """

    mean: float | None
    n: int
    interval: Interval | None = None


def mean_resamples(columns: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """The mean of every column's defined values in resamples of the rows, drawn with replacement.

    Args:
        columns: (N, K) float64; NaN where a value is undefined.
        seed: the result depends on it and on the arguments alone, not on the number of cores.

    Returns:
        (num_resamples, K) float64; NaN where a resample has no defined value of the column.
    """
    check_resampling(num_resamples, seed)
    num_rows = len(columns)
    result = np.full((num_resamples, columns.shape[1]), np.nan)
    if not num_rows:
        return result
    defined = (~np.isnan(columns)).astype(np.float64)
    values = np.nan_to_num(columns, nan=0.0)
    spans = chunks(num_rows, num_resamples)

    def compute(index: int) -> None:
        span = spans[index]
        counts = resample_counts(num_rows, span, index, seed).astype(np.float64)
        drawn = counts @ defined
        with np.errstate(invalid="ignore", divide="ignore"):
            result[span.start : span.stop] = (counts @ values) / drawn

    with ThreadPoolExecutor(default_workers(), thread_name_prefix="qscore-bootstrap") as pool:
        for _ in pool.map(compute, range(len(spans))):
            pass
    return result


def mean_estimates(
    columns: np.ndarray, resamples: np.ndarray | None, level: float = 0.95
) -> list[MeanEstimate]:
    """One for each column of (N, K), with the intervals of :func:`mean_resamples`, if given."""
    found = []
    for k in range(columns.shape[1]):
        values = columns[:, k][~np.isnan(columns[:, k])]
        interval = (
            percentile_interval(resamples[:, k], level)
            if resamples is not None and len(values)
            else None
        )
        found.append(
            MeanEstimate(float(values.mean()) if len(values) else None, len(values), interval)
        )
    return found


def stacked(columns: Sequence[np.ndarray]) -> np.ndarray:
    """(N, K) float64 of K columns (N,)."""
    return np.stack(columns, axis=1).astype(np.float64)
