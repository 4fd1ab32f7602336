"""Alignment: how close two views of the same image lie."""

from __future__ import annotations

import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.measures.measured import Measured
from qscore_fast.evaluation.measures.row_blocks import MAX_NORM, Array, device_of, row_blocks


class Alignment:
    """Alignment loss (Wang and Isola 2020): ``mean |u - v|^alpha`` over pairs of views, at length 1.

    0 where views agree, 2^alpha at most. A pair with a zero row or one that is not finite is left out and
    counted in ``num_invalid``. 0 for a collapsed encoder as well: read it together with uniformity.

    Args:
        num_features: r.
        alpha: above 0; the paper's is 2.
    """

    def __init__(self, num_features: int, alpha: float = 2.0) -> None:
        if not alpha > 0:
            raise SettingsError(f"alpha is {alpha}; it must be above 0 (the paper's is 2)")
        self.num_features, self.alpha = int(num_features), float(alpha)
        self.reset()

    def reset(self) -> None:
        """Forget all pairs."""
        self.num_pairs = self.num_invalid = 0
        self._sum = 0.0

    def update(self, u: Array, v: Array) -> Alignment:
        """Add the pairs (u_i, v_i) of ``u`` and ``v``, both (..., r)."""
        device = device_of(u, "u")
        device_of(v, "v")
        if u.shape != v.shape:
            raise SettingsError(
                f"u has shape {tuple(u.shape)} and v {tuple(v.shape)}; pairs need the same"
            )
        blocks = (row_blocks(h, self.num_features, device, n) for h, n in ((u, "u"), (v, "v")))
        for a, b in zip(*blocks, strict=True):
            norms = torch.stack([a.norm(dim=1), b.norm(dim=1)])
            valid = ((norms > 0) & (norms < MAX_NORM)).all(0)
            distance = (a / norms[0, :, None] - b / norms[1, :, None]).norm(dim=1)[valid]
            self.num_invalid += len(a) - len(distance)
            self.num_pairs += len(distance)
            self._sum += float(distance.pow(self.alpha).sum())
        return self

    def update_views(self, views: Array) -> Alignment:
        """Add all pairs of the q views of every sample; ``views`` is (n, q, r)."""
        for i in range(views.shape[1]):
            for j in range(i):
                self.update(views[:, i], views[:, j])
        return self

    def merge(self, other: Alignment) -> Alignment:
        """Add the pairs of another one with the same alpha."""
        mine, others = (self.num_features, self.alpha), (other.num_features, other.alpha)
        if mine != others:
            raise SettingsError(
                "cannot merge alignment of r = {} with alpha = {} into one of r = {} with alpha = {}".format(
                    *others, *mine
                )
            )
        self.num_pairs += other.num_pairs
        self.num_invalid += other.num_invalid
        self._sum += other._sum
        return self

    def compute(self) -> Measured:
        """The value."""
        about = {"alpha": self.alpha, "pairs": self.num_pairs, "invalid_pairs": self.num_invalid}
        if not self.num_pairs:
            return Measured.undefined("there is no pair of finite rows that are not zero", **about)
        return Measured.of(self._sum / self.num_pairs, **about)
