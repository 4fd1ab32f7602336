"""DINO: match the centred, sharpened output of a moving average, from small crops too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qscore_fast.encoders.training_state import Prototypes
from qscore_fast.finetuning.objective import Objective, ObjectiveOutput, StepPosition
from qscore_fast.finetuning.objectives.checks import not_negative, positive, share
from qscore_fast.finetuning.objectives.crops import multi_crop, represent_crops
from qscore_fast.finetuning.objectives.full_precision import in_full_precision
from qscore_fast.finetuning.objectives.gathering import summed, world_size
from qscore_fast.finetuning.objectives.heads import layers_of, mlp_head, prototypes_head, widths_of
from qscore_fast.finetuning.objectives.moving_average import move_average
from qscore_fast.finetuning.objectives.parts import Parts
from qscore_fast.finetuning.schedules import ema_momentum, teacher_temperature

TAUGHT = 2
"""How many views, the first ones, the teacher sees."""


@dataclass(frozen=True)
class DINOSettings:
    """The defaults are those of facebookresearch/dino's main_dino.py.

    Attributes:
        out_dim: outputs of a fresh head.
        hidden, bottleneck: widths of its hidden layers and of the layer before the last.
        student_temperature: of the student's softmax.
        teacher_temperature: of the teacher's, after the warm-up. 0.07 in the official recipes that warm
            up from 0.04 over 30 epochs.
        warmup_teacher_temperature, warmup_teacher_temperature_epochs: where it begins, and how many
            epochs it takes.
        momentum: what the teacher keeps of itself at the first step; a cosine takes it to 1.
        center_momentum: what the centre keeps of itself.
        freeze_last_layer_epochs: epochs in which the last layer stays.
        norm_last_layer: whether the last layer's lengths stay as they are. The official advice for
            ViT-S is not to.
    """

    out_dim: int = 65536
    hidden: int = 2048
    bottleneck: int = 256
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    warmup_teacher_temperature: float = 0.04
    warmup_teacher_temperature_epochs: int = 0
    momentum: float = 0.996
    center_momentum: float = 0.9
    freeze_last_layer_epochs: int = 1
    norm_last_layer: bool = True

    def __post_init__(self) -> None:
        names: tuple[str, ...] = (
            "out_dim", "hidden", "bottleneck", "student_temperature", "teacher_temperature",
            "warmup_teacher_temperature",
        )  # fmt: skip
        positive("DINO", *((name, getattr(self, name)) for name in names))
        names = ("warmup_teacher_temperature_epochs", "freeze_last_layer_epochs")
        not_negative("DINO", *((name, getattr(self, name)) for name in names))
        share("DINO", ("momentum", self.momentum), ("center_momentum", self.center_momentum))


class DINO(Objective):
    """Caron et al., ICCV 2021; facebookresearch/dino, main_dino.py and vision_transformer.py.

    The student is the online tower. ``center`` is (K,).
    """

    system = "dino"
    center: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        prototypes: nn.Module,
        ema_backbone: nn.Module,
        ema_projector: nn.Module,
        ema_prototypes: nn.Module,
        center: Tensor,
        settings: DINOSettings,
    ) -> None:
        super().__init__()
        self.backbone, self.projector, self.prototypes = backbone, projector, prototypes
        self.ema_backbone, self.ema_projector = ema_backbone, ema_projector
        self.ema_prototypes = ema_prototypes
        self.settings = settings
        self.register_buffer("center", center)
        self._temperature = self._temperature_of(0)

    @property
    def evaluated_backbone(self) -> nn.Module:
        return self.ema_backbone

    def before_step(self, position: StepPosition) -> None:
        """Set the teacher's temperature."""
        self._temperature = self._temperature_of(position.epoch)

    def before_update(self, position: StepPosition) -> None:
        """Keep the last layer as it is in the first epochs."""
        if position.epoch < self.settings.freeze_last_layer_epochs:
            for parameter in self.prototypes.parameters():
                parameter.grad = None

    def after_step(self, position: StepPosition) -> None:
        """Move the teacher towards the updated student."""
        momentum = ema_momentum(position.step, position.steps, self.settings.momentum)
        move_average(self.ema_backbone, self.backbone, momentum)
        move_average(self.ema_projector, self.projector, momentum)
        move_average(self.ema_prototypes, self.prototypes, momentum)

    def forward(self, views: Sequence[Tensor]) -> ObjectiveOutput:
        """See ``Objective``; the teacher sees the two full-size views, the student all."""
        multi_crop(views, "DINO")
        h = represent_crops(self.backbone, views)
        student = self.prototypes(self.projector(h))
        with torch.no_grad():
            taught = represent_crops(self.ema_backbone, views[:TAUGHT])
            teacher = self.ema_prototypes(self.ema_projector(taught))
        loss, entropy = dino_loss(
            student.chunk(len(views)),
            teacher.chunk(TAUGHT),
            self.center,
            self._temperature,
            self.settings.student_temperature,
        )
        if self.training:
            self._move_center(teacher)
        return ObjectiveOutput(
            loss, h[: TAUGHT * len(views[0])], {"teacher_entropy": entropy.detach()}
        )

    def _temperature_of(self, epoch: int) -> float:
        settings = self.settings
        return teacher_temperature(
            epoch,
            settings.warmup_teacher_temperature_epochs,
            settings.warmup_teacher_temperature,
            settings.teacher_temperature,
        )

    @torch.no_grad()
    def _move_center(self, teacher: Tensor) -> None:
        mean = summed(teacher.to(self.center.dtype).sum(dim=0)) / (len(teacher) * world_size())
        momentum = self.settings.center_momentum
        self.center.copy_(self.center * momentum + mean * (1 - momentum))


@in_full_precision
def dino_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    center: Tensor,
    teacher_temperature: float = 0.04,
    student_temperature: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the student's outputs with the teacher's of every other view.

    Args:
        student: (N, K) logits, a tensor a view, full-size views first.
        teacher: (N, K) logits of the full-size views, without gradient.
        center: (K,), subtracted from the teacher's logits.
        teacher_temperature, student_temperature: of the softmax.

    Returns:
        The loss (), the mean over the pairs of different views; the mean entropy () of the teacher's
        outputs, the least that the loss could be.
    """
    targets = [F.softmax((logits - center) / teacher_temperature, dim=1) for logits in teacher]
    predicted = [F.log_softmax(logits / student_temperature, dim=1) for logits in student]
    losses = [
        -(target * prediction).sum(dim=1).mean()
        for index, target in enumerate(targets)
        for other, prediction in enumerate(predicted)
        if other != index
    ]
    entropies = torch.stack([torch.special.entr(target).sum(dim=1).mean() for target in targets])
    return torch.stack(losses).mean(), entropies.mean()


def build_dino(parts: Parts, settings: DINOSettings) -> DINO:
    """The objective with the checkpoint's student, teacher and centre or fresh ones."""
    r = parts.num_features

    def fresh_projector() -> nn.Module:
        widths = (r, settings.hidden, settings.hidden, settings.bottleneck)
        head = mlp_head(widths, bias=True, last_bias=True, norm=False, activation=nn.GELU)
        for layer in layers_of(head, nn.Linear):
            nn.init.trunc_normal_(layer.get_parameter("weight"), std=0.02)
            nn.init.zeros_(layer.get_parameter("bias"))
        return head

    projector = parts.head("projector", fresh_projector, r)
    width = widths_of(projector)[1]
    prototypes = parts.head(
        "prototypes",
        lambda: prototypes_head(width, settings.out_dim, weight_normalised=True),
        width,
    )
    assert isinstance(prototypes, Prototypes)
    if prototypes.weight_g is not None and settings.norm_last_layer:
        prototypes.weight_g.requires_grad_(False)
    outputs = widths_of(prototypes)[1]
    center = parts.tensor("center", needs="prototypes")
    if center is None or tuple(center.shape) != (outputs,):
        parts.fresh.append("center")
        center = torch.zeros(outputs)
    return DINO(
        parts.backbone(),
        projector,
        prototypes,
        parts.ema_backbone(),
        parts.ema_head("projector", projector),
        parts.ema_head("prototypes", prototypes),
        center,
        settings,
    )
