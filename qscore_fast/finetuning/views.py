"""ViewTransform: one image to the augmented views of a system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from qscore_fast.errors import ImageError, SettingsError
from qscore_fast.finetuning import photometric
from qscore_fast.finetuning.view_draws import NUMBERS, ViewDraw, draw_view
from qscore_fast.finetuning.view_recipes import RECIPES, Recipe, View, with_larger_crops

SMALLEST_SIDE = 8
"""Of a view, pixels: what is smaller is not cropped further."""


@dataclass(frozen=True)
class Crops:
    """The geometry of an image's views, with the photometric part still to do, as ``photometric_batch`` does.

    Attributes:
        pixels: uint8 (C, side, side) a view, cropped, resized and flipped.
        draws: what is to be done with each.
    """

    pixels: list[Tensor]
    draws: list[ViewDraw]


class ViewTransform:
    """The views of a recipe, deterministic in the seed and independent of every other random number.

    Args:
        recipe: a key of ``RECIPES``, or views of one's own.
        size: side of the full-size views, pixels; small crops have their share of it, rounded. The blur's
            kernel follows the side of each view, and its sigma stays in pixels, as in the official code.
        mean, std: of the encoder's own preprocessing, one number a channel (3 or 1) for values in [0, 1].
        crop_scale: factor on the area of the crops, see ``with_larger_crops``.

    Operations are float32 from the crop on and clamped to [0, 1], where Pillow rounds each result to 8 bits.

    Raises:
        SettingsError: no such recipe, or a size, mean, std or crop_scale that makes no sense.
    """

    def __init__(
        self,
        recipe: str | Sequence[View],
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        crop_scale: float = 1.0,
    ) -> None:
        if isinstance(recipe, str):
            if recipe not in RECIPES:
                raise SettingsError(
                    f"no recipe of views {recipe!r}; choose one of {', '.join(RECIPES)}"
                )
            recipe = RECIPES[recipe]
        self.recipe: Recipe = tuple(recipe)
        if crop_scale != 1:
            self.recipe = with_larger_crops(self.recipe, crop_scale)
        if len(mean) not in (1, 3) or len(std) != len(mean) or not all(one > 0 for one in std):
            raise SettingsError(
                f"views: mean and std must be 3 numbers or 1, std above 0; got {list(mean)}, {list(std)}"
            )
        self.sides = [round(size * view.side) for view in self.recipe]
        if not self.sides or min(self.sides) < SMALLEST_SIDE:
            raise SettingsError(
                f"views: size is {size} and the views' sides {self.sides}; each needs at least "
                f"{SMALLEST_SIDE} pixels"
            )
        self.channels = len(mean)
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, image: Image.Image | Tensor, seed: int) -> list[Tensor]:
        """The views of an image.

        Args:
            image: of Pillow in any mode, or uint8 (C, height, width) with C = 3 or 1; it is brought to the
                channels of ``mean``.
            seed: from 0 to below 2^64; equal seeds give equal views, in any process.

        Returns:
            float32 (C, side, side) a view in the order of the recipe, normalised.

        Raises:
            ImageError: the tensor is none of these. RuntimeError: the seed is out of range.
        """
        crops = self.crops(image, seed)
        pairs = zip(self.recipe, crops.pixels, crops.draws, strict=True)
        return [self.normalise(photometric_view(as_float(x), view, d)) for view, x, d in pairs]

    def draw(self, height: int, width: int, seed: int) -> list[ViewDraw]:
        """What is drawn for the views of an image of this size, pixels."""
        generator = torch.Generator().manual_seed(seed)
        shape = (len(self.recipe), NUMBERS)
        numbers = torch.rand(shape, generator=generator, dtype=torch.float64).tolist()
        return [draw_view(v, height, width, n) for v, n in zip(self.recipe, numbers, strict=True)]

    def crops(self, image: Image.Image | Tensor, seed: int) -> Crops:
        """The same views before their photometric part, for which ``photometric_batch`` serves a device."""
        pixels = self._as_pixels(image)
        height, width = pixels.shape[-2:]
        draws = self.draw(height, width, seed)
        views = []
        for view, side, draw in zip(self.recipe, self.sides, draws, strict=True):
            mode = InterpolationMode.BICUBIC if view.bicubic else InterpolationMode.BILINEAR
            crop = F.resized_crop(pixels, *draw.box, [side, side], mode, antialias=True)
            views.append(F.horizontal_flip(crop) if draw.flip else crop)
        return Crops(views, draws)

    def normalise(self, images: Tensor) -> Tensor:
        """Images with values in [0, 1], (..., C, height, width) on any device, as the encoder takes them."""
        return (images - self.mean.to(images.device)) / self.std.to(images.device)

    def _as_pixels(self, image: Image.Image | Tensor) -> Tensor:
        if isinstance(image, Image.Image):
            return F.pil_to_tensor(image.convert("RGB" if self.channels == 3 else "L"))
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
            raise ImageError(
                f"a tensor of {image.dtype} and shape {tuple(image.shape)} is no image: it must be uint8 "
                "(3, height, width) or (1, height, width)",
                "augment",
            )
        if image.shape[0] == self.channels:
            return image
        return F.rgb_to_grayscale(image) if self.channels == 1 else image.expand(3, -1, -1)


def as_float(pixels: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]."""
    return pixels.float().div_(255)


def photometric_view(images: Tensor, view: View, draw: ViewDraw) -> Tensor:
    """The photometric part of one view: float images (..., C, height, width) in [0, 1], the same back."""
    if draw.gray and view.gray_first:
        images = photometric.gray(images)
    for name, factor in draw.jitter:
        images = getattr(photometric, name)(images, factor)
    if draw.gray and not view.gray_first:
        images = photometric.gray(images)
    if draw.sigma is not None:
        images = photometric.blur(images, draw.sigma)
    return photometric.solarize(images) if draw.solarize else images
