"""Ranking: a confidence score against correctness, sorted once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure.block_counts import BlockCounts


@dataclass(frozen=True)
class Ranking:
    """n samples in m blocks of equal scores, the highest score first.

    Attributes:
        order: (n,) int64, the samples by descending score.
        starts: (m,) int64, where each block starts in ``order``.
        correct: (n,) float64, 1 or 0, in that order.
        threshold: (m,) float64, the score of each block.
    """

    order: np.ndarray
    starts: np.ndarray
    correct: np.ndarray
    threshold: np.ndarray

    @classmethod
    def of(cls, score: npt.ArrayLike, correct: npt.ArrayLike, name: str = "score") -> Ranking:
        """Sort: O(n log n).

        Args:
            score: (n,) numbers; higher means more trusted. Infinite ones are allowed.
            correct: (n,) bool, or 0 and 1.
            name: what the errors call the score.

        Raises:
            SettingsError: shapes differ, nothing is there, a score is NaN, or correct is neither 0 nor 1.
        """
        outcome = as_correct(correct)
        values = as_score(score, len(outcome), name)
        order = np.argsort(-values, kind="stable")
        ranked = values[order]
        starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
        return cls(order, starts, outcome[order].astype(np.float64), ranked[starts])

    @cached_property
    def wrong(self) -> np.ndarray:
        """(n,) uint8, 1 or 0, in that order."""
        return (1 - self.correct).astype(np.uint8)

    @cached_property
    def counts(self) -> BlockCounts:
        """The blocks of the samples as they are."""
        return self.resampled(np.ones((1, len(self.order))), squeeze=True)

    def resampled(self, weights: np.ndarray, squeeze: bool = False) -> BlockCounts:
        """The blocks where each sample occurs so many times. No sorting: the order does not change.

        Args:
            weights: (b, n) whole numbers, in the order of the samples before they were ranked.
            squeeze: drop b, which is 1.
        """
        size = np.take(weights, self.order, axis=1).astype(np.float64, copy=False)
        correct = size * self.correct
        if len(self.starts) < len(self.order):
            size = np.add.reduceat(size, self.starts, axis=1)
            correct = np.add.reduceat(correct, self.starts, axis=1)
        wrong = size - correct
        return BlockCounts(correct[0], wrong[0]) if squeeze else BlockCounts(correct, wrong)


def as_correct(correct: npt.ArrayLike) -> np.ndarray:
    """(n,) bool; SettingsError if it is not one row of 0 and 1."""
    given = np.asarray(correct)
    if given.ndim != 1 or len(given) == 0:
        raise SettingsError(
            f"correct has the shape {given.shape}: give one value a sample, for one sample at least"
        )
    if given.dtype != bool:
        bad = np.flatnonzero(~np.isin(given, (0, 1)))
        if len(bad):
            raise SettingsError(
                f"correct[{bad[0]}] is {given[bad[0]]!s}: give True or 1 for correct, False or 0 for wrong"
            )
    return given.astype(bool)


def as_score(score: npt.ArrayLike, num_samples: int, name: str) -> np.ndarray:
    """(n,) float64; SettingsError if its shape is another one or it holds NaN."""
    try:
        values = np.asarray(score, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{name} does not hold numbers ({error}): give one a sample") from error
    if values.shape != (num_samples,):
        raise SettingsError(
            f"{name} has the shape {values.shape}, correct has ({num_samples},): give one score for each "
            "sample, in the same order"
        )
    bad = np.flatnonzero(np.isnan(values))
    if len(bad):
        raise SettingsError(
            f"{name} is NaN for {len(bad):,} of {num_samples:,} samples, the first at index {bad[0]}: leave "
            "these samples out, or give them the score that you mean"
        )
    return values
