"""Selective prediction: risk among the most trusted samples, and the areas under its curve.

All functions take :class:`BlockCounts` with any leading dimensions and return float64 of these, NaN where
the value is undefined. A rank k inside a block of equal scores has the risk that is expected when the block
is in random order.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from qscore_fast.evaluation.failure.block_counts import BlockCounts, harmonic_numbers
from qscore_fast.evaluation.failure.discrimination import ratio

AurcConvention = Literal["mean", "trapezoid", "torch_uncertainty", "fd_shifts", "confidnet"]
Optimum = Literal["closed_form", "empirical"]


def aurc(counts: BlockCounts, convention: AurcConvention = "mean") -> np.ndarray:
    """The area under the risk-coverage curve; see :func:`qscore_fast.evaluation.failure.aurc`."""
    if convention == "fd_shifts":
        return _between_blocks(counts, whole=True)
    if convention == "confidnet":
        return _between_blocks(counts, whole=False)
    n = counts.num_samples
    if convention == "mean":
        return counts.sum_of_risks / n
    ends = (counts.first_risk + counts.num_wrong / n) / 2
    return _normalised((counts.sum_of_risks - ends) / n, n, convention)


def best_aurc(counts: BlockCounts, convention: AurcConvention = "mean") -> np.ndarray:
    """The area of the best score there can be: all correct samples first, all scores different."""
    n, num_wrong, num_correct = counts.num_samples, counts.num_wrong, counts.num_correct
    harmonic = harmonic_numbers(int(n.max()))
    parts = harmonic[n.astype(np.intp)] - harmonic[num_correct.astype(np.intp)]
    total = num_wrong - num_correct * parts
    if convention == "mean":
        return total / n
    first, last = np.where(num_correct > 0, 0.0, 1.0), num_wrong / n
    if convention == "fd_shifts":
        return (total + (first - last) / 2) / n
    if convention == "confidnet":
        before = np.maximum(num_wrong - 1, 0) / np.maximum(n - 1, 1)
        return np.where(n > 2, (total - last - (first + before) / 2) / n, np.nan)
    return _normalised((total - (first + last) / 2) / n, n, convention)


def e_aurc(
    counts: BlockCounts, convention: AurcConvention = "mean", optimum: Optimum = "closed_form"
) -> np.ndarray:
    """AURC less that of the best score there can be."""
    if optimum == "empirical":
        return aurc(counts, convention) - best_aurc(counts, convention)
    accuracy = counts.num_correct / counts.num_samples
    # x ln x is 0 at 0.
    best = 1 - accuracy + accuracy * np.log(np.where(accuracy > 0, accuracy, 1.0))
    return aurc(counts, convention) - best


def augrc(counts: BlockCounts) -> np.ndarray:
    """The area under the share of all samples that is accepted and wrong, over coverage 0 to 1."""
    middle = counts.errors - counts.wrong / 2
    return np.einsum("...i,...i->...", counts.size, middle) / counts.num_samples**2


def selective_accuracy(counts: BlockCounts, coverage: float) -> np.ndarray:
    """The share of correct samples among the ``ceil(coverage n)`` most trusted."""
    # 0.07 * 100 is a little more than 7.
    k = np.maximum(np.ceil(counts.num_samples * coverage - 1e-9), 1)
    at = np.sum(counts.covered < k[..., None], axis=-1)[..., None]
    size, wrong, covered, errors = (
        np.take_along_axis(a, at, axis=-1)[..., 0]
        for a in (counts.size, counts.wrong, counts.covered, counts.errors)
    )
    return 1 - (errors - (covered - k) * wrong / size) / k


def coverage_at_risk(counts: BlockCounts, risk: float) -> np.ndarray:
    """The largest share of samples that a threshold accepts with at most this risk; NaN if none does."""
    held = (counts.risk <= risk) & (counts.covered > 0)
    most = np.max(np.where(held, counts.covered, 0.0), axis=-1)
    return np.where(most > 0, most / counts.num_samples, np.nan)


def _normalised(area: np.ndarray, n: np.ndarray, convention: AurcConvention) -> np.ndarray:
    if convention == "trapezoid":
        return area
    return ratio(area * n, n - 1)


def _between_blocks(counts: BlockCounts, whole: bool) -> np.ndarray:
    """Straight lines between the risks at the ends of the blocks.

    Args:
        whole: from coverage 0, with the first block's risk, to 1; else from the end of the first
            block to that of the last but one.
    """
    n = counts.num_samples
    before = np.concatenate([np.zeros_like(counts.risk[..., :1]), counts.risk[..., :-1]], axis=-1)
    is_first = counts.covered - counts.size == 0
    middle = (np.where(is_first, counts.risk, before) + counts.risk) / 2
    if whole:
        return np.einsum("...i,...i->...", counts.size, middle) / n
    inner = ~is_first & (counts.covered < n[..., None])
    area = np.einsum("...i,...i->...", counts.size * inner, middle) / n
    return np.where(np.sum(counts.size > 0, axis=-1) > 2, area, np.nan)
