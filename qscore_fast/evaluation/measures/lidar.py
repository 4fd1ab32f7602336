"""LiDAR: how many directions tell samples apart, against the spread of their views."""

from __future__ import annotations

import numpy as np
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.measures.measured import Measured
from qscore_fast.evaluation.measures.row_blocks import (
    BLOCK_ELEMENTS,
    MAX_NORM,
    Array,
    device_of,
    row_blocks,
)
from qscore_fast.evaluation.measures.spectral import entropy_rank
from qscore_fast.evaluation.scatter import Scatter

DELTA = 1e-4


class LiDAR:
    """LiDAR (Thilak et al. 2024): exp of the entropy of the eigenvalues of ``S_w^-1/2 S_b S_w^-1/2``.

    Every clean sample is a class and its q augmented views the members. ``S_b`` is the scatter of the n class
    means over n - 1, ``S_w`` that of the views around their means over n (q - 1), plus delta on its
    diagonal. From 1 to min(r, n - 1): take n above r. Two (r, r) float64 matrices; samples
    stream and merge.

    Args:
        num_features: r.
        delta: added to the diagonal of S_w. It has the unit of the squared features, so its effect changes
            with their scale. The paper's is not printed; 1e-4 is common.

    Attributes:
        num_samples: samples with finite views only.
        num_invalid: samples left out.
        num_views: q, from the first batch.
    """

    def __init__(self, num_features: int, delta: float = DELTA) -> None:
        if not delta >= 0:
            raise SettingsError(f"delta is {delta}; it must be 0 or more")
        self.num_features, self.delta = int(num_features), float(delta)
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self.num_invalid = 0
        self.num_views: int | None = None
        self._between: Scatter | None = None
        self._within: Scatter | None = None

    def update(self, views: Array) -> LiDAR:
        """Add n samples; ``views`` is (n, q, r), q >= 2 and the same in every batch."""
        device = device_of(views, "views")
        if views.ndim != 3 or views.shape[1] < 2:
            raise SettingsError(
                f"views has shape {tuple(views.shape)}; pass (samples, views, features), views 2 or more"
            )
        self._check_views(views.shape[1])
        q = int(views.shape[1])
        self.num_views = q
        between, within = self._scatters(device)
        step = max(1, BLOCK_ELEMENTS // (q * self.num_features))
        for start in range(0, len(views), step):
            chunk = views[start : start + step]
            block = torch.cat(list(row_blocks(chunk, self.num_features, device, "views")))
            block = block.reshape(-1, q, self.num_features)
            finite = (block.norm(dim=2) < MAX_NORM).all(1)
            self.num_invalid += int((~finite).sum())
            block = block[finite]
            means = block.mean(1)
            between.add(means)
            within.add_deviations((block - means[:, None]).reshape(-1, self.num_features))
        return self

    def merge(self, other: LiDAR) -> LiDAR:
        """Add the samples of another one."""
        mine, others = (self.num_features, self.delta), (other.num_features, other.delta)
        if mine != others:
            raise SettingsError(
                "cannot merge LiDAR of r = {} with delta = {} into one of r = {} with delta = {}".format(
                    *others, *mine
                )
            )
        if other._between is None or other._within is None or other.num_views is None:
            return self
        self._check_views(other.num_views)
        self.num_views = other.num_views
        between, within = self._scatters(other._between.mean.device)
        between.merge(other._between)
        within.merge(other._within)
        self.num_invalid += other.num_invalid
        return self

    def _check_views(self, q: int) -> None:
        if self.num_views not in (None, q):
            raise SettingsError(
                f"{q} views a sample after samples of {self.num_views}: every sample needs as many"
            )

    def _scatters(self, device: torch.device) -> tuple[Scatter, Scatter]:
        if self._between is None or self._within is None:
            self._between = Scatter(self.num_features, device)
            self._within = Scatter(self.num_features, device)
        return self._between, self._within

    @property
    def num_samples(self) -> int:
        """Samples with finite views only."""
        return 0 if self._between is None else self._between.count

    def eigenvalues(self) -> np.ndarray | None:
        """(r,) float64, descending; None for fewer than two samples or a singular S_w."""
        n, q = self.num_samples, self.num_views
        if n < 2 or q is None or self._between is None or self._within is None:
            return None
        within = self._within.centred / (n * (q - 1))
        within.diagonal().add_(self.delta)
        values, vectors = torch.linalg.eigh(within)
        if not float(values[0]) > len(values) * float(np.finfo(np.float64).eps) * float(values[-1]):
            return None
        whitening = vectors / values.sqrt()
        found = torch.linalg.eigvalsh(whitening.mT @ (self._between.centred / (n - 1)) @ whitening)
        found = found.flip(0).clamp(min=0).cpu().numpy()
        # n means span n - 1 directions; the others hold rounding noise.
        noise = len(found) * np.finfo(np.float64).eps * found[0]
        return np.where((np.arange(len(found)) < n - 1) & (found > noise), found, 0.0)

    def compute(self) -> Measured:
        """The value."""
        about = {"delta": self.delta, "samples": self.num_samples, "views": self.num_views}
        if self.num_samples < 2:
            return Measured.undefined(
                f"{self.num_samples} samples have finite views: two are needed", **about
            )
        found = self.eigenvalues()
        if found is None:
            return Measured.undefined(
                "the scatter of the views is singular: pass a delta above 0", **about
            )
        if not found.any():
            return Measured.undefined("the means of all samples are equal", **about)
        return Measured.of(entropy_rank(found), **about)
