"""Which library turns samples into images: Pillow, TorchCodec or nvJPEG."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Protocol

import PIL
import torch
from PIL import Image
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.images import nvjpeg
from qscore_fast.images.decode import (
    DEFAULT_MAX_PIXELS,
    checked_header,
    decode_file,
    exif_turn,
    opened_bytes,
    opened_file,
)
from qscore_fast.images.nvjpeg import EncodedJpeg
from qscore_fast.images.sources.source import MAX_IMAGE_BYTES, Sample

DecoderName = Literal["auto", "pillow", "torchcodec", "nvjpeg"]


class Decoder(Protocol):
    """Decodes samples; safe to share between threads, and pickles.

    Attributes:
        name: of the library.
        version: of the library.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def decode(self, sample: Sample, mode: Literal["RGB", "L"]) -> Image.Image:
        """The image of a sample in the encoder's mode; as it is stored, unless ``exif_rotation``.

        Raises:
            ImageError: the sample's own error, or no regular file, not a known format, damaged,
                truncated or too large.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """What a run's record says of it; a run continues only with the same."""
        ...


@dataclass(frozen=True)
class PillowDecoder:
    """Every format through Pillow, as torchvision's default loader does it.

    Attributes:
        max_pixels: width x height above which an image is refused from its header alone.
        exif_rotation: turn and mirror images as their EXIF says.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    exif_rotation: bool = False

    @property
    def name(self) -> str:
        return "pillow"

    @property
    def version(self) -> str:
        return PIL.__version__

    def decode(self, sample: Sample, mode: Literal["RGB", "L"]) -> Image.Image:
        with opened_sample(sample) as file:
            return decode_file(file, mode, self.max_pixels, exif_rotation=self.exif_rotation)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, **_limits(self)}


@dataclass(frozen=True)
class TorchCodecDecoder:
    """RGB and grey JPEGs through TorchCodec, everything else through Pillow.

    Pillow reads every header first, and has the last word on what TorchCodec refuses; so limits and
    errors are the same with both.

    Attributes:
        max_pixels: width x height above which an image is refused from its header alone.
        exif_rotation: turn and mirror images as their EXIF says.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    exif_rotation: bool = False

    @property
    def name(self) -> str:
        return "torchcodec"

    @property
    def version(self) -> str:
        return str(importlib.import_module("torchcodec").__version__)

    def decode(self, sample: Sample, mode: Literal["RGB", "L"]) -> Image.Image:
        with opened_sample(sample) as file:
            return decode_file(file, mode, self.max_pixels, _torchcodec_jpeg, self.exif_rotation)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, **_limits(self)}


@dataclass(frozen=True)
class NvJpegDecoder:
    """RGB and grey JPEGs left for the encoder's GPU to decode in batches, everything else through Pillow.

    Attributes:
        max_pixels: width x height above which an image is refused from its header alone.
        exif_rotation: turn and mirror images as their EXIF says; Pillow decodes those that need it.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    exif_rotation: bool = False

    @property
    def name(self) -> str:
        return "nvjpeg"

    @property
    def version(self) -> str:
        return nvjpeg.library()[0]

    def decode(self, sample: Sample, mode: Literal["RGB", "L"]) -> Image.Image:
        """As Pillow does: one image by itself."""
        return PillowDecoder(self.max_pixels, self.exif_rotation).decode(sample, mode)

    def decode_or_postpone(
        self, sample: Sample, mode: Literal["RGB", "L"]
    ) -> Image.Image | EncodedJpeg:
        """The image, or the JPEG file for :func:`~qscore_fast.images.nvjpeg.decode_jpegs`.

        Raises:
            ImageError: as ``decode``; what is wrong behind a JPEG's header shows only on the GPU.
        """
        with opened_sample(sample) as file:
            with checked_header(file, self.max_pixels) as header:
                if self._on_gpu(header, mode):
                    width, height = header.size
                    file.seek(0)
                    content = _without_exif(file.read(), header)
                    return EncodedJpeg(content, height, width, mode)
            file.seek(0)
            return decode_file(file, mode, self.max_pixels, exif_rotation=self.exif_rotation)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, **_limits(self)}

    def _on_gpu(self, header: Image.Image, mode: str) -> bool:
        if header.format != "JPEG" or header.width * header.height > nvjpeg.MOST_PIXELS:
            return False
        # Colour becomes grey in Pillow, whose weights differ from libjpeg's.
        if header.mode != "L" and (header.mode, mode) != ("RGB", "RGB"):
            return False
        return not self.exif_rotation or exif_turn(header) is None


def _limits(decoder: PillowDecoder | TorchCodecDecoder | NvJpegDecoder) -> dict[str, Any]:
    # The rotation is left out where there is none: the record of a run stays what it was without it.
    turned = {"exif_rotation": True} if decoder.exif_rotation else {}
    return {"max_pixels": decoder.max_pixels, **turned}


def choose_decoder(
    name: DecoderName = "auto",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    exif_rotation: bool = False,
) -> Decoder:
    """The decoder of this name; "auto" is Pillow.

    On the CPU both end in libjpeg-turbo with the same pixels, and the way from TorchCodec's tensor to
    the Pillow image that the resizing needs costs more than TorchCodec saves.

    Raises:
        SettingsError: no such decoder, ``max_pixels`` below 1, or TorchCodec does not import.
    """
    if name not in ("auto", "pillow", "torchcodec", "nvjpeg"):
        raise SettingsError(f"decoder must be auto, pillow, torchcodec or nvjpeg, got {name!r}")
    if max_pixels < 1:
        raise SettingsError(f"max_pixels must be at least 1, got {max_pixels}")
    if name == "nvjpeg":
        return NvJpegDecoder(max_pixels, exif_rotation)
    if name != "torchcodec":
        return PillowDecoder(max_pixels, exif_rotation)
    try:
        _decode_jpeg()
    # The wheel's libraries may not load with this torch: OSError or RuntimeError, not ImportError.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SettingsError(
            f"decoder torchcodec cannot be imported with torch {torch.__version__} ({reason}): run  "
            f'pip install "qscore-fast[torchcodec]"  with a build that matches torch, or choose pillow'
        ) from error
    return TorchCodecDecoder(max_pixels, exif_rotation)


def opened_sample(sample: Sample) -> BinaryIO:
    """Its encoded image, to read from.

    Raises:
        ImageError: the sample's own error, or no regular file, or empty.
    """
    if sample.error is not None:
        raise sample.error
    if sample.content is not None:
        return opened_bytes(sample.content)
    assert sample.path is not None
    return opened_file(sample.path)


def _decode_jpeg() -> Callable[..., Tensor]:
    decode_jpeg: Callable[..., Tensor] = importlib.import_module("torchcodec.decoders").decode_jpeg
    return decode_jpeg


def _torchcodec_jpeg(header: Image.Image, file: BinaryIO) -> Image.Image | None:
    if header.format != "JPEG" or header.mode not in ("RGB", "L"):
        return None
    position = file.tell()
    if file.seek(0, os.SEEK_END) > MAX_IMAGE_BYTES:
        file.seek(position)
        return None
    file.seek(0)
    try:
        # Grey is read as stored and converted by Pillow, whose weights differ from libjpeg's.
        content = _without_exif(file.read(), header)
        pixels = _decode_jpeg()(content, mode="GRAY" if header.mode == "L" else "RGB")
    except RuntimeError:
        return None
    finally:
        file.seek(position)
    if pixels.shape[1:] != (header.height, header.width):
        return None
    rows = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.frombuffer(header.mode, header.size, rows, "raw", header.mode, 0, 1)


def _without_exif(content: bytes, header: Image.Image) -> bytes:
    # TorchCodec turns images as their EXIF (in APP1) says and cannot be told not to; it skips APP15.
    for marker, segment in getattr(header, "applist", ()):
        if marker == "APP1":
            length_first = (len(segment) + 2).to_bytes(2, "big") + segment
            content = content.replace(b"\xff\xe1" + length_first, b"\xff\xef" + length_first, 1)
    return content
