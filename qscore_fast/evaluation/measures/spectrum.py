"""Spectrum: eigenvalues of a scatter matrix, with rounding noise told from value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qscore_fast.evaluation.scatter import Scatter

_EPS = float(np.finfo(np.float64).eps)
# Sums over many blocks gather more rounding than the eigenvalues of a small matrix do.
_MIN_NOISE = 256
# Rows that differ by less than this, relative to their mean, differ by the rounding of that mean.
_EQUAL = 64 * _EPS


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Squared singular values of the matrix of rows X (N, r), centred or not.

    A Gram matrix shows singular values down to ``resolution`` (about 1e-6) times the largest; what is below
    is rounding noise and is set to 0.

    Attributes:
        values: (min(N, r),) float64, descending: ``s_j^2``; centred, they are N - 1 times the
            covariance's eigenvalues.
        rank: how many are above 0.
        centred: whether the column means were taken off.
        resolution: the smallest ratio ``s_j / s_1`` that is told from 0.
    """

    values: np.ndarray
    rank: int
    centred: bool
    resolution: float

    @property
    def singular_values(self) -> np.ndarray:
        """(min(N, r),) float64, descending."""
        return np.sqrt(self.values)

    @property
    def smallest_ratio(self) -> float:
        """The smallest singular value above 0 over the largest; needs a rank above 0."""
        return float(np.sqrt(self.values[self.rank - 1] / self.values[0]))

    @property
    def shares(self) -> np.ndarray:
        """(min(N, r),) float64: the values over their sum; needs a rank above 0."""
        scaled = self.values / self.values[0]
        return scaled / scaled.sum()


@dataclass(frozen=True, eq=False)
class _Part:
    """The columns that are not all zero: exact zeros need no eigenvalue, and no noise."""

    matrix: Tensor
    alive: Tensor
    floor: float


def _part(scatter: Scatter, centred: bool) -> _Part:
    matrix = scatter.centred if centred else scatter.uncentred
    alive = matrix.diagonal().nonzero().squeeze(1)
    floor = rounding_of_mean(scatter) if centred else 0.0
    return _Part(matrix[alive][:, alive], alive, floor)


def rounding_of_mean(scatter: Scatter) -> float:
    """The sum of squared deviations that equal rows may show, because their mean is rounded."""
    return float(scatter.count * (_EQUAL * scatter.mean.norm()) ** 2)


def _noise(part: _Part) -> float:
    return max(len(part.alive), _MIN_NOISE) * _EPS


def _limit(part: _Part, largest: float) -> float:
    return max(_noise(part) * largest, part.floor)


def spectrum_of(scatter: Scatter, centred: bool) -> Spectrum:
    """The spectrum, of O(r^3) cost; all zeros without rows."""
    part = _part(scatter, centred)
    num_values = min(scatter.count, len(scatter.mean))
    values = np.zeros(num_values)
    if len(part.alive):
        found = torch.linalg.eigvalsh(part.matrix).cpu().numpy()[::-1]
        found = np.where(found > _limit(part, found[0]), found, 0.0)
        found = found[:num_values]
        values[: len(found)] = found
    return Spectrum(
        values=values,
        rank=int(np.count_nonzero(values)),
        centred=centred,
        resolution=float(np.sqrt(_noise(part))),
    )


def whitening(scatter: Scatter) -> Tensor:
    """(r, rank) float64 W with ``|x W|^2`` the leverage of row x among the uncentred rows."""
    part = _part(scatter, centred=False)
    if not len(part.alive):
        return part.matrix.new_zeros(len(scatter.mean), 0)
    values, vectors = torch.linalg.eigh(part.matrix)
    kept = values > _limit(part, float(values[-1]))
    columns = vectors[:, kept] / values[kept].sqrt()
    result = columns.new_zeros(len(scatter.mean), columns.shape[1])
    result[part.alive] = columns
    return result
