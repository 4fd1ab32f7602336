"""One Gaussian fitted to a reference set: Mahalanobis distance and PCA residual, without labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure.row_scores import check_matrix
from qscore_fast.evaluation.scatter import Scatter


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of a reference set, float64.

    Attributes:
        mean: (r,).
        variances: (r,) eigenvalues of the covariance (divided by n - 1), descending.
        directions: (r, r), its eigenvectors as columns, in the same order.
        num_samples: of the reference set.
    """

    mean: Tensor
    variances: Tensor
    directions: Tensor
    num_samples: int

    @classmethod
    def fit(cls, blocks: Iterable[Tensor]) -> Gaussian:
        """Of a reference set in blocks (c, r), in one pass, in float64.

        Raises:
            SettingsError: fewer than two samples.
        """
        scatter: Scatter | None = None
        for block in blocks:
            check_matrix("a block of embeddings", block)
            if scatter is None:
                scatter = Scatter(block.shape[1], block.device)
            scatter.add(block.double())
        count = 0 if scatter is None else scatter.count
        if scatter is None or count < 2:
            raise SettingsError(
                f"the reference set has {count} samples: a covariance needs two or more"
            )
        variances, directions = torch.linalg.eigh(scatter.centred / (count - 1))
        return cls(scatter.mean, variances.flip(0).clamp(min=0), directions.flip(1), count)

    def mahalanobis(self, h: Tensor, regularisation: float = 1e-6) -> Tensor:
        """The squared distance (h - m)^T (S + delta I)^-1 (h - m).

        Args:
            h: (n, r).
            regularisation: delta as a multiple of the mean variance.

        Returns:
            (n,) float64; a larger one is farther off.

        Raises:
            SettingsError: no more samples than features, so that S has no inverse and delta alone would
                decide; or all samples are equal.
        """
        features = len(self.mean)
        if self.num_samples <= features:
            raise SettingsError(
                f"the reference set has {self.num_samples:,} samples for {features:,} features, so its "
                "covariance has no inverse: give more samples than features"
            )
        delta = regularisation * self.variances.mean()
        if delta + self.variances[-1] <= 0:
            raise SettingsError(
                "the reference set's covariance has no inverse: give a regularisation above 0 and samples "
                "that differ"
            )
        return (self._coordinates(h).square() / (self.variances + delta)).sum(-1)

    def pca_residual(self, h: Tensor, explained: float = 0.9) -> Tensor:
        """The norm of what the leading principal components leave over, ||(I - P P^T)(h - m)||_2.

        Args:
            h: (n, r).
            explained: P holds the fewest components that explain this share of the variance.

        Returns:
            (n,) float64; a larger one is farther off.
        """
        if not 0 < explained < 1:
            raise SettingsError(
                f"explained = {explained:g}: give a share of the variance, in (0, 1)"
            )
        share = self.variances.cumsum(0) / self.variances.sum()
        kept = int((share < explained).sum()) + 1
        return self._coordinates(h)[:, kept:].norm(dim=-1)

    def _coordinates(self, h: Tensor) -> Tensor:
        check_matrix("h", h)
        if h.shape[1] != len(self.mean):
            raise SettingsError(
                f"h has {h.shape[1]} features, the reference set {len(self.mean)}: give those of the same "
                "encoder"
            )
        return (h.double() - self.mean) @ self.directions
