"""One image file to one Pillow image in the encoder's mode."""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Literal

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from qscore_fast.errors import ImageError
from qscore_fast.images.outage import outage_of
from qscore_fast.images.sources.source import MAX_IMAGE_BYTES

# The size from which Pillow itself refuses an image (twice its warning level of 89,478,485).
DEFAULT_MAX_PIXELS = 178_956_970

_TIFF = "TIFF"
# What a file named .jpg or .png really is in practice. Formats whose decoder runs other programs
# (EPS, PDF) stay out, whatever the file is called.
FORMATS = ("JPEG", "PNG", WebPImagePlugin.WebPImageFile.format, "BMP", "DIB", "GIF", _TIFF)

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15

_O_BINARY = getattr(os, "O_BINARY", 0)  # Windows only

_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
)


# By the value of EXIF's Orientation (JEITA CP-3451, table 5); 1 is upright.
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings (sizes are checked here, damage is recorded) and restore the filters.

    Warning filters belong to the process: enter this once around a pool of decoding threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def decode_image(
    path: str | bytes | os.PathLike[str],
    mode: Literal["RGB", "L"] = "RGB",
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Image.Image:
    """Decode a regular file and convert it as torchvision's default loader does.

    One difference: 16-bit grey is scaled to 8 bit (65535 to 255), where Pillow would clip at 255.

    Args:
        path: the file.
        mode: the encoder's colour mode.
        max_pixels: width x height above which the image is refused from its header alone.

    Raises:
        ImageError: no regular file, not a known format, damaged, truncated or too large.
        UnavailableError: the machine or the store fails, not the image.
    """
    with opened_file(path) as file:
        return decode_file(file, mode, max_pixels)


def decode_bytes(
    content: bytes, mode: Literal["RGB", "L"] = "RGB", max_pixels: int = DEFAULT_MAX_PIXELS
) -> Image.Image:
    """``decode_image`` of a file's content.

    Raises:
        ImageError: not a known format, damaged, truncated or too large.
    """
    with opened_bytes(content) as file:
        return decode_file(file, mode, max_pixels)


def decode_file(
    file: BinaryIO,
    mode: Literal["RGB", "L"],
    max_pixels: int,
    faster: Callable[[Image.Image, BinaryIO], Image.Image | None] | None = None,
    exif_rotation: bool = False,
) -> Image.Image:
    """Check the header of an open file, then decode it.

    Args:
        faster: called with the checked header and the file; the decoded image, or None to leave it
            to Pillow.
        exif_rotation: turn and mirror the image as its EXIF says.

    Raises:
        ImageError: not a known format, damaged, truncated or too large.
    """
    with checked_header(file, max_pixels) as image:
        turn = exif_turn(image) if exif_rotation else None
        decoded = faster(image, file) if faster is not None else None
        decoded = _convert(image if decoded is None else decoded, mode)
        return decoded if turn is None else decoded.transpose(turn)


@contextmanager
def checked_header(file: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """An open file as a Pillow image that is not decoded yet, of a known format and size.

    Raises:
        ImageError: it is none, or what is done with it in the block shows that it is damaged.
        UnavailableError: it cannot be read, or there is not enough memory.
    """
    try:
        with Image.open(_for_pillow(file), formats=FORMATS) as image:
            width, height = image.size
            if not width * height:
                raise ImageError(f"{width} x {height} pixels: nothing to score")
            for width, height in (image.size, _tile_size(image)):
                if width * height > max_pixels:
                    raise ImageError(
                        f"{width} x {height} pixels is above the limit of {max_pixels:,} pixels"
                    )
            yield image
    except UnidentifiedImageError:
        raise ImageError("not an image of a known format, or its header is damaged") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"too large for Pillow: {error}") from None
    except (*_DAMAGE, MemoryError) as error:
        if (outage := outage_of(error)) is not None:
            raise outage from error
        raise ImageError(f"damaged or truncated: {error}") from error


def exif_turn(image: Image.Image) -> Image.Transpose | None:
    """How an image must be turned or mirrored as its EXIF says; None where not at all, or unreadable."""
    if image.format == _TIFF:
        return None  # Pillow does it while it decodes, whoever asks
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE as error:
        if (outage := outage_of(error)) is not None:
            raise outage from error
        return None


def opened_file(path: str | bytes | os.PathLike[str]) -> BinaryIO:
    """Open for reading; a pipe or a device under an image's name is refused instead of waited for.

    Raises:
        ImageError: it cannot be opened (stage "read"), is no regular file, or is empty.
        UnavailableError: nothing could be opened now.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _O_BINARY)
    except OSError as error:
        if (outage := outage_of(error)) is not None:
            raise outage from error
        raise ImageError(f"cannot be opened: {error.strerror}", "read") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        os.close(descriptor)
        regular = stat.S_ISREG(status.st_mode)
        raise ImageError("the file is empty" if regular else "not a regular file")
    return os.fdopen(descriptor, "rb")


def opened_bytes(content: bytes) -> BinaryIO:
    """The content of a file, to read from.

    Raises:
        ImageError: it is empty.
    """
    if not content:
        raise ImageError("the file is empty")
    return io.BytesIO(content)


def _for_pillow(file: BinaryIO) -> BinaryIO:
    """The file, or a TIFF's content: libtiff would read by itself and take a failing disk for damage."""
    start = file.read(4)
    file.seek(0)
    if start not in TiffImagePlugin.PREFIXES:
        return file
    content = file.read(MAX_IMAGE_BYTES + 1)
    if len(content) > MAX_IMAGE_BYTES:
        raise ImageError(f"a TIFF above the limit of {MAX_IMAGE_BYTES:,} bytes")
    return io.BytesIO(content)


def _tile_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of what is decoded at a time; a tile may be larger than its image."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ImageError(
            "its pixels are floating-point numbers of no known range: store 8 or 16 bits"
        )
    if image.mode.startswith("I;16") or image.mode == "I":
        levels = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    return image.convert(mode)
