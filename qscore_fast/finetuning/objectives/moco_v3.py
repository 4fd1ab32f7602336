"""MoCo v3: contrast within the batch, a predictor, and a moving average that makes the keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qscore_fast.finetuning.objective import Objective, ObjectiveOutput, StepPosition
from qscore_fast.finetuning.objectives.checks import positive, share
from qscore_fast.finetuning.objectives.crops import represent, two_views
from qscore_fast.finetuning.objectives.full_precision import in_full_precision
from qscore_fast.finetuning.objectives.gathering import gathered, rank
from qscore_fast.finetuning.objectives.heads import hidden_width, mlp_head, widths_of
from qscore_fast.finetuning.objectives.moving_average import move_average
from qscore_fast.finetuning.objectives.parts import Parts
from qscore_fast.finetuning.schedules import ema_momentum


@dataclass(frozen=True)
class MoCoV3Settings:
    """The defaults are those of facebookresearch/moco-v3's main_moco.py and its README's commands.

    Attributes:
        temperature: of the cosine similarities; None: 1.0 for a ResNet, 0.2 for a ViT.
        momentum: what the moving average keeps of itself at the first step; a cosine takes it to 1.
            0.996 for the official 1,000 epochs.
        hidden: width of fresh heads' hidden layers; None: 4,096, in proportion for r < 2,048 unless it
            is a ViT.
        out: length of fresh heads' outputs.
        frozen_patch_embedding: whether a ViT's patch convolution stays as it is. Its position embeddings
            always do.
    """

    temperature: float | None = None
    momentum: float = 0.99
    hidden: int | None = None
    out: int = 256
    frozen_patch_embedding: bool = True

    def __post_init__(self) -> None:
        names = ("temperature", "hidden", "out")
        positive("MoCo v3", *((name, getattr(self, name)) for name in names))
        share("MoCo v3", ("momentum", self.momentum))


class MoCoV3(Objective):
    """Chen, Xie and He, ICCV 2021; facebookresearch/moco-v3, moco/builder.py."""

    system = "moco_v3"

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        predictor: nn.Module,
        ema_backbone: nn.Module,
        ema_projector: nn.Module,
        temperature: float,
        settings: MoCoV3Settings,
    ) -> None:
        super().__init__()
        self.backbone, self.projector, self.predictor = backbone, projector, predictor
        self.ema_backbone, self.ema_projector = ema_backbone, ema_projector
        self.temperature, self.settings = temperature, settings

    def before_step(self, position: StepPosition) -> None:
        """Move the average; the official code does so before it makes the keys."""
        momentum = ema_momentum(position.step, position.steps, self.settings.momentum)
        move_average(self.ema_backbone, self.backbone, momentum)
        move_average(self.ema_projector, self.projector, momentum)

    def forward(self, views: Sequence[Tensor]) -> ObjectiveOutput:
        """See ``Objective``."""
        first, second = two_views(views, "MoCo v3")
        h1, h2 = represent(self.backbone, first), represent(self.backbone, second)
        q1, q2 = (self.predictor(self.projector(h)) for h in (h1, h2))
        with torch.no_grad():
            k1, k2 = (self.ema_projector(represent(self.ema_backbone, v)) for v in (first, second))
        loss = contrast(q1, k2, self.temperature) + contrast(q2, k1, self.temperature)
        return ObjectiveOutput(loss, torch.cat([h1, h2]))


@in_full_precision
def contrast(query: Tensor, key: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy that picks a query's own key among the keys of all processes, times 2 T.

    Args:
        query: (N, d), of any length.
        key: (N, d), of any length, without gradient.
        temperature: T, of the cosine similarities.

    Returns:
        (): the mean over the queries, times 2 T.
    """
    query, keys = F.normalize(query, dim=1), gathered(F.normalize(key, dim=1))
    labels = torch.arange(len(query), device=query.device) + len(query) * rank()
    return F.cross_entropy(query @ keys.T / temperature, labels) * (2 * temperature)


def build_moco_v3(parts: Parts, settings: MoCoV3Settings) -> MoCoV3:
    """The objective; fresh heads have the layers of the official ResNet's or ViT's."""
    r = parts.num_features
    backbone, ema_backbone = parts.backbone(), parts.ema_backbone()
    patches = getattr(backbone, "patch_embed", None)
    is_vit = isinstance(patches, nn.Module)
    hidden = settings.hidden or (4096 if is_vit else hidden_width(4096, r))
    projector_widths = (r, *[hidden] * (2 if is_vit else 1), settings.out)
    projector = parts.head("projector", lambda: mlp_head(projector_widths, last_norm="fixed"), r)
    out = widths_of(projector)[1]
    predictor = parts.head(
        "predictor",
        lambda: mlp_head((out, hidden, out), last_norm="fixed" if is_vit else "none"),
        out,
    )
    if is_vit:
        backbone.get_parameter("pos_embed").requires_grad_(False)
        if settings.frozen_patch_embedding:
            backbone.get_submodule("patch_embed").requires_grad_(False)
    return MoCoV3(
        backbone,
        projector,
        predictor,
        ema_backbone,
        parts.ema_head("projector", projector),
        settings.temperature or (0.2 if is_vit else 1.0),
        settings,
    )
