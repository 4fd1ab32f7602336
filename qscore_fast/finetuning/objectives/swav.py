"""SwAV: swapped prediction of the prototypes that two views are assigned to, with small crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qscore_fast.encoders.training_state import Prototypes
from qscore_fast.errors import SettingsError
from qscore_fast.finetuning.objective import Objective, ObjectiveOutput, StepPosition
from qscore_fast.finetuning.objectives.checks import not_negative, positive
from qscore_fast.finetuning.objectives.crops import multi_crop, represent_crops
from qscore_fast.finetuning.objectives.full_precision import in_full_precision
from qscore_fast.finetuning.objectives.gathering import gathered, rank, world_size
from qscore_fast.finetuning.objectives.heads import (
    hidden_width,
    mlp_head,
    prototypes_head,
    widths_of,
)
from qscore_fast.finetuning.objectives.parts import Parts
from qscore_fast.finetuning.objectives.sinkhorn import sinkhorn

ASSIGNED = 2
"""How many views, the first ones, are assigned to prototypes."""


@dataclass(frozen=True)
class SwAVSettings:
    """The defaults are those of facebookresearch/swav's scripts for batches of 4,096.

    Attributes:
        temperature: of the scores that predict.
        epsilon, sinkhorn_iterations: see ``sinkhorn``.
        hidden: width of a fresh projector's hidden layer; None: 2,048, in proportion for r < 2,048.
        out: length of its output.
        prototypes: number of fresh prototypes.
        queue_length: embeddings kept to be assigned along with a small batch, of all processes
            together; 0 for none; None: as many as the checkpoint has, which official files do not. The
            official scripts for batches of 256 keep 3,840.
        queue_start_epoch: the epoch, from 0, that an empty queue begins to fill in.
        freeze_prototypes_steps: optimiser steps in which the prototypes stay; 5,005 for batches of 256.
    """

    temperature: float = 0.1
    epsilon: float = 0.05
    sinkhorn_iterations: int = 3
    hidden: int | None = None
    out: int = 128
    prototypes: int = 3000
    queue_length: int | None = None
    queue_start_epoch: int = 15
    freeze_prototypes_steps: int = 313

    def __post_init__(self) -> None:
        names: tuple[str, ...] = (
            "temperature",
            "epsilon",
            "sinkhorn_iterations",
            "hidden",
            "out",
            "prototypes",
        )
        positive("SwAV", *((name, getattr(self, name)) for name in names))
        names = ("queue_start_epoch", "freeze_prototypes_steps")
        not_negative("SwAV", *((name, getattr(self, name)) for name in names))
        not_negative("SwAV", ("queue_length", self.queue_length or 0))


class SwAV(Objective):
    """Caron et al., NeurIPS 2020; facebookresearch/swav, main_swav.py.

    The official queue has a piece in each process. Here every process holds all of it, ``queue`` (2,
    queue_length, d), newest first, and assigns its piece: the codes are the same, and a checkpoint of one
    process holds everything.
    """

    system = "swav"
    queue: Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        prototypes: Prototypes,
        queue: Tensor | None,
        settings: SwAVSettings,
    ) -> None:
        super().__init__()
        self.backbone, self.projector, self.prototypes = backbone, projector, prototypes
        self.settings = settings
        self.register_buffer("queue", queue)
        self._queue_begun = settings.queue_start_epoch == 0

    def check_batch(self, batch_size: int) -> None:
        super().check_batch(batch_size)
        length = 0 if self.queue is None else self.queue.shape[1]
        together = batch_size * world_size()
        if length % together:
            raise SettingsError(
                f"SwAV's queue_length is {length}, which batches of {together} images in all do not divide: "
                f"take a multiple of {together}, or 0 for no queue"
            )

    def before_step(self, position: StepPosition) -> None:
        """Put the prototypes back on the unit sphere."""
        begins = position.epoch >= self.settings.queue_start_epoch
        self._queue_begun = begins or (self.queue is not None and bool(self.queue.any()))
        with torch.no_grad():
            weight = self.prototypes.weight_v
            weight.copy_(F.normalize(weight, dim=1))

    def before_update(self, position: StepPosition) -> None:
        """Keep the prototypes as they are in the first steps."""
        if position.step < self.settings.freeze_prototypes_steps:
            for parameter in self.prototypes.parameters():
                parameter.grad = None

    def forward(self, views: Sequence[Tensor]) -> ObjectiveOutput:
        """See ``Objective``; codes of the two full-size views are predicted from all other views."""
        multi_crop(views, "SwAV")
        h = represent_crops(self.backbone, views)
        z = F.normalize(self.projector(h), dim=1)
        scores = self.prototypes(z).chunk(len(views))
        settings = self.settings
        loss = swav_loss(
            scores,
            self._queued_scores(),
            settings.temperature,
            settings.epsilon,
            settings.sinkhorn_iterations,
        )
        if self.training and self.queue is not None and self._queue_begun:
            self._enqueue(z.chunk(len(views))[:ASSIGNED])
        return ObjectiveOutput(loss, h[: ASSIGNED * len(views[0])])

    @torch.no_grad()
    def _queued_scores(self) -> Tensor | None:
        """(2, length / world, K) of this process's piece, once the queue is full."""
        if self.queue is None or not self._queue_begun or not self.queue[:, -1].any(dim=-1).all():
            return None
        piece = self.queue.chunk(world_size(), dim=1)[rank()]
        return self.prototypes(piece)

    @torch.no_grad()
    def _enqueue(self, embeddings: Sequence[Tensor]) -> None:
        assert self.queue is not None
        for view, new in enumerate(map(gathered, embeddings)):
            new = new.to(self.queue.dtype)
            self.queue[view] = torch.cat([new, self.queue[view, : -len(new)]])


@in_full_precision
def swav_loss(
    scores: Sequence[Tensor],
    queued_scores: Tensor | None = None,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
) -> Tensor:
    """Cross-entropy between the codes of a view and the predictions of all others.

    Args:
        scores: (N, K) cosine similarities with the prototypes, a tensor a view, full-size views first.
        queued_scores: (2, Q, K) of earlier embeddings of either full-size view, which are assigned
            along.
        temperature: of the predictions.
        epsilon, iterations: see ``sinkhorn``.

    Returns:
        (): the mean over the two assigned views of the mean over the other views.
    """
    loss = scores[0].new_zeros(())
    for assigned in range(ASSIGNED):
        together = scores[assigned].detach()
        if queued_scores is not None:
            together = torch.cat([queued_scores[assigned].to(together.dtype), together])
        codes = sinkhorn(together, epsilon, iterations)[-len(scores[assigned]) :]
        others = [view for index, view in enumerate(scores) if index != assigned]
        for view in others:
            predicted = F.log_softmax(view / temperature, dim=1)
            loss = loss - (codes * predicted).sum(dim=1).mean() / len(others)
    return loss / ASSIGNED


def build_swav(parts: Parts, settings: SwAVSettings) -> SwAV:
    """The objective with the checkpoint's projector and prototypes or fresh ones."""
    r = parts.num_features
    hidden = settings.hidden or hidden_width(2048, r)
    projector = parts.head(
        "projector", lambda: mlp_head((r, hidden, settings.out), bias=True, last_bias=True), r
    )
    width = widths_of(projector)[1]
    found = parts.head("prototypes", lambda: prototypes_head(width, settings.prototypes), width)
    assert isinstance(found, Prototypes)
    # Where direction and length are apart (solo-learn), the weight that is applied is what counts.
    plain = {"weight": found.weight.detach()}
    if found.bias is not None:
        plain["bias"] = found.bias.detach()
    return SwAV(
        parts.backbone(), projector, Prototypes(plain), _queue(parts, width, settings), settings
    )


def _queue(parts: Parts, width: int, settings: SwAVSettings) -> Tensor | None:
    """The checkpoint's, if it is of the wanted length, or an empty one."""
    found = parts.tensor("queue", needs="prototypes")
    length = settings.queue_length
    if found is not None and found.ndim == 3:
        wanted = (ASSIGNED, found.shape[1] if length is None else length, width)
        if tuple(found.shape) == wanted:
            return found.contiguous()
    return torch.zeros(ASSIGNED, length, width) if length else None
