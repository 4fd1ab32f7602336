"""``Objective``: what every self-supervised system is to the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from qscore_fast.errors import SettingsError


@dataclass(frozen=True)
class StepPosition:
    """Where training stands: what schedules inside an objective depend on.

    Attributes:
        step: optimiser steps that were made before this one, from 0.
        steps: optimiser steps of the whole training.
        steps_per_epoch: optimiser steps of one epoch.
    """

    step: int
    steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> int:
        """The epoch that the step belongs to, from 0."""
        return self.step // self.steps_per_epoch


@dataclass(frozen=True)
class ObjectiveOutput:
    """What one forward pass of an objective gives.

    Attributes:
        loss: (), float32, to be minimised.
        representations: (V N, r), what the online backbone made of the V full-size views of the N
            images, before any head, with its gradient: what the regulariser sees. View by view. V is 2,
            but 1 for MoCo v1 and v2, whose online backbone sees the first view only.
        terms: detached scalars by name, for the log.
    """

    loss: Tensor
    representations: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """A self-supervised system around a backbone: heads, other tower, queue, centre, and the loss.

    Everything that training changes is a parameter or a persistent buffer, so that a state dict resumes it
    exactly. Parameters without ``requires_grad`` are not the optimiser's.
    """

    system: ClassVar[str]
    """The name that ``Encoder.system`` has."""

    backbone: nn.Module
    """The online backbone: (B, C, height, width) to (B, r)."""

    @property
    def evaluated_backbone(self) -> nn.Module:
        """The one that the system evaluates: the online backbone, DINO's teacher."""
        return self.backbone

    def check_batch(self, batch_size: int) -> None:
        """Whether the objective can work with such batches; called before training, in its process group.

        Args:
            batch_size: images of one forward pass in one process.

        Raises:
            SettingsError: one image cannot be compared with any, or a queue cannot take them.
        """
        if batch_size < 2:
            raise SettingsError(
                f"a batch of {batch_size} cannot be trained with {self.system}, which compares images and "
                "normalises over them: take at least 2 for each process"
            )

    @abstractmethod
    def forward(self, views: Sequence[Tensor]) -> ObjectiveOutput:
        """The loss of a batch.

        Args:
            views: one tensor (N, C, height, width) a view, the same N images in the same order; the
                full-size views first, then, where the system has them, the small crops.
        """

    def before_step(self, position: StepPosition) -> None:
        """Before the forward pass of an optimiser step: schedules of temperature, momentum and the like."""

    def before_update(self, position: StepPosition) -> None:
        """After the backward pass, before the optimiser: gradients that a system drops or clips."""

    def after_step(self, position: StepPosition) -> None:
        """After the optimiser: moving averages, normalised prototypes."""

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The trained parameters outside the backbone: what is warmed up when heads are fresh."""
        own = {id(parameter) for parameter in self.backbone.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in own]
