"""Operations on the colours of float images in [0, 1], (..., C, height, width) with C = 3 or 1.

Every parameter is a number, or a tensor that broadcasts against the images, such as (N, 1, 1, 1) for one
number an image. They are torchvision's operations of the same names; torchvision's take one number for all
images, and its hue and blur take most of the time of a view.
"""

from __future__ import annotations

import torch
from torch import Tensor

Factor = float | Tensor

_LUMA = (0.2989, 0.587, 0.114)


def luma(images: Tensor) -> Tensor:
    """The grey image, (..., 1, height, width)."""
    if images.shape[-3] == 1:
        return images
    red, green, blue = images.split(1, -3)
    return red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]


def gray(images: Tensor) -> Tensor:
    """Every channel the grey image."""
    return luma(images).expand_as(images)


def brightness(images: Tensor, factor: Factor) -> Tensor:
    """Times ``factor``."""
    return (images * factor).clamp(0, 1)


def add(images: Tensor, shift: Factor) -> Tensor:
    """Plus ``shift``: the brightness of BYOL."""
    return (images + shift).clamp(0, 1)


def contrast(images: Tensor, factor: Factor) -> Tensor:
    """Away from the mean of the grey image by ``factor``."""
    return _blend(images, luma(images).mean((-3, -2, -1), keepdim=True), factor)


def channel_contrast(images: Tensor, factor: Factor) -> Tensor:
    """Away from the mean of each channel by ``factor``: the contrast of TensorFlow."""
    return _blend(images, images.mean((-2, -1), keepdim=True), factor)


def saturation(images: Tensor, factor: Factor) -> Tensor:
    """Away from the grey image by ``factor``."""
    return images if images.shape[-3] == 1 else _blend(images, luma(images), factor)


def hue(images: Tensor, shift: Factor) -> Tensor:
    """Around the colour circle by ``shift`` turns, with value and chroma of the HSV hexcone kept."""
    if images.shape[-3] == 1:
        return images
    red, green, blue = images.split(1, -3)
    value, lowest = images.amax(-3, keepdim=True), images.amin(-3, keepdim=True)
    chroma = value - lowest
    divisor = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + 6 * shift
    # A channel is low by the share of the chroma that its distance from it on the circle says.
    offset = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(3, 1, 1)
    place = (sixths + offset).remainder(6)
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)


def solarize(images: Tensor, threshold: float = 128 / 255) -> Tensor:
    """What is at or above ``threshold``, that of Pillow, is inverted."""
    return torch.where(images >= threshold, 1 - images, images)


def blur_radius(side: int) -> int:
    """The blur's reach for a view of this side, pixels: a tenth of the side, halved, at least 1."""
    return max(side // 10 // 2, 1)


def blur(images: Tensor, sigma: Factor) -> Tensor:
    """Gaussian blur with reflected edges, whose kernel reaches ``blur_radius`` of the smaller side."""
    height, width = images.shape[-2:]
    radius = blur_radius(min(height, width))
    sigma = torch.as_tensor(sigma, dtype=images.dtype, device=images.device)
    # A band of weights times the image, twice: on a CPU ten times as fast as a convolution by channels.
    down = _band(height, radius, sigma)
    across = down if width == height else _band(width, radius, sigma)
    return (down @ images @ across.transpose(-1, -2)).clamp(
        0, 1
    )  # weights sum to 1 but for rounding


def _band(side: int, radius: int, sigma: Tensor) -> Tensor:
    """(..., side, side): row i has the weights with which pixel i is made."""
    reach = torch.arange(-radius, radius + 1, device=sigma.device, dtype=sigma.dtype)
    weights = torch.exp(-0.5 * (reach / sigma) ** 2)
    weights = weights / weights.sum(-1, keepdim=True)
    place = torch.arange(side, device=sigma.device)[:, None] + reach.long()
    place = (side - 1) - ((side - 1) - place.abs()).abs()
    shape = (*weights.shape[:-2], side, place.shape[1])
    band = torch.zeros(*shape[:-1], side, device=sigma.device, dtype=sigma.dtype)
    return band.scatter_add_(-1, place.expand(shape), weights.expand(shape).contiguous())


def _blend(images: Tensor, other: Tensor, factor: Factor) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp(0, 1)
