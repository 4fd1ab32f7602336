"""The risk-coverage curve of a score, for a figure or a choice of threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qscore_fast.evaluation.failure.ranking import Ranking


@dataclass(frozen=True)
class RiskCoverageCurve:
    """One point for each different score, the highest first; float64 (m,) each.

    Attributes:
        threshold: accept the samples that score at least this.
        coverage: the share of the samples that is accepted.
        risk: the share of wrong samples among the accepted.
        generalised_risk: the share of all samples that is accepted and wrong.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray
    generalised_risk: np.ndarray


def risk_coverage_curve(score: npt.ArrayLike, correct: npt.ArrayLike) -> RiskCoverageCurve:
    """The curve of a score.

    Args:
        score: (n,) numbers; higher means more trusted.
        correct: (n,) bool, or 0 and 1.

    Raises:
        SettingsError: as for :meth:`Ranking.of`.
    """
    ranking = Ranking.of(score, correct)
    counts = ranking.counts
    n = counts.num_samples
    return RiskCoverageCurve(ranking.threshold, counts.covered / n, counts.risk, counts.errors / n)
