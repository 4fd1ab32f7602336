"""Heat maps brought from the crop that an encoder saw to the frame of the masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from qscore_fast.images import Preprocess
from qscore_fast.saliency.overlay import crop_box
from qscore_fast.saliency.salient_masks import RESIZE, SIDE

MASK_TRANSFORM = Preprocess(resize=RESIZE, crop=SIDE)
"""Where the masks lie in their image, as a transform."""


def in_mask_frame(
    maps: Tensor, preprocess: Preprocess, sizes: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Heat maps at the pixels of the masks, bilinear with aligned pixel areas.

    Args:
        maps: (N, h, w) of the crops that ``preprocess`` made, at any resolution.
        sizes: width and height of the N images before it, pixels.

    Returns:
        (N, 224, 224) float32 heat, 0 where the encoder did not see the image, and bool, where it did.
    """
    boxes = [
        (*crop_box(preprocess, height, width), *crop_box(MASK_TRANSFORM, height, width))
        for width, height in sizes
    ]
    edges = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 8)
    across = _positions(edges[:, [0, 2]], edges[:, [4, 6]]).to(maps.device)
    down = _positions(edges[:, [1, 3]], edges[:, [5, 7]]).to(maps.device)
    n = len(boxes)
    grid = torch.stack(
        [across[:, None].expand(n, SIDE, SIDE), down[:, :, None].expand(n, SIDE, SIDE)], dim=-1
    )
    heat = F.grid_sample(
        maps.float()[:, None],
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[:, 0]
    seen = (grid.abs() <= 1).all(-1)
    return torch.where(seen, heat, 0.0), seen


def _positions(box: Tensor, mask_box: Tensor) -> Tensor:
    """(N, 224) float32: a mask's pixel centres in its encoder's box, whose edges are -1 and 1.

    Args:
        box, mask_box: (N, 2) float64, first and last edge of each, in pixels of the image.
    """
    centres = (torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE
    places = mask_box[:, :1] + centres * (mask_box[:, 1:] - mask_box[:, :1])
    return (2 * (places - box[:, :1]) / (box[:, 1:] - box[:, :1]) - 1).float()
