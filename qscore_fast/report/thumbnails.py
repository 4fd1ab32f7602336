"""Small pictures as data URIs."""

from __future__ import annotations

import base64
import io

from PIL import Image

SIDE = 176
"""Pixels of the long side."""
TINY = 64
"""Images up to this side are kept as they are, to the bit."""


def thumbnail(image: Image.Image, side: int = SIDE) -> Image.Image:
    """The image at ``side`` pixels or its own size, whichever is smaller."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def webp(image: Image.Image) -> bytes:
    """The image as WebP: without loss where it is tiny."""
    buffer = io.BytesIO()
    if max(image.size) <= TINY:
        image.save(buffer, "WEBP", lossless=True, quality=80, method=4)
    else:
        image.save(buffer, "WEBP", quality=78, method=4)
    return buffer.getvalue()


def data_uri(content: bytes, kind: str = "image/webp") -> str:
    """The bytes as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
