"""BYOL: predict the projection that a moving average makes of the other view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qscore_fast.finetuning.objective import Objective, ObjectiveOutput, StepPosition
from qscore_fast.finetuning.objectives.checks import positive, share
from qscore_fast.finetuning.objectives.crops import represent, two_views
from qscore_fast.finetuning.objectives.full_precision import in_full_precision
from qscore_fast.finetuning.objectives.heads import hidden_width, layers_of, mlp_head, widths_of
from qscore_fast.finetuning.objectives.moving_average import move_average
from qscore_fast.finetuning.objectives.parts import Parts
from qscore_fast.finetuning.schedules import ema_momentum


@dataclass(frozen=True)
class BYOLSettings:
    """The defaults are those of deepmind-research's byol/configs/byol.py for 1,000 epochs.

    Attributes:
        momentum: what the moving average keeps of itself at the first step; a cosine takes it to 1.
            0.99 for the official 100 and 300 epochs, 0.97 for 40.
        hidden: width of fresh heads' hidden layers; None: 4,096, in proportion for r < 2,048.
        out: length of fresh heads' outputs.
    """

    momentum: float = 0.996
    hidden: int | None = None
    out: int = 256

    def __post_init__(self) -> None:
        positive("BYOL", ("hidden", self.hidden), ("out", self.out))
        share("BYOL", ("momentum", self.momentum))


class BYOL(Objective):
    """Grill et al., NeurIPS 2020; deepmind-research, byol/byol_experiment.py."""

    system = "byol"

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        predictor: nn.Module,
        ema_backbone: nn.Module,
        ema_projector: nn.Module,
        settings: BYOLSettings,
    ) -> None:
        super().__init__()
        self.backbone, self.projector, self.predictor = backbone, projector, predictor
        self.ema_backbone, self.ema_projector = ema_backbone, ema_projector
        self.settings = settings

    def after_step(self, position: StepPosition) -> None:
        """Move the average towards the updated online network."""
        momentum = ema_momentum(position.step, position.steps, self.settings.momentum)
        move_average(self.ema_backbone, self.backbone, momentum)
        move_average(self.ema_projector, self.projector, momentum)

    def forward(self, views: Sequence[Tensor]) -> ObjectiveOutput:
        """See ``Objective``; each view by itself through either network, in training mode."""
        first, second = two_views(views, "BYOL")
        h1, h2 = represent(self.backbone, first), represent(self.backbone, second)
        p1, p2 = (self.predictor(self.projector(h)) for h in (h1, h2))
        with torch.no_grad():
            z1, z2 = (self.ema_projector(represent(self.ema_backbone, v)) for v in (first, second))
        return ObjectiveOutput(byol_loss(p1, p2, z1, z2), torch.cat([h1, h2]))


@in_full_precision
def byol_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """Squared distance of normalised predictions and targets, 2 - 2 cos, over both directions.

    Args:
        p1, p2: (N, d) predictions from the two views.
        z1, z2: (N, d) targets, without gradient.

    Returns:
        (): the mean over the images of the sum over the directions.
    """

    def regression(prediction: Tensor, target: Tensor) -> Tensor:
        difference = F.normalize(prediction, dim=1) - F.normalize(target.detach(), dim=1)
        return difference.square().sum(dim=1)

    return (regression(p1, z2) + regression(p2, z1)).mean()


def build_byol(parts: Parts, settings: BYOLSettings) -> BYOL:
    """The objective with the checkpoint's heads and target or fresh ones, initialised as by Haiku."""
    r = parts.num_features
    hidden = settings.hidden or hidden_width(4096, r)
    projector = parts.head("projector", lambda: _fresh(r, hidden, settings.out), r)
    out = widths_of(projector)[1]
    predictor = parts.head("predictor", lambda: _fresh(out, hidden, out), out)
    return BYOL(
        parts.backbone(),
        projector,
        predictor,
        parts.ema_backbone(),
        parts.ema_head("projector", projector),
        settings,
    )


def _fresh(inputs: int, hidden: int, out: int) -> nn.Module:
    head = mlp_head((inputs, hidden, out), bias=True)
    for layer in layers_of(head, nn.Linear):
        weight = layer.get_parameter("weight")
        std = 1 / math.sqrt(weight.shape[1])
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
        if layer.bias is not None:
            nn.init.zeros_(layer.get_parameter("bias"))
    return head
