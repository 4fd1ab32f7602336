"""RepresentationMoments: all that the streamed measures need to know of N representations, in O(r^2)."""

from __future__ import annotations

import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.measures.row_blocks import (
    Array,
    checked_device,
    device_of,
    finite_rows,
    row_blocks,
)
from qscore_fast.evaluation.measures.spectrum import Spectrum, spectrum_of
from qscore_fast.evaluation.scatter import Scatter


class RepresentationMoments:
    """Moments of the rows of representations and of the same rows at length 1, one batch at a time.

    Everything is summed in float64, whatever the input's dtype, and never as a difference of large sums:
    data with a mean of 1000 loses nothing. Moments of the parts of a population merge to those of the whole,
    in any order, to rounding. No matrix has N rows.

    Cost: 1.25 n r^2 multiply-adds in float64 for n rows of r >= 2048 (half of it without ``unit_rows``), and
    two (r, r) float64 matrices: 67 MB at r = 2048, 268 MB at 4096. At most 16 MiB (or one row) are widened
    to float64 at a time. The spectrum costs O(r^3), once for all measures.

    A row with NaN or Inf, or with a norm of 1e140 or more, is counted in ``num_invalid`` and left out. A zero
    row is counted in ``num_zero``; it belongs to the rows but has no direction, so it is no unit row.

    Args:
        num_features: r.
        unit_rows: whether to keep the scatter of the unit rows, for self-clustering and normalised std.
        device: where to sum; by default that of the first batch (the CPU if it has no float64).

    Attributes:
        num_zero: rows of zeros.
        num_invalid: rows left out.
        l0_sum: sum over the rows of the number of entries that are not 0.
        l1_ratio_sum: sum over the non-zero rows of ``(|x|_1 / |x|_2)^2``.

    Raises:
        SettingsError: r is below 1, or the device cannot be used; in ``update``, a shape or dtype that does
            not fit.
    """

    def __init__(
        self,
        num_features: int,
        *,
        unit_rows: bool = True,
        device: str | torch.device | None = None,
    ) -> None:
        if num_features < 1:
            raise SettingsError(
                f"num_features is {num_features}; an encoder has at least one feature"
            )
        self.num_features = int(num_features)
        self.unit_rows = bool(unit_rows)
        self._device = None if device is None else checked_device(device)
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        self.num_zero = self.num_invalid = 0
        self.l0_sum = self.l1_ratio_sum = 0.0
        self._rows: Scatter | None = None
        self._units: Scatter | None = None
        self._spectra: dict[bool, Spectrum] = {}

    def update(self, h: Array) -> RepresentationMoments:
        """Add the rows of ``h`` (..., r): a tensor or NumPy array of any real dtype."""
        device = device_of(h) if self._device is None else self._device
        for block in row_blocks(h, self.num_features, device):
            rows, l2 = finite_rows(block)
            self.num_invalid += len(block) - len(rows)
            self._scatter(device).add(rows)
            self.l0_sum += float(rows.count_nonzero())
            nonzero = l2 > 0
            self.num_zero += len(rows) - int(nonzero.sum())
            if not bool(nonzero.all()):
                rows, l2 = rows[nonzero], l2[nonzero]
            units = rows / l2[:, None]
            self.l1_ratio_sum += float(units.abs().sum(1).square().sum())
            if self.unit_rows:
                self._unit_scatter(device).add(units)
        self._device = device
        self._spectra.clear()
        return self

    def merge(self, other: RepresentationMoments) -> RepresentationMoments:
        """Add the moments of other rows of the same features."""
        mine, others = (self.num_features, self.unit_rows), (other.num_features, other.unit_rows)
        if mine != others:
            raise SettingsError(
                "cannot merge moments of r = {} with unit_rows = {} into those of r = {} with "
                "unit_rows = {}".format(*others, *mine)
            )
        device = self._device or other._device or torch.device("cpu")
        if other._rows is not None:
            self._scatter(device).merge(other._rows)
        if other._units is not None:
            self._unit_scatter(device).merge(other._units)
        self.num_zero += other.num_zero
        self.num_invalid += other.num_invalid
        self.l0_sum += other.l0_sum
        self.l1_ratio_sum += other.l1_ratio_sum
        self._spectra.clear()
        return self

    def _scatter(self, device: torch.device) -> Scatter:
        if self._rows is None:
            self._rows = Scatter(self.num_features, device)
        return self._rows

    def _unit_scatter(self, device: torch.device) -> Scatter:
        if self._units is None:
            self._units = Scatter(self.num_features, device)
        return self._units

    @property
    def rows(self) -> Scatter:
        """Count, mean and scatter of the finite rows."""
        return self._rows or Scatter(self.num_features, self._device or torch.device("cpu"))

    @property
    def units(self) -> Scatter:
        """Count, mean and scatter of the non-zero rows at length 1.

        Raises:
            SettingsError: they were not asked for.
        """
        if not self.unit_rows:
            raise SettingsError(
                "unit_rows is False; this measure needs moments with unit_rows=True"
            )
        return self._units or Scatter(self.num_features, self._device or torch.device("cpu"))

    @property
    def num_samples(self) -> int:
        """Finite rows, zero rows among them."""
        return 0 if self._rows is None else self._rows.count

    @property
    def num_nonzero(self) -> int:
        """Rows that have a direction."""
        return self.num_samples - self.num_zero

    @property
    def mean(self) -> Tensor:
        """(r,) float64; zeros without rows."""
        return self.rows.mean

    def spectrum(self, *, centred: bool) -> Spectrum:
        """The squared singular values of all rows, kept until rows are added."""
        if centred not in self._spectra:
            self._spectra[centred] = spectrum_of(self.rows, centred)
        return self._spectra[centred]

    def __repr__(self) -> str:
        return (
            f"RepresentationMoments(num_features={self.num_features}, num_samples={self.num_samples}, "
            f"num_zero={self.num_zero}, num_invalid={self.num_invalid})"
        )
