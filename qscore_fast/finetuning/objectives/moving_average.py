"""The other tower: a moving average of the online one."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that the optimiser leaves alone."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def move_average(average: nn.Module, online: nn.Module, momentum: float) -> None:
    """``average <- momentum * average + (1 - momentum) * online``, parameter by parameter.

    Buffers stay as they are: the average's batch norms have statistics of their own, in the official code
    of every system.
    """
    averages: list[Tensor] = list(average.parameters())
    values: list[Tensor] = list(online.parameters())
    torch._foreach_mul_(averages, momentum)
    torch._foreach_add_(averages, values, alpha=1 - momentum)
