"""The fixed sine-cosine position embeddings by which ViTs of MoCo v3 and MAE can be told from others."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

# Weights may have been stored in half precision.
_TOLERANCE = 5e-3


def fixed_positions(table: Tensor | None) -> Literal["moco_v3", "mae"] | None:
    """Whose fixed embeddings (1, 1 + side * side, width) these are; None if they were learnt.

    Both halve the width between the two axes, sines before cosines, and give the class token zeros. In
    MoCo v3 the first half counts the rows, in MAE the columns.

    Sources: facebookresearch/moco-v3 vits.py, facebookresearch/mae util/pos_embed.py.
    """
    if table is None or table.ndim != 3 or len(table) != 1 or not table.is_floating_point():
        return None
    patches, width = table.shape[1] - 1, table.shape[2]
    side = math.isqrt(max(patches, 0))
    if side < 2 or side * side != patches or width % 4 or not width or table[0, 0].any():
        return None
    omega = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
    steps = torch.arange(side)[:, None] * omega
    axis = torch.cat([steps.sin(), steps.cos()], dim=1)
    rows, columns = axis.repeat_interleave(side, dim=0), axis.repeat(side, 1)
    found = table[0, 1:].float()
    if torch.allclose(found, torch.cat([rows, columns], dim=1), rtol=0, atol=_TOLERANCE):
        return "moco_v3"
    if torch.allclose(found, torch.cat([columns, rows], dim=1), rtol=0, atol=_TOLERANCE):
        return "mae"
    return None
