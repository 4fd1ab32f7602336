"""Fixed views: what an encoder is shown instead of the preprocessed image, the same way every time."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from qscore_fast.errors import SettingsError

ViewName = Literal["flip", "shift", "crop"]
VIEWS: tuple[ViewName, ...] = get_args(ViewName)
SHIFT = 1 / 16
CROP = 7 / 8
WORDS: dict[ViewName, str] = {
    "flip": "mirrored, left to right",
    "shift": "moved right and down by a sixteenth of its sides, its border repeated",
    "crop": "cut to the central seven eighths of its sides and enlarged to its size",
}


class ViewedModule(nn.Module):
    """A network that sees every image in a fixed view.

    Args:
        module: takes images (B, C, height, width).
        view: one of ``VIEWS``.

    Raises:
        SettingsError: an unknown view.
    """

    def __init__(self, module: nn.Module, view: ViewName) -> None:
        super().__init__()
        if view not in VIEWS:
            raise SettingsError(f"view is {view!r}: give one of {', '.join(VIEWS)}")
        self.module = module
        self.view = view

    def forward(self, images: Tensor) -> Tensor:
        """What the network makes of the view."""
        return self.module(seen(images, self.view))


def seen(images: Tensor, view: ViewName) -> Tensor:
    """The view of preprocessed images (B, C, height, width), of the same shape and dtype.

    ``flip``: mirrored, left to right. ``shift``: moved right and down by a sixteenth of the sides, rounded,
    at least a pixel; what would be empty repeats the border. ``crop``: the central seven eighths of the
    sides, rounded, enlarged to the whole by bilinear interpolation.
    """
    height, width = images.shape[-2:]
    if view == "flip":
        return images.flip(-1)
    if view == "shift":
        rows, columns = (
            (torch.arange(side, device=images.device) - max(1, round(SHIFT * side))).clamp_(min=0)
            for side in (height, width)
        )
        return images[..., rows, :][..., columns]
    tall, wide = (max(1, round(CROP * side)) for side in (height, width))
    top, left = (height - tall) // 2, (width - wide) // 2
    cut = images[..., top : top + tall, left : left + wide]
    # Not every device interpolates low precision.
    large = nn.functional.interpolate(cut.float(), (height, width), mode="bilinear")
    return large.to(images.dtype)
