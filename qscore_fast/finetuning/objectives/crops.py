"""Views through a backbone: one by one, or all crops of one size together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from qscore_fast.errors import SettingsError


def represent(backbone: nn.Module, images: Tensor) -> Tensor:
    """(B, C, height, width) to (B, r), also from a backbone that returns (B, r, 1, 1)."""
    h = backbone(images)
    return h.flatten(1) if h.ndim == 4 else h


def represent_crops(backbone: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """V views of N images to (V N, r), view by view; neighbours of one size go through together.

    So do SwAV and DINO: a batch norm sees the full-size views as one batch and the small crops as
    another.
    """
    groups = groupby(views, key=lambda view: view.shape[-2:])
    return torch.cat([represent(backbone, torch.cat(list(group))) for _, group in groups])


def two_views(views: Sequence[Tensor], system: str) -> tuple[Tensor, Tensor]:
    """The two views of a system that takes two.

    Raises:
        SettingsError: there are more or fewer.
    """
    if len(views) != 2:
        raise SettingsError(
            f"{system} compares two views of an image, got {len(views)}: take the recipe of {system}"
        )
    return views[0], views[1]


def multi_crop(views: Sequence[Tensor], system: str) -> None:
    """Check views of a system that takes two of full size and any number of small crops.

    Raises:
        SettingsError: there are fewer than two, or the first two differ in size.
    """
    if len(views) < 2 or views[0].shape != views[1].shape:
        sizes = ", ".join("x".join(map(str, view.shape[-2:])) for view in views) or "none"
        raise SettingsError(
            f"{system} needs two views of full size first, then small crops, got {sizes}: take the recipe of "
            f"{system}"
        )
