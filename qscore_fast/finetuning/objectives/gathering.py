"""Rows and sums of all processes, with gradients that fit DistributedDataParallel.

Each process computes a loss whose mean over the processes is the loss of the whole batch, and
DistributedDataParallel takes the mean of the parameters' gradients. So a tensor that all processes see
receives the sum of what they say about it, and the result is the gradient of the whole batch. With one
process, or without ``torch.distributed``, nothing is communicated.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Processes that train together; 1 without ``torch.distributed``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


@torch.no_grad()
def gathered(x: Tensor) -> Tensor:
    """(N, ...) of every process to (world N, ...), in the order of the ranks, without gradient."""
    if world_size() == 1:
        return x.detach()
    pieces = [
        torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())
    ]
    dist.all_gather(pieces, x.detach().contiguous())
    return torch.cat(pieces)


def gathered_with_gradient(x: Tensor) -> Tensor:
    """As ``gathered``; a process's rows receive the sum of all processes' gradients."""
    return x if world_size() == 1 else _Gather.apply(x)


def summed(x: Tensor) -> Tensor:
    """The sum over the processes; each term receives the sum of all processes' gradients."""
    return x if world_size() == 1 else _Sum.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return gathered(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.detach().contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total
