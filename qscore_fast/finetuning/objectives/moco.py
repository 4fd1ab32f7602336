"""MoCo v1 and v2: a query against its key and a queue of earlier keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qscore_fast.errors import SettingsError
from qscore_fast.finetuning.objective import Objective, ObjectiveOutput, StepPosition
from qscore_fast.finetuning.objectives.checks import positive, share
from qscore_fast.finetuning.objectives.crops import represent, two_views
from qscore_fast.finetuning.objectives.full_precision import in_full_precision
from qscore_fast.finetuning.objectives.gathering import gathered, world_size
from qscore_fast.finetuning.objectives.heads import mlp_head, widths_of
from qscore_fast.finetuning.objectives.moving_average import move_average
from qscore_fast.finetuning.objectives.parts import Parts
from qscore_fast.finetuning.objectives.shuffle_bn import shuffled

QUEUE_LENGTH = 65536


@dataclass(frozen=True)
class MoCoSettings:
    """The defaults are those of facebookresearch/moco's main_moco.py for v1.

    Attributes:
        temperature: of the cosine similarities.
        momentum: what the key encoder keeps of itself at each step.
        queue_length: keys in the queue; None: as many as the checkpoint has, 65,536 without one. Another
            number than the checkpoint's makes a fresh queue.
        out: length of a fresh projector's output.
        symmetric: compare the views both ways, which doubles the work, and enqueue both views' keys, as
            MoCo's own demonstration on CIFAR-10 has it. Only then both views pass the online backbone,
            so only then ``representations`` are (2 N, r).
    """

    temperature: float = 0.07
    momentum: float = 0.999
    queue_length: int | None = None
    out: int = 128
    symmetric: bool = False

    def __post_init__(self) -> None:
        names = ("temperature", "queue_length", "out")
        positive("MoCo", *((name, getattr(self, name)) for name in names))
        share("MoCo", ("momentum", self.momentum))


@dataclass(frozen=True)
class MoCoV2Settings(MoCoSettings):
    """The same for v2: ``--mlp --moco-t 0.2``.

    Attributes:
        hidden: width of a fresh projector's hidden layer; None: r.
    """

    temperature: float = 0.2
    hidden: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("MoCo", ("hidden", self.hidden))


class MoCo(Objective):
    """He et al., CVPR 2020; facebookresearch/moco, moco/builder.py.

    ``queue`` is (K, d), keys as rows; ``queue_ptr`` (1,) is where the next batch goes. All processes hold
    the same. The first view is the query's, the second the key's.
    """

    system = "moco"
    queue: Tensor
    queue_ptr: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        ema_backbone: nn.Module,
        ema_projector: nn.Module,
        queue: Tensor,
        queue_ptr: Tensor,
        settings: MoCoSettings,
    ) -> None:
        super().__init__()
        self.backbone, self.projector = backbone, projector
        self.ema_backbone, self.ema_projector = ema_backbone, ema_projector
        self.settings = settings
        self.register_buffer("queue", queue)
        self.register_buffer("queue_ptr", queue_ptr)

    def check_batch(self, batch_size: int) -> None:
        super().check_batch(batch_size)
        keys = batch_size * world_size() * (2 if self.settings.symmetric else 1)
        if len(self.queue) % keys:
            raise SettingsError(
                f"MoCo's queue holds {len(self.queue):,} keys, which the {keys:,} keys of one batch in all "
                "processes do not divide: take another batch size, or set queue_length to a multiple of "
                f"{keys:,}"
            )

    def before_step(self, position: StepPosition) -> None:
        """Move the key encoder; the official code does so before it makes the keys."""
        move_average(self.ema_backbone, self.backbone, self.settings.momentum)
        move_average(self.ema_projector, self.projector, self.settings.momentum)

    def forward(self, views: Sequence[Tensor]) -> ObjectiveOutput:
        """See ``Objective``."""
        first, second = two_views(views, "MoCo")
        # A copy: the queue changes before the gradients are taken.
        negatives = self.queue.clone()
        pairs = [(first, second), (second, first)] if self.settings.symmetric else [(first, second)]
        losses, representations, keys = [], [], []
        for query_view, key_view in pairs:
            h = represent(self.backbone, query_view)
            key = self._keys(key_view)
            losses.append(moco_loss(self.projector(h), key, negatives, self.settings.temperature))
            representations.append(h)
            keys.append(key)
        if self.training:
            # Keys of view 1 first.
            self._enqueue(torch.cat(keys[::-1]))
        return ObjectiveOutput(torch.stack(losses).sum(), torch.cat(representations))

    @torch.no_grad()
    def _keys(self, images: Tensor) -> Tensor:
        images, restore = shuffled(images)
        keys = self.ema_projector(represent(self.ema_backbone, images))
        return restore(F.normalize(keys.to(self.queue.dtype), dim=1))

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        keys = gathered(keys)
        start = int(self.queue_ptr)
        self.queue[start : start + len(keys)] = keys
        self.queue_ptr[0] = (start + len(keys)) % len(self.queue)


class MoCoV2(MoCo):
    """Chen et al., 2020: MoCo with an MLP for the projector and another temperature."""

    system = "moco_v2"


@in_full_precision
def moco_loss(query: Tensor, key: Tensor, negatives: Tensor, temperature: float = 0.07) -> Tensor:
    """Cross-entropy that picks a query's own key among it and the negatives.

    Args:
        query: (N, d), of any length.
        key: (N, d) of length 1, without gradient.
        negatives: (K, d) of length 1.
        temperature: of the cosine similarities.

    Returns:
        (): the mean over the queries.
    """
    query = F.normalize(query, dim=1)
    own = (query * key).sum(dim=1, keepdim=True)
    logits = torch.cat([own, query @ negatives.T], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))


def build_moco(parts: Parts, settings: MoCoSettings) -> MoCo:
    """v1, with the checkpoint's projector, key encoder and queue where it has them."""
    r = parts.num_features
    projector = parts.head("projector", lambda: mlp_head((r, settings.out), last_bias=True), r)
    return _with_queue(MoCo, parts, projector, settings)


def build_moco_v2(parts: Parts, settings: MoCoV2Settings) -> MoCo:
    """v2, likewise."""
    r = parts.num_features
    widths = (r, settings.hidden or r, settings.out)
    projector = parts.head(
        "projector", lambda: mlp_head(widths, bias=True, last_bias=True, norm=False), r
    )
    return _with_queue(MoCoV2, parts, projector, settings)


def _with_queue(
    kind: type[MoCo], parts: Parts, projector: nn.Module, settings: MoCoSettings
) -> MoCo:
    width = widths_of(projector)[1]
    # solo-learn has one queue a view; the first one holds what the official queue does.
    found = parts.tensor("queue", needs="projector")
    queue = found[0] if found is not None and found.ndim == 3 else None
    pointer = parts.tensor("queue_ptr", needs="projector")
    wanted = settings.queue_length or (len(queue) if queue is not None else QUEUE_LENGTH)
    if queue is None or tuple(queue.shape) != (wanted, width):
        queue, pointer = F.normalize(torch.randn(wanted, width), dim=1), None
        parts.fresh.append("queue")
    if pointer is None or not 0 <= int(pointer[0]) < wanted:
        pointer = torch.zeros(1, dtype=torch.long)
    return kind(
        parts.backbone(),
        projector,
        parts.ema_backbone(),
        parts.ema_head("projector", projector),
        queue.contiguous(),
        pointer[:1].long(),
        settings,
    )
