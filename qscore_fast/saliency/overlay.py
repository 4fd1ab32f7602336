"""A heat map over its image, at the image's own resolution, with what the encoder saw marked."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.images.preprocess import Preprocess
from qscore_fast.saliency.image_batch import ImageLike, opened

COLOUR_MAPS = ("inferno", "viridis", "magma", "plasma", "cividis")
OPACITY = 0.65
OUTSIDE = 0.45  # brightness of what the encoder did not see


def crop_box(preprocess: Preprocess, height: int, width: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what the encoder sees, in pixels of an image of that size.

    A crop larger than the resized image, which is padded, gives a box beyond the image.
    """
    if preprocess.crop_fraction is not None:
        top, left, box_height, box_width = preprocess.fraction_box(height, width)
        return float(left), float(top), float(left + box_width), float(top + box_height)
    resize = preprocess.resize
    if resize is None:
        resized_height, resized_width = height, width
    elif isinstance(resize, tuple):
        resized_height, resized_width = resize
    else:
        # torchvision cuts the longer side to whole pixels.
        short, long = min(height, width), max(height, width)
        sides = resize, int(resize * long / short)
        resized_height, resized_width = sides if height <= width else sides[::-1]
    if preprocess.crop is None:
        return 0.0, 0.0, float(width), float(height)
    crop_height, crop_width = preprocess.output_size
    top = round((resized_height - crop_height) / 2.0)
    left = round((resized_width - crop_width) / 2.0)
    y, x = height / resized_height, width / resized_width
    return left * x, top * y, (left + crop_width) * x, (top + crop_height) * y


def overlay(
    image: ImageLike,
    heat: Tensor | np.ndarray,
    preprocess: Preprocess,
    *,
    colour_map: str = "inferno",
    scale: float | None = None,
    mark_crop: bool = True,
) -> np.ndarray:
    """Blend a heat map into its image.

    Args:
        image: a path or Pillow image, before preprocessing.
        heat: (h, w), one map of ``HeatMaps.maps``, or of ``upsampled``: it covers the crop. What is not
            above 0 is clear; of a map with NaN only the image is drawn.
        preprocess: that of the encoder: it says where the crop lies.
        colour_map: a perceptually uniform one of matplotlib.
        scale: the heat that gets the last colour; by default the map's own largest.
        mark_crop: darken what the encoder did not see, and outline what it did.

    Returns:
        uint8 (height, width, 3), of the image's own size.

    Raises:
        SettingsError: wrong shape or colour map. ImageError: an image that cannot be read.
    """
    if colour_map not in COLOUR_MAPS:
        raise SettingsError(f"colour_map is {colour_map!r}; choose one of {', '.join(COLOUR_MAPS)}")
    heat = torch.as_tensor(heat).detach().float().cpu()
    if heat.ndim != 2 or not heat.numel():
        raise SettingsError(f"heat has shape {tuple(heat.shape)}; give one map, (height, width)")
    picture = np.asarray(opened(image, preprocess).convert("RGB"), dtype=np.float32)
    height, width = picture.shape[:2]
    box = crop_box(preprocess, height, width)
    inside, placed = _on_image(heat, box, height, width)
    largest = float(heat.max()) if scale is None else float(scale)
    if not (heat.isfinite().all() and 0 < largest < float("inf")):
        placed = np.zeros_like(placed)
        largest = 1.0
    strength = np.clip(placed / largest, 0, 1)
    colours = _colours(colour_map)[np.round(strength * 255).astype(np.uint8)]
    alpha = OPACITY * np.sqrt(strength)[..., None]
    blended = picture * (1 - alpha) + colours * alpha
    if mark_crop:
        blended = np.where(inside[..., None], blended, picture * OUTSIDE)
    result = np.round(blended).astype(np.uint8)
    return _outlined(result, box) if mark_crop and not inside.all() else result


def save_overlay(path: str | os.PathLike[str], pixels: np.ndarray) -> Path:
    """Write uint8 (height, width, 3) as a PNG, whole or not at all, and return where."""
    from qscore_fast.scoring.atomic import replacing

    target = Path(path)
    with replacing(target) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
    return target


def _on_image(
    heat: Tensor, box: tuple[float, float, float, float], height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of the image lie in the crop, bool (height, width), and the heat of each, 0 outside."""
    left, top, right, bottom = box
    # The centre of each pixel in the crop's own coordinates, -1 to 1 from edge to edge.
    x = ((torch.arange(width) + 0.5 - left) / (right - left)) * 2 - 1
    y = ((torch.arange(height) + 0.5 - top) / (bottom - top)) * 2 - 1
    inside = (y.abs() <= 1)[:, None] & (x.abs() <= 1)[None, :]
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)
    placed = torch.nn.functional.grid_sample(
        heat[None, None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0, 0]
    return inside.numpy(), torch.where(inside, placed, 0).numpy()


def _outlined(pixels: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    line = max(1, round(min(height, width) / 250))
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = min(width, round(box[2])) - 1, min(height, round(box[3])) - 1
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), outline=(255, 255, 255), width=line)
    return np.asarray(image)


def _colours(name: str) -> np.ndarray:
    """(256, 3) float32, 0 to 255."""
    from matplotlib import colormaps

    table = colormaps[name](np.arange(256))[:, :3]
    return np.asarray(table * 255, dtype=np.float32)
