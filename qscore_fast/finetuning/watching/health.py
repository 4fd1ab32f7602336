"""Health: whether a training still makes sense, by its losses and by the spread of its representations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qscore_fast.errors import QScoreError
from qscore_fast.evaluation.measures.spectral import entropy_rank


class TrainingStopped(QScoreError):
    """Training went wrong and was stopped; the last good checkpoint is kept."""


@torch.no_grad()
def rank_me(h: Tensor) -> float:
    """RankMe of the rows of h (N, r): from 1 to min(N, r). Compare at equal N only. NaN for zeros."""
    values = torch.linalg.svdvals(h.detach().float()).double().cpu().numpy()
    return entropy_rank(values) if values.sum() > 0 else float("nan")


@torch.no_grad()
def normalised_std(h: Tensor) -> float:
    """Mean over the features of the standard deviation of the rows of h (N, r) at length 1, times sqrt(r).

    About 1 where directions are spread, 0 where all rows point the same way (Chen and He 2021, scaled).
    """
    rows = torch.nn.functional.normalize(h.detach().float(), dim=1)
    return float(rows.std(0).mean() * rows.shape[1] ** 0.5)


class Health:
    """Watches for NaN and collapse.

    Args:
        collapse_below: share of the first normalised standard deviation; 0 looks for NaN alone.
        first_std: that value, in a training that goes on.
    """

    def __init__(self, collapse_below: float = 0.1, first_std: float | None = None) -> None:
        self.collapse_below = collapse_below
        self.first_std = first_std

    def measures(self, h: Tensor) -> dict[str, Any]:
        """``rankme`` and ``normalised_std`` of h (N, r), and whether that is a collapse."""
        std = normalised_std(h)
        if self.first_std is None:
            self.first_std = std
        # In NaN no comparison holds, and NaN is not a collapse.
        collapsed = std < self.collapse_below * self.first_std or (
            std == 0 and self.collapse_below > 0
        )
        rank = rank_me(h) if bool(torch.isfinite(h).all()) else float("nan")
        return {"rankme": rank, "normalised_std": std, "collapsed": collapsed}

    def reason(self, finite: bool, measured: dict[str, Any]) -> str | None:
        """Why to stop, or None."""
        if not finite:
            return (
                "the loss is NaN or infinite: lower the rate (--lr), take --precision float32, or lower "
                "lambda2 (its term is a sum over the columns; --reduction mean divides it)"
            )
        if measured.get("collapsed"):
            return (
                f"the representations collapse: their normalised standard deviation fell to "
                f"{measured['normalised_std']:.3g}, below {self.collapse_below:g} of the "
                f"{self.first_std:.3g} at first; lower the rate (--lr) or the lambdas"
            )
        return None
