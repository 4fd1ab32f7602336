"""Scores of a representation that need nothing but the vector itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.functional import highly_active, row_stats


def row_scores(h: Tensor, eps: float = 4.0) -> dict[str, Tensor]:
    """Every score of :data:`RIVALS` that is a function of h alone.

    Args:
        h: (n, r) floating point, r >= 2.
        eps: a feature is highly active above mu + eps sigma.

    Returns:
        v1_score, l1_norm, l2_norm, max_z, max_activation, num_highly_active, hoyer, gini: (n,) float32,
        float64 for float64 h. A row of zeros has 0 in all of them; a constant one 0 in v1_score and max_z. A
        row with NaN or Inf has NaN in v1_score, max_z, hoyer and gini.

    Raises:
        SettingsError: h is no matrix with two features or more.
    """
    check_matrix("h", h)
    stats = row_stats(h)
    largest = h.amax(-1).to(stats.mean.dtype)
    max_z = _quotient(largest - stats.mean, stats.std)
    return {
        "v1_score": v1_score(max_z, stats.l1, stats.l2),
        "l1_norm": stats.l1,
        "l2_norm": stats.l2,
        "max_z": max_z,
        "max_activation": largest,
        "num_highly_active": highly_active(h, eps).sum(-1).to(stats.mean.dtype),
        "hoyer": hoyer(stats.l1, stats.l2, h.shape[-1]),
        "gini": gini(h),
    }


def v1_score(max_z: Tensor, l1: Tensor, l2: Tensor) -> Tensor:
    """(...,): max z over the L1 norm of the unit vector; 0 for a row of zeros."""
    return _quotient(max_z * l2, l1)


def hoyer(l1: Tensor, l2: Tensor, num_features: int) -> Tensor:
    """(...,): 0 for entries of equal size, 1 for one entry that is not 0; 0 for a row of zeros."""
    root = math.sqrt(num_features)
    return torch.where(l2 == 0, 0.0, (root - _quotient(l1, l2)) / (root - 1))


def gini(h: Tensor) -> Tensor:
    """(...,): 0 for entries of equal size, 1 - 1/r for one entry that is not 0; 0 for a row of zeros.

    Args:
        h: (..., r) floating point; float16 and bfloat16 are computed in float32.
    """
    size = h.abs().to(torch.promote_types(h.dtype, torch.float32)).sort(-1).values
    r = h.shape[-1]
    weight = torch.arange(r, 0, -1, dtype=size.dtype, device=h.device).sub_(0.5).div_(r)
    total = size.sum(-1)
    return torch.where(total == 0, 0.0, 1 - 2 * _quotient(size @ weight, total))


def check_matrix(name: str, h: Tensor) -> None:
    """SettingsError if h is not (n, r), floating point, with r of two or more."""
    if h.ndim != 2 or h.shape[1] < 2 or not h.is_floating_point():
        raise SettingsError(
            f"{name} is {h.dtype} of shape {tuple(h.shape)}: give floating point (samples, features) with "
            "two features or more"
        )


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """a / b for b of 0 or more, and 0 where b is 0; NaN stays NaN."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))
