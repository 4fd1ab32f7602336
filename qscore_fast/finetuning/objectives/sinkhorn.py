"""Sinkhorn's equal share of prototypes."""

from __future__ import annotations

import torch
from torch import Tensor

from qscore_fast.finetuning.objectives.gathering import summed, world_size


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Codes that use every prototype equally often over the samples of all processes.

    Args:
        scores: (B, K), float32, the samples of this process; as many in every process.
        epsilon: how smooth the codes are.
        iterations: sweeps over prototypes and samples.

    Returns:
        (B, K), rows that sum to 1.

    Source: facebookresearch/swav, main_swav.py.
    """
    codes = torch.exp(scores / epsilon).T
    prototypes, samples = codes.shape[0], codes.shape[1] * world_size()
    codes = codes / summed(codes.sum())
    for _ in range(iterations):
        codes = codes / summed(codes.sum(dim=1, keepdim=True)) / prototypes
        codes = codes / codes.sum(dim=0, keepdim=True) / samples
    return (codes * samples).T
