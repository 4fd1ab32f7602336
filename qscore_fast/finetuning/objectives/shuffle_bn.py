"""ShuffleBN: keys see the batch norms of another process than their queries."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from qscore_fast.finetuning.objectives.gathering import gathered, rank, world_size


@torch.no_grad()
def shuffled(images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Deal the images of all processes anew.

    In one process it would change nothing, for a batch norm does not see the order, and is left out.

    Args:
        images: (N, ...), as many in every process.

    Returns:
        (N, ...) for this process, and what brings the keys (N, d) made of them back to the order and
        the process of ``images``.

    Source: facebookresearch/moco, moco/builder.py.
    """
    if world_size() == 1:
        return images, lambda keys: keys
    everything = gathered(images)
    order = torch.randperm(len(everything), device=images.device)
    dist.broadcast(order, src=0)
    mine = slice(rank() * len(images), (rank() + 1) * len(images))

    def restore(keys: Tensor) -> Tensor:
        return gathered(keys)[order.argsort()[mine]]

    return everything[order[mine]], restore
