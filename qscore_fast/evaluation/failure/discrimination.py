"""How well a score tells correct samples from wrong ones: areas under the ROC and PR curves, FPR at TPR.

All functions take :class:`BlockCounts` with any leading dimensions and return float64 of these, NaN where
the value is undefined.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from qscore_fast.evaluation.failure.block_counts import BlockCounts

Area = Literal["step", "trapezoid"]
FprConvention = Literal["at_least", "fd_shifts", "nearest"]


def auroc(counts: BlockCounts) -> np.ndarray:
    """The probability that a correct sample scores above a wrong one, ties counted half."""
    below = counts.successes - counts.correct / 2
    pairs = np.einsum("...i,...i->...", counts.wrong, below)
    return ratio(pairs, counts.num_correct * counts.num_wrong)


def auprc_success(counts: BlockCounts, area: Area = "step") -> np.ndarray:
    """The area under the precision-recall curve with correct samples as positives."""
    found, covered = counts.successes, counts.covered
    precision = found / np.maximum(covered, 1)
    if area == "trapezoid":
        return _trapezoid(counts.correct, precision, covered, counts.num_correct)
    return ratio(np.einsum("...i,...i->...", counts.correct, precision), counts.num_correct)


def auprc_error(counts: BlockCounts, area: Area = "step") -> np.ndarray:
    """The same with wrong samples as positives, from the lowest score upwards."""
    found = counts.num_wrong[..., None] - counts.errors + counts.wrong
    covered = counts.num_samples[..., None] - counts.covered + counts.size
    precision = found / np.maximum(covered, 1)
    if area == "trapezoid":
        wrong, precision, covered = (a[..., ::-1] for a in (counts.wrong, precision, covered))
        return _trapezoid(wrong, precision, covered, counts.num_wrong)
    return ratio(np.einsum("...i,...i->...", counts.wrong, precision), counts.num_wrong)


def fpr_at_tpr(
    counts: BlockCounts, tpr: float = 0.95, convention: FprConvention = "at_least"
) -> np.ndarray:
    """The share of wrong samples accepted by the threshold that accepts the share ``tpr`` of the correct.

    Args:
        convention: which threshold; see :func:`qscore_fast.evaluation.failure.fpr_at_tpr`.
    """
    true_positive = ratio(counts.successes, counts.num_correct[..., None])
    if convention == "nearest":
        # The list ends where the recall is full, and of what is as near the lowest threshold counts.
        is_past = counts.successes - counts.correct == counts.num_correct[..., None]
        # Rounded: 0.6 and 0.4 are as near to 0.5.
        distance = np.round(np.abs(true_positive - tpr), 12)
        distance = np.where(is_past, np.inf, distance)[..., ::-1]
        at = distance.shape[-1] - 1 - np.argmin(distance, axis=-1)
    else:
        at = np.argmax(
            true_positive >= (tpr - 0.0005 if convention == "fd_shifts" else tpr), axis=-1
        )
    accepted = np.take_along_axis(counts.errors, at[..., None], axis=-1)[..., 0]
    return ratio(accepted, np.where(counts.num_correct > 0, counts.num_wrong, 0))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the denominator is 0."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=denominator != 0)


def _trapezoid(
    positives: np.ndarray, precision: np.ndarray, covered: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Straight lines between the points of the curve, from recall 0 and precision 1."""
    precision = np.where(covered > 0, precision, 1.0)
    before = np.concatenate([np.ones_like(precision[..., :1]), precision[..., :-1]], axis=-1)
    return ratio(np.einsum("...i,...i->...", positives, (before + precision) / 2), total)
