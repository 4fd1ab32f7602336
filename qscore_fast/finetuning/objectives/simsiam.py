"""SimSiam: predict the other view's projection, whose gradient is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qscore_fast.finetuning.objective import Objective, ObjectiveOutput
from qscore_fast.finetuning.objectives.checks import positive
from qscore_fast.finetuning.objectives.crops import represent, two_views
from qscore_fast.finetuning.objectives.full_precision import in_full_precision
from qscore_fast.finetuning.objectives.heads import layers_of, mlp_head, widths_of
from qscore_fast.finetuning.objectives.parts import Parts


@dataclass(frozen=True)
class SimSiamSettings:
    """The defaults are those of facebookresearch/simsiam's main_simsiam.py.

    Attributes:
        out: length of a fresh projector's output; None: 2,048, or r where that is less.
        predictor_hidden: width of a fresh predictor's hidden layer; None: a quarter of ``out``, which is
            the official 512 of 2,048.
    """

    out: int | None = None
    predictor_hidden: int | None = None

    def __post_init__(self) -> None:
        positive("SimSiam", ("out", self.out), ("predictor_hidden", self.predictor_hidden))


class SimSiam(Objective):
    """Chen and He, CVPR 2021; facebookresearch/simsiam, simsiam/builder.py.

    The official option ``--fix-pred-lr`` concerns the optimiser: ``predictor`` is the module.
    """

    system = "simsiam"

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        predictor: nn.Module,
        settings: SimSiamSettings,
    ) -> None:
        super().__init__()
        self.backbone, self.projector, self.predictor = backbone, projector, predictor
        self.settings = settings

    def forward(self, views: Sequence[Tensor]) -> ObjectiveOutput:
        """See ``Objective``."""
        first, second = two_views(views, "SimSiam")
        h1, h2 = represent(self.backbone, first), represent(self.backbone, second)
        z1, z2 = self.projector(h1), self.projector(h2)
        loss = simsiam_loss(self.predictor(z1), self.predictor(z2), z1, z2)
        return ObjectiveOutput(loss, torch.cat([h1, h2]))


@in_full_precision
def simsiam_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """Minus half the sum of the mean cosines of predictions and the other view's projections.

    Args:
        p1, p2: (N, d) predictions from the two views.
        z1, z2: (N, d) projections, whose gradient is stopped.

    Returns:
        (): between -1 and 1.
    """
    first = F.cosine_similarity(p1, z2.detach(), dim=1).mean()
    return -(first + F.cosine_similarity(p2, z1.detach(), dim=1).mean()) / 2


def build_simsiam(parts: Parts, settings: SimSiamSettings) -> SimSiam:
    """The objective with the checkpoint's projector and predictor or fresh ones."""
    r = parts.num_features
    out = settings.out or min(r, 2048)
    projector = parts.head(
        "projector", lambda: mlp_head((r, r, r, out), last_bias=True, last_norm="fixed"), r
    )
    linear, norms = layers_of(projector, nn.Linear), layers_of(projector, nn.BatchNorm1d)
    if linear[-1].bias is not None and norms and norms[-1].weight is None:
        # The batch norm behind it takes any bias away; the official code keeps it out of training.
        linear[-1].get_parameter("bias").requires_grad_(False)
    width = widths_of(projector)[1]
    hidden = settings.predictor_hidden or max(width // 4, 1)
    predictor = parts.head(
        "predictor", lambda: mlp_head((width, hidden, width), last_bias=True), width
    )
    return SimSiam(parts.backbone(), projector, predictor, settings)
