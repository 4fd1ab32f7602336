"""JPEG files decoded, resized and cropped on the encoder's GPU, a batch at a time, by nvJPEG."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from qscore_fast.errors import ImageError
from qscore_fast.images.decode import decode_bytes
from qscore_fast.images.preprocess import Preprocess

MOST_PIXELS = 2**25
"""Width x height of the largest image that goes to the GPU; Pillow decodes what is larger."""
MOST_BATCH_PIXELS = 2**28
"""Of the images that are on the GPU at a time: 3 bytes each, and 12 while one is resized."""
INTERPOLATIONS = ("bilinear", "bicubic")
"""What PyTorch resizes with antialiasing on a GPU."""


Decode = Callable[[list[Tensor], str, torch.device], list[Tensor]]
"""Files (bytes,) uint8 on the CPU, "RGB" or "GRAY", a device, to uint8 (C, height, width) there."""


@functools.cache
def library() -> tuple[str, Decode]:
    """Whose decoder reaches nvJPEG here, with its version: TorchCodec's, or where it does not import,
    torchvision's.
    """
    try:
        torchcodec = importlib.import_module("torchcodec")
        of_torchcodec = importlib.import_module("torchcodec.decoders").decode_jpeg
        return (
            f"torchcodec {torchcodec.__version__}",
            lambda files, mode, device: of_torchcodec(files, mode=mode, device=device),
        )
    except (ImportError, OSError, RuntimeError, AttributeError):
        import torchvision

        io = importlib.import_module("torchvision.io")
        return (
            f"torchvision {torchvision.__version__}",
            lambda files, mode, device: io.decode_jpeg(
                files, mode=io.ImageReadMode[mode], device=device
            ),
        )


@dataclass(frozen=True)
class EncodedJpeg:
    """A JPEG file whose header was checked, still encoded.

    Attributes:
        content: the file, without EXIF, which TorchCodec would follow.
        height, width: pixels.
        mode: what it is to become.
    """

    content: bytes = field(repr=False)
    height: int
    width: int
    mode: Literal["RGB", "L"]


def decode_jpegs(
    jpegs: Sequence[EncodedJpeg], preprocess: Preprocess, device: torch.device
) -> list[Tensor | ImageError]:
    """Decode on a CUDA device, resize and crop: uint8 (C, height, width) each, or why there is none.

    nvJPEG's upsampling of colour and inverse cosine transform differ from libjpeg's, and the resizing
    rounds once where Pillow rounds twice: pixels are near Pillow's, not equal.

    Args:
        jpegs: of any sizes.
        preprocess: with an interpolation of ``INTERPOLATIONS``.
        device: of type "cuda".
    """
    return [
        _cropped(pixels, preprocess)
        for group in _groups(jpegs)
        for pixels in _decoded(group, device)
    ]


def _cropped(pixels: Tensor | ImageError, preprocess: Preprocess) -> Tensor | ImageError:
    if isinstance(pixels, ImageError):
        return pixels
    try:
        return preprocess.pixels(pixels)
    except ImageError as error:  # of an extreme shape
        return error


def _decoded(jpegs: Sequence[EncodedJpeg], device: torch.device) -> list[Tensor | ImageError]:
    """Images of one mode in one call; where nvJPEG refuses one of them, each by itself."""
    contents = [torch.frombuffer(bytearray(jpeg.content), dtype=torch.uint8) for jpeg in jpegs]
    _, decode = library()
    try:
        images = decode(contents, "RGB" if jpegs[0].mode == "RGB" else "GRAY", device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        if len(jpegs) > 1:
            return [image for jpeg in jpegs for image in _decoded([jpeg], device)]
        return [_by_pillow(jpegs[0], device)]
    return [
        image if image.shape[1:] == (jpeg.height, jpeg.width) else _by_pillow(jpeg, device)
        for image, jpeg in zip(images, jpegs, strict=True)
    ]


def _by_pillow(jpeg: EncodedJpeg, device: torch.device) -> Tensor | ImageError:
    """Pillow's word on what nvJPEG refuses, so that errors read alike."""
    try:
        image = decode_bytes(jpeg.content, jpeg.mode, MOST_PIXELS)
    except ImageError as error:
        return error
    from torchvision.transforms import functional as F

    return F.pil_to_tensor(image).to(device)


def _groups(jpegs: Sequence[EncodedJpeg]) -> list[list[EncodedJpeg]]:
    groups: list[list[EncodedJpeg]] = []
    left = 0
    for jpeg in jpegs:
        size = jpeg.height * jpeg.width
        if not groups or size > left:
            groups.append([])
            left = MOST_BATCH_PIXELS
        groups[-1].append(jpeg)
        left -= size
    return groups
