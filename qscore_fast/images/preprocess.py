"""The fixed image transform of an encoder: resize, centre crop, scale, normalise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from qscore_fast.errors import ImageError, SettingsError

# Resizing the short side of a 1 x 5000 strip to 256 would take a gigabyte; no photograph comes near.
MAX_RESIZED_PIXELS = 2**25
MAX_SIDE = 8192

Size = int | tuple[int, int] | None


@dataclass(frozen=True)
class Preprocess:
    """Bit-equal to torchvision's ``Resize``, ``CenterCrop``, ``ToTensor``, ``Normalize`` on PIL images.

    Attributes:
        mode: colour mode, "RGB" (3 channels) or "L" (1 channel).
        resize: int: length of the short side; (height, width): both sides; None: no resizing. Pixels.
        crop: side of the centre crop, or its (height, width), zero-padded where the image is smaller;
            None only if ``resize`` gives both sides.
        interpolation: "nearest", "bilinear", "bicubic", "box", "hamming" or "lanczos"; antialiased.
        mean, std: one number a channel, for pixel values in [0, 1].

    Raises:
        SettingsError: a field has a value that does not fit; the text names it.
    """

    mode: Literal["RGB", "L"] = "RGB"
    resize: Size = 256
    crop: Size = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.mode not in ("RGB", "L"):
            raise SettingsError(f'preprocess: mode must be "RGB" or "L", got {self.mode!r}')
        object.__setattr__(self, "resize", _size("resize", self.resize))
        object.__setattr__(self, "crop", _size("crop", self.crop))
        if self.crop is None and not isinstance(self.resize, tuple):
            raise SettingsError("preprocess: crop may be None only if resize is (height, width)")
        names = [
            mode.value for mode in InterpolationMode if mode != InterpolationMode.NEAREST_EXACT
        ]
        if self.interpolation not in names:
            raise SettingsError(
                f"preprocess: interpolation must be one of {', '.join(names)}, "
                f"got {self.interpolation!r}"
            )
        object.__setattr__(self, "mean", _numbers("mean", self.mean, self.channels))
        object.__setattr__(self, "std", _numbers("std", self.std, self.channels))
        if not all(value > 0 for value in self.std):
            raise SettingsError(f"preprocess: std must be above 0, got {list(self.std)}")

    @property
    def channels(self) -> int:
        """3 for "RGB", 1 for "L"."""
        return 3 if self.mode == "RGB" else 1

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the result, pixels."""
        size = self.resize if self.crop is None else self.crop
        assert size is not None
        return size if isinstance(size, tuple) else (size, size)

    def pixels(self, image: Image.Image) -> Tensor:
        """Resize and crop: an image in ``mode`` to uint8 (C, height, width).

        Raises:
            ImageError: the resized image would be too large (an extreme aspect ratio).
        """
        if self.resize is not None:
            self._check_resized(image)
            size = list(self.resize) if isinstance(self.resize, tuple) else [self.resize]
            image = F.resize(image, size, InterpolationMode(self.interpolation))
        if self.crop is not None:
            image = F.center_crop(image, list(self.output_size))
        return F.pil_to_tensor(image)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (..., C, height, width) to float32 of the same shape, on the same device."""
        images = pixels.to(torch.float32).div_(255)
        return F.normalize(images, list(self.mean), list(self.std), inplace=True)

    def __call__(self, image: Image.Image) -> Tensor:
        """A Pillow image of any mode to float32 (C, height, width)."""
        return self.normalise(self.pixels(image.convert(self.mode)))

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocess:
        """The inverse of :meth:`to_json`; unknown or missing fields raise SettingsError."""
        names = set(cls.__dataclass_fields__)
        if not isinstance(fields, Mapping) or set(fields) != names:
            got = sorted(map(str, fields)) if isinstance(fields, Mapping) else fields
            raise SettingsError(f"preprocess: needs the fields {sorted(names)}, got {got}")
        return cls(**fields)

    def _check_resized(self, image: Image.Image) -> None:
        if isinstance(self.resize, tuple) or self.resize is None:
            return
        short, long = sorted(image.size)
        if self.resize * self.resize * long // short > MAX_RESIZED_PIXELS:
            raise ImageError(
                f"{image.width} x {image.height} pixels: too long and thin to bring the short side "
                f"to {self.resize}"
            )


def _size(name: str, value: Any) -> Size:
    if value is None:
        return None
    sides = value if isinstance(value, Sequence) else [value]
    if all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        if len(sides) == 1:
            return sides[0]
        if len(sides) == 2:
            return sides[0], sides[1]
    raise SettingsError(
        f"preprocess: {name} must be a number of pixels from 1 to {MAX_SIDE}, two of them, or None; "
        f"got {value!r}"
    )


def _numbers(name: str, values: Any, channels: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != channels or not all(abs(number) < 1e6 for number in numbers):
        raise SettingsError(
            f"preprocess: {name} must be {channels} finite numbers for this mode, got {values!r}"
        )
    return numbers


IMAGENET = Preprocess()
