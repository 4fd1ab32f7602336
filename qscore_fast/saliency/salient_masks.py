"""SalientMasks: the union of an image's core masks, and that of its spurious ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms import functional as F

from qscore_fast.errors import ImageError
from qscore_fast.images import decode_image

SIDE = 224
"""Pixels of a mask's side: the centre crop of the image after its short side was made RESIZE long."""

RESIZE = 256

_MAX_PIXELS = 2**24  # more than any mask has; a larger one is refused from its header


@dataclass(frozen=True, eq=False)
class SalientMasks:
    """Soft masks of one image, in the frame of resize 256, centre crop 224.

    Attributes:
        core, spurious: uint8 (224, 224), 0 to 255, high where the feature is; None where the image has
            no mask of such a feature.
    """

    core: np.ndarray | None
    spurious: np.ndarray | None


def union_of_masks(paths: Sequence[Path], compat: bool = False) -> np.ndarray | None:
    """The pixelwise maximum of mask files, uint8 (224, 224); None for no path.

    Args:
        compat: resize and crop it once more, as the published loader does: it is then 8/7 times too large
            for its image.

    Raises:
        ImageError: with stage "mask": a file is missing, damaged, or not 224 x 224.
    """
    union: np.ndarray | None = None
    for path in paths:
        mask = _read(path)
        union = mask if union is None else np.maximum(union, mask)
    if union is None or not compat:
        return union
    # Its way through float64 and back takes one level off some values; the same ones are hit here.
    again = Image.fromarray(((union / 255.0) * 255).astype(np.uint8))
    return np.asarray(F.center_crop(F.resize(again, [RESIZE]), [SIDE]))


def _read(path: Path) -> np.ndarray:
    place = f"{path.parent.parent.name}/{path.parent.name}/{path.name}"
    try:
        mask = np.asarray(decode_image(path, "L", _MAX_PIXELS))
    except ImageError as error:
        raise ImageError(f"mask {place}: {error}", "mask") from None
    if mask.shape != (SIDE, SIDE):
        height, width = mask.shape
        raise ImageError(
            f"mask {place} has {width} x {height} pixels, the published ones {SIDE} x {SIDE}",
            "mask",
        )
    return mask
