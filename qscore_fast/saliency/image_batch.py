"""Images in any form to the encoder's normalised batch."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.errors import EncoderError, ImageError, SettingsError
from qscore_fast.images import decode_image
from qscore_fast.images.preprocess import Preprocess

ImageLike = str | os.PathLike[str] | Image.Image
Images = Tensor | ImageLike | Sequence[ImageLike]


def normalised_images(encoder: Encoder, images: Images) -> Tensor:
    """(N, C, height, width) floating point, on the CPU unless it was a tensor elsewhere.

    Raises:
        EncoderError: a tensor of another shape or type. SettingsError: no image at all.
        ImageError: a file that cannot be decoded; the text names it.
    """
    if isinstance(images, Tensor):
        if images.ndim != 4 or not images.is_floating_point():
            raise EncoderError(
                f"the images are {images.dtype} of shape {tuple(images.shape)}: give a normalised batch "
                "(N, C, height, width) in floating point, as encoder.preprocess makes it, or paths"
            )
        batch = images
    else:
        several = [images] if isinstance(images, str | os.PathLike | Image.Image) else list(images)
        tensors = [encoder.preprocess(opened(image, encoder.preprocess)) for image in several]
        batch = torch.stack(tensors) if tensors else torch.empty(0)
    if not len(batch):
        raise SettingsError("there is no image to draw a heat map of: give one or more")
    return batch


def opened(image: ImageLike, preprocess: Preprocess) -> Image.Image:
    """A path or Pillow image as a Pillow image in the encoder's mode, at its own resolution."""
    if isinstance(image, Image.Image):
        return image.convert(preprocess.mode)
    if not isinstance(image, str | os.PathLike):
        raise SettingsError(
            f"an image is a {type(image).__name__}: give a path, a Pillow image or a normalised tensor"
        )
    try:
        return decode_image(image, preprocess.mode)
    except ImageError as error:
        raise ImageError(f"{os.fspath(image)}: {error}", error.stage) from error
