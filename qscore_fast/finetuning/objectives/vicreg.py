"""VICReg: invariance, variance and covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qscore_fast.finetuning.objective import Objective, ObjectiveOutput
from qscore_fast.finetuning.objectives.checks import not_negative, positive
from qscore_fast.finetuning.objectives.crops import represent, two_views
from qscore_fast.finetuning.objectives.full_precision import in_full_precision
from qscore_fast.finetuning.objectives.gathering import gathered_with_gradient
from qscore_fast.finetuning.objectives.heads import hidden_width, mlp_head
from qscore_fast.finetuning.objectives.parts import Parts

_EPSILON = 1e-4


@dataclass(frozen=True)
class VICRegSettings:
    """The defaults are those of facebookresearch/vicreg's main_vicreg.py.

    Attributes:
        invariance, variance, covariance: the weights of the terms.
        hidden: width of a fresh projector's two hidden layers; None: 8,192, in proportion for r < 2,048.
        out: length of its output; None: ``hidden``.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    hidden: int | None = None
    out: int | None = None

    def __post_init__(self) -> None:
        weights = ("invariance", "variance", "covariance")
        not_negative("VICReg", *((name, getattr(self, name)) for name in weights))
        positive("VICReg", ("hidden", self.hidden), ("out", self.out))


class VICReg(Objective):
    """Bardes, Ponce and LeCun, ICLR 2022; facebookresearch/vicreg, main_vicreg.py."""

    system = "vicreg"

    def __init__(self, backbone: nn.Module, projector: nn.Module, settings: VICRegSettings) -> None:
        super().__init__()
        self.backbone, self.projector, self.settings = backbone, projector, settings

    def forward(self, views: Sequence[Tensor]) -> ObjectiveOutput:
        """See ``Objective``; ``terms`` has the three terms before their weights."""
        first, second = two_views(views, "VICReg")
        h1, h2 = represent(self.backbone, first), represent(self.backbone, second)
        terms = vicreg_terms(self.projector(h1), self.projector(h2))
        weights = (self.settings.invariance, self.settings.variance, self.settings.covariance)
        loss = sum((w * t for w, t in zip(weights, terms, strict=True)), terms[0].new_zeros(()))
        names = ("invariance", "variance", "covariance")
        logged = {name: term.detach() for name, term in zip(names, terms, strict=True)}
        return ObjectiveOutput(loss, torch.cat([h1, h2]), logged)


@in_full_precision
def vicreg_terms(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance, variance and covariance; the last two over the rows of all processes.

    Args:
        z1, z2: (N, d) projections of the two views.

    Returns:
        Three of (): the mean squared difference; the mean of relu(1 - sqrt(var + 1e-4)) over the columns,
        halved, for both views; the squared covariances off the diagonal over d, for both views.
    """
    invariance = F.mse_loss(z1, z2)
    z1, z2 = gathered_with_gradient(z1), gathered_with_gradient(z2)
    variance, covariance = invariance.new_zeros(()), invariance.new_zeros(())
    for z in (z1, z2):
        centred = z - z.mean(dim=0)
        deviation = torch.sqrt(centred.var(dim=0) + _EPSILON)
        variance = variance + F.relu(1 - deviation).mean() / 2
        matrix = centred.T @ centred / (len(z) - 1)
        squares = matrix.square().sum() - matrix.diagonal().square().sum()
        covariance = covariance + squares / z.shape[1]
    return invariance, variance, covariance


def build_vicreg(parts: Parts, settings: VICRegSettings) -> VICReg:
    """The objective with the checkpoint's projector or a fresh one."""
    r = parts.num_features
    hidden = settings.hidden or hidden_width(8192, r)
    widths = (r, hidden, hidden, settings.out or hidden)
    projector = parts.head("projector", lambda: mlp_head(widths, bias=True), r)
    return VICReg(parts.backbone(), projector, settings)
