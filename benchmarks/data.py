"""The matrices that everything is measured on."""

from __future__ import annotations

import torch
from torch import Tensor


def make_features(rows: int, features: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(rows, features)``: many zeros and a heavy tail, like the pooled features of a ResNet."""
    generator = torch.Generator().manual_seed(0)
    h = torch.empty(rows, features)
    h.normal_(generator=generator).relu_().pow_(3)
    return h.to(device, dtype)
