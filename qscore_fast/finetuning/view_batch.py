"""The photometric part of a view for a batch of images at once, on any device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from qscore_fast.finetuning import photometric
from qscore_fast.finetuning.view_draws import ViewDraw
from qscore_fast.finetuning.view_recipes import View
from qscore_fast.finetuning.views import as_float


def photometric_batch(pixels: Tensor, view: View, draws: Sequence[ViewDraw]) -> Tensor:
    """Each image's own jitter, grey, blur and solarisation, in a few dozen operations for all.

    Args:
        pixels: uint8 (N, C, height, width), one view of N images: ``Crops.pixels`` stacked, on any device.
        view: which view of the recipe it is.
        draws: N, what was drawn for it.

    Returns:
        float32 of the same shape in [0, 1], to be normalised: to rounding what ``ViewTransform`` gives.
    """
    images = as_float(pixels)
    gray = [number for number, draw in enumerate(draws) if draw.gray]
    if view.gray_first:
        _apply(images, gray, "gray")
    for place in range(4):
        chosen = defaultdict(list)
        for number, draw in enumerate(draws):
            if draw.jitter:
                name, factor = draw.jitter[place]
                chosen[name].append((number, factor))
        for name, pairs in chosen.items():
            _apply(images, [number for number, _ in pairs], name, [factor for _, factor in pairs])
    if not view.gray_first:
        _apply(images, gray, "gray")
    blurred = [number for number, draw in enumerate(draws) if draw.sigma is not None]
    _apply(images, blurred, "blur", [draw.sigma for draw in draws if draw.sigma is not None])
    _apply(images, [number for number, draw in enumerate(draws) if draw.solarize], "solarize")
    return images


def _apply(
    images: Tensor, numbers: list[int], name: str, factors: list[float] | None = None
) -> None:
    """Replace the images of these numbers by what the operation makes of them."""
    if not numbers:
        return
    chosen = torch.tensor(numbers).to(images.device, non_blocking=True)
    arguments = []
    if factors is not None:
        on_device = torch.tensor(factors, dtype=images.dtype).to(images.device, non_blocking=True)
        arguments.append(on_device.view(-1, 1, 1, 1))
    images[chosen] = getattr(photometric, name)(images[chosen], *arguments)
