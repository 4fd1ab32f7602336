"""Regularisers of h under schedules: Q-Score, lasso, or none; and their terms apart for the log."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.finetuning import schedules
from qscore_fast.finetuning.objectives.gathering import world_size
from qscore_fast.finetuning.settings import LambdaSchedule, Regulariser
from qscore_fast.functional import q_score
from qscore_fast.nn import QScoreLoss
from qscore_fast.process_group import Group


@dataclass(frozen=True)
class Lambdas:
    """The weights of the two terms over the training.

    Attributes:
        lambda1, lambda2: their highest values.
        schedule: see ``Settings.lambda_schedule``.
    """

    lambda1: float = 1e-4
    lambda2: float = 1e-4
    schedule: LambdaSchedule = "constant"

    def at(self, step: int, steps: int) -> tuple[float, float]:
        """Both at an optimiser step, from 0."""
        share = 1.0
        if self.schedule != "constant":
            anneal_from = steps if self.schedule == "warmup" else steps - steps // 2
            share = schedules.warmup_anneal(step, steps, 1.0, steps // 10, anneal_from)
        return share * self.lambda1, share * self.lambda2


class RepresentationRegulariser(nn.Module):
    """What is added to the self-supervised loss, a function of h alone.

    Args:
        kind: "qscore"; "lasso": ``lambda1`` times the sum of |h| (its mean over the rows with
            ``reduction="mean"``); "none".
        features: D. Kept as a buffer of ``loss``, so that the state dict has the D of the moment.
        lambdas: the weights over the training.
        reduction, eps, group: as ``q_score_loss``.
    """

    def __init__(
        self,
        kind: Regulariser,
        features: DiscriminativeFeatures | Tensor | None,
        lambdas: Lambdas,
        reduction: str = "sum",
        eps: float | None = None,
        group: Group = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.lambdas = lambdas
        self.loss = QScoreLoss(features, eps, lambdas.lambda1, lambdas.lambda2, reduction, group)

    def forward(self, h: Tensor, step: int, steps: int) -> Tensor | None:
        """(), float32, of h (N, r) at an optimiser step; None where there is nothing to add."""
        lambda1, lambda2 = self.lambdas.at(step, steps)
        if self.kind == "none" or (lambda1 == 0 and (lambda2 == 0 or self.kind == "lasso")):
            return None
        if self.kind == "lasso":
            total = h.float().abs().sum()
            if self.loss.reduction == "mean":
                return lambda1 * total / len(h)
            # The mean over the processes, which their gradients become, is then the sum over all rows.
            return lambda1 * total * (1 if self.loss.group is None else world_size())
        self.loss.lambda1, self.loss.lambda2 = lambda1, lambda2
        value: Tensor = self.loss(h)
        return value

    @torch.no_grad()
    def terms(self, h: Tensor, step: int, steps: int) -> dict[str, Tensor]:
        """What h (N, r) says of itself, for the log: scalars by name.

        ``q_term`` and ``column_term`` are the two terms of the loss with their weights and signs; for lasso
        ``lasso_term``. ``mean_q``: of Q. ``below_alpha``: share of the rows whose Q is below the mean.
        ``column_gini``: Gini coefficient of the columns' L1 norms in the row-normalised batch, 0 where all
        are equal. ``column_top1``: the share of these norms that the largest hundredth of the columns has.
        All are of this process's rows.
        """
        h = h.detach().float()
        lambda1, lambda2 = self.lambdas.at(step, steps)
        q = q_score(h, self.loss.features, self.loss.eps, two_sided=self.loss.two_sided)
        columns = (h.abs() / h.norm(dim=1, keepdim=True).clamp_min(1e-30)).sum(0)
        below = q < q.mean()
        found = {
            "mean_q": q.mean(),
            "below_alpha": below.float().mean(),
            "column_gini": gini(columns),
            "column_top1": columns.topk(-(-len(columns) // 100)).values.sum()
            / columns.sum().clamp_min(1e-30),
        }
        rows = len(h) if self.loss.reduction == "mean" else 1
        if self.kind == "qscore":
            found["q_term"] = -lambda1 * (q * below).mean()
            found["column_term"] = lambda2 * columns[columns > columns.mean()].sum() / rows
        elif self.kind == "lasso":
            found["lasso_term"] = lambda1 * h.abs().sum() / rows
        return found


def gini(values: Tensor) -> Tensor:
    """Gini coefficient of values (n,) >= 0: from 0, all equal, towards 1, one has everything; 0 for zeros."""
    n = len(values)
    ascending = values.double().sort().values
    weights = torch.arange(1, n + 1, device=values.device, dtype=torch.float64)
    total = ascending.sum()
    if n == 0 or total == 0:
        return torch.zeros((), device=values.device)
    return ((2 * (weights * ascending).sum() / total - (n + 1)) / n).float()
