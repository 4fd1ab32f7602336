"""Scatter: count, mean and centred scatter matrix of rows, streamed and mergeable."""

from __future__ import annotations

import torch
from torch import Tensor

# Of the symmetric product only the panels on and below the diagonal are made: 5/8 of the work at r = 2048.
_PANEL = 512


class Scatter:
    """``sum (x - mean)(x - mean)^T`` over rows x, in float64.

    Every block is centred on its own mean before it is squared, and blocks are joined by the formula of
    Chan, Golub and LeVeque, so that a large mean costs no digits. Memory: one (r, r) matrix.

    Attributes:
        count: rows seen.
        mean: (r,) float64, zeros without rows.
    """

    def __init__(self, num_features: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(num_features, dtype=torch.float64, device=device)
        self._lower = torch.zeros(
            num_features, num_features, dtype=torch.float64, device=device
        )  # valid on and below the diagonal

    def add(self, rows: Tensor) -> None:
        """Add finite rows (b, r) float64."""
        if len(rows):
            mean = rows.mean(0)
            self._join(len(rows), mean, rows - mean)

    def add_deviations(self, rows: Tensor) -> None:
        """Add ``sum x x^T`` of rows (b, r) that are deviations from means of their own; the mean stays.

        Products of float32 rows are float32, and what they add up to is float64.
        """
        _add_gram(self._lower, rows)

    def merge(self, other: Scatter) -> None:
        """Add the rows of another one."""
        self._lower += other._lower.to(self._lower.device)
        if other.count:
            mean = other.mean.to(self.mean.device)
            self._join(other.count, mean, mean.new_zeros(0, len(mean)))

    def _join(self, count: int, mean: Tensor, deviations: Tensor) -> None:
        total = self.count + count
        shift = mean - self.mean
        # What the distance of the means adds is one more row of the product.
        extra = shift * (self.count * count / total) ** 0.5
        _add_gram(self._lower, torch.cat([deviations, extra[None]]))
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def centred(self) -> Tensor:
        """``sum (x - mean)(x - mean)^T``, (r, r) float64."""
        return self._lower.tril() + self._lower.tril(-1).mT

    @property
    def uncentred(self) -> Tensor:
        """``sum x x^T``, (r, r) float64: two positive terms, so nothing cancels."""
        return self.centred + self.count * torch.outer(self.mean, self.mean)

    @property
    def variance(self) -> Tensor:
        """Variance of every column with Bessel's correction, (r,) float64; needs two rows."""
        return self._lower.diagonal() / (self.count - 1)


def _add_gram(lower: Tensor, rows: Tensor) -> None:
    for start in range(0, lower.shape[0], _PANEL):
        panel = rows[:, start : start + _PANEL]
        place = lower[start:, start : start + _PANEL]
        if rows.dtype == lower.dtype:
            place.addmm_(rows[:, start:].mT, panel)
        else:
            place += rows[:, start:].mT @ panel
