"""The fixed image transform of an encoder: crop, resize, scale, normalise.

torchvision, which imports PyTorch's compiler, is imported with the first image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from qscore_fast.errors import ImageError, SettingsError

# Resizing the short side of a 1 x 5000 strip to 256 would take a gigabyte; no photograph comes near.
MAX_RESIZED_PIXELS = 2**25
MAX_SIDE = 8192
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")

Size = int | tuple[int, int] | None


@dataclass(frozen=True)
class Preprocess:
    """Bit-equal to torchvision's ``Resize``, ``CenterCrop``, ``ToTensor``, ``Normalize`` on PIL images.

    With ``crop_fraction`` the crop comes before the resizing, as in the code of SimCLR and BYOL: the
    largest centred box of the result's shape, times the fraction, its sides rounded to whole pixels.

    Attributes:
        mode: colour mode, "RGB" (3 channels) or "L" (1 channel).
        resize: int: length of the short side; (height, width): both sides; None: no resizing. Pixels.
        crop: side of the centre crop, or its (height, width), zero-padded where the image is smaller;
            None only if ``resize`` gives both sides.
        interpolation: "nearest", "bilinear", "bicubic", "box", "hamming" or "lanczos"; antialiased.
        mean, std: one number a channel, for pixel values in [0, 1].
        crop_fraction: above 0, at most 1; None: no crop before the resizing. With it ``resize`` gives
            both sides and ``crop`` is None.

    Raises:
        SettingsError: a field has a value that does not fit; the text names it.
    """

    mode: Literal["RGB", "L"] = "RGB"
    resize: Size = 256
    crop: Size = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_fraction: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("RGB", "L"):
            raise SettingsError(f'preprocess: mode must be "RGB" or "L", got {self.mode!r}')
        object.__setattr__(self, "resize", _size("resize", self.resize))
        object.__setattr__(self, "crop", _size("crop", self.crop))
        if self.crop is None and not isinstance(self.resize, tuple):
            raise SettingsError("preprocess: crop may be None only if resize is (height, width)")
        if self.interpolation not in INTERPOLATIONS:
            raise SettingsError(
                f"preprocess: interpolation must be one of {', '.join(INTERPOLATIONS)}, "
                f"got {self.interpolation!r}"
            )
        object.__setattr__(self, "mean", _numbers("mean", self.mean, self.channels))
        object.__setattr__(self, "std", _numbers("std", self.std, self.channels))
        if not all(value > 0 for value in self.std):
            raise SettingsError(f"preprocess: std must be above 0, got {list(self.std)}")
        if self.crop_fraction is not None:
            object.__setattr__(self, "crop_fraction", _fraction(self.crop_fraction))
            if self.crop is not None or not isinstance(self.resize, tuple):
                raise SettingsError(
                    "preprocess: crop_fraction crops before resizing, so resize must be (height, width) "
                    f"and crop None; got resize {self.resize!r} and crop {self.crop!r}"
                )

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

    def pixels(self, image: Image.Image | Tensor) -> Tensor:
        """Resize and crop: an image in ``mode`` to uint8 (C, height, width).

        Args:
            image: a Pillow image; or uint8 (C, height, width) on any device, which PyTorch resizes,
                bilinear or bicubic, with values that may be off by one from Pillow's.

        Raises:
            ImageError: the resized image would be too large (an extreme aspect ratio).
        """
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as F

        if self.crop_fraction is not None:
            image = F.crop(image, *self.fraction_box(*_height_width(image)))
        if self.resize is not None:
            self._check_resized(*_height_width(image))
            size = list(self.resize) if isinstance(self.resize, tuple) else [self.resize]
            image = F.resize(image, size, InterpolationMode(self.interpolation))
        if self.crop is not None:
            image = F.center_crop(image, list(self.output_size))
        return image if isinstance(image, Tensor) else F.pil_to_tensor(image)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (..., C, height, width) to float32 of the same shape, on the same device."""
        from torchvision.transforms import functional as F

        images = pixels.to(torch.float32).div_(255)
        return F.normalize(images, list(self.mean), list(self.std), inplace=True)

    def __call__(self, image: Image.Image) -> Tensor:
        """A Pillow image of any mode to float32 (C, height, width)."""
        return self.normalise(self.pixels(image.convert(self.mode)))

    def changed(self, **fields: Any) -> Preprocess:
        """The same transform with other values for some fields, as a user asks for them.

        Fields that only make sense together follow: a ``crop_fraction`` keeps the size of the result
        unless ``resize`` gives another, and a ``resize`` or ``crop`` by itself ends a
        ``crop_fraction``.

        Raises:
            SettingsError: the values do not fit, or crop and crop_fraction are both given.
        """
        if fields.get("crop_fraction") is not None:
            if fields.get("crop") is not None:
                raise SettingsError(
                    "preprocess: crop and crop_fraction contradict each other: give one of them"
                )
            size = _size("resize", fields.get("resize")) or self.output_size
            fields["resize"] = size if isinstance(size, tuple) else (size, size)
            fields["crop"] = None
        elif self.crop_fraction is not None and fields.keys() & {"resize", "crop"}:
            fields = {"crop_fraction": None, "crop": self.output_size, **fields}
        return replace(self, **fields)

    def describe(self) -> str:
        """One line for a person, in the order in which things are done."""
        words = ["grey"] if self.mode == "L" else []
        if self.crop_fraction is not None:
            words.append(f"centre crop of {self.crop_fraction:g} of the short side")
        if self.resize is not None:
            sides = self.resize if isinstance(self.resize, int) else "{} x {}".format(*self.resize)
            words.append(f"resize {sides} {self.interpolation}")
        if self.crop is not None:
            height, width = self.output_size
            words.append(f"centre crop {height if height == width else f'{height} x {width}'}")
        if set(self.mean) == {0.0} and set(self.std) == {1.0}:
            words.append("values in [0, 1], not normalised")
        else:
            words += [f"mean {_decimals(self.mean)}", f"std {_decimals(self.std)}"]
        return ", ".join(words)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; ``crop_fraction`` only where there is one."""
        # Left out, so that the record of a run, and with it its key, stays what it was before the field.
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if key != "crop_fraction" or value is not None
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocess:
        """The inverse of :meth:`to_json`; unknown or missing fields raise SettingsError."""
        names = set(cls.__dataclass_fields__)
        if not isinstance(fields, Mapping) or {*fields, "crop_fraction"} != names:
            got = sorted(map(str, fields)) if isinstance(fields, Mapping) else fields
            needed = sorted(names - {"crop_fraction"})
            raise SettingsError(
                f"preprocess: needs the fields {needed}, and may have crop_fraction; got {got}"
            )
        return cls(**fields)

    def fraction_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of the crop in an image of this size, pixels."""
        assert self.crop_fraction is not None
        out_height, out_width = self.output_size
        # The side that limits is multiplied first, so that 0.875 of 500 pixels is exactly 437.5.
        if out_width * height > out_height * width:
            limit_height, limit_width = width * out_height / out_width, float(width)
        else:
            limit_height, limit_width = float(height), height * out_width / out_height
        box_height = max(1, round(self.crop_fraction * limit_height))
        box_width = max(1, round(self.crop_fraction * limit_width))
        return (height - box_height + 1) // 2, (width - box_width + 1) // 2, box_height, box_width

    def _check_resized(self, height: int, width: int) -> None:
        if isinstance(self.resize, tuple) or self.resize is None:
            return
        short, long = sorted((height, width))
        if self.resize * self.resize * long // short > MAX_RESIZED_PIXELS:
            raise ImageError(
                f"{width} x {height} pixels: too long and thin to bring the short side "
                f"to {self.resize}"
            )


def _height_width(image: Image.Image | Tensor) -> tuple[int, int]:
    if isinstance(image, Tensor):
        return image.shape[-2], image.shape[-1]
    return image.height, image.width


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


def _fraction(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    raise SettingsError(f"preprocess: crop_fraction must be above 0 and at most 1, got {value!r}")


def _decimals(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:g}".removeprefix("0") or "0" for number in numbers)


IMAGENET = Preprocess()
