"""HeatMaps: what ``heatmaps`` returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

NO_FEATURE = "no feature to show: L and D share none"
NO_HEAT = "no heat: the features shown are nowhere above 0"
NOT_FINITE = "the activations hold NaN or Inf"

Method = Literal["exact", "gradient"]


@dataclass(frozen=True, eq=False)
class HeatMaps:
    """Heat maps of N images at the resolution of the layer that they come from.

    A map is 0 where nothing is to be shown, and NaN where the activations are not finite: ``notes`` says so.
    The map of a feature is P times its Grad-CAM, P the number of positions of the layer: where the
    representation is the spatial mean of the layer, it is the feature's channel, whose mean is h_j.

    Attributes:
        maps: (N, height, width) float32 on the encoder's device, the features combined; (N, K, height,
            width), one map a feature, where ``combine`` is None.
        h: (N, r) float32 representations.
        q_score: (N,) float32; under D where the features are a D, otherwise over all features.
        members: bool (N, r), the features that each image's map shows: the given ones, or its own L & D.
        crop_size: height and width of the images that the encoder saw, pixels.
        layer: the module whose activations are shown.
        method: "exact", from the forward pass alone, or "gradient".
    """

    maps: Tensor
    h: Tensor
    q_score: Tensor
    members: Tensor
    crop_size: tuple[int, int]
    layer: str
    method: Method

    @cached_property
    def features(self) -> tuple[Tensor, ...]:
        """Of each image the indices of its ``members``, ascending, int64 on the CPU."""
        return tuple(row.nonzero().squeeze(1) for row in self.members.cpu())

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Of each image what there is to note about its map; empty where there is nothing."""
        finite, some = ~self.q_score.isnan(), self.members.any(1)
        heat = (self.maps.flatten(1) > 0).any(1)
        return tuple(
            NOT_FINITE if not ok else NO_FEATURE if not shown else "" if warm else NO_HEAT
            for ok, shown, warm in torch.stack([finite, some, heat], 1).tolist()
        )

    def __len__(self) -> int:
        return len(self.maps)

    def upsampled(self, size: int | tuple[int, int] | None = None) -> Tensor:
        """The maps at the size of the crop, or at (height, width), bilinear with aligned pixel areas.

        Returns:
            (N, height, width) or (N, K, height, width) float32.
        """
        size = self.crop_size if size is None else size
        return upsample(self.maps, (size, size) if isinstance(size, int) else size)


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., h, w) to (..., height, width), bilinear."""
    flat = maps.float().reshape(-1, 1, *maps.shape[-2:])
    if not len(flat):
        return maps.new_zeros((*maps.shape[:-2], *size), dtype=torch.float32)
    larger = torch.nn.functional.interpolate(flat, size, mode="bilinear", align_corners=False)
    return larger.reshape(*maps.shape[:-2], *size)
