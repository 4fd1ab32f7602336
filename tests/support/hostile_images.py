"""Image files that go wrong in the ways that real folders do."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def photo(width: int = 40, height: int = 30, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture with smooth and rough parts."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def jpeg_bytes(image: Image.Image) -> bytes:
    """The image as a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def truncated_jpeg(path: Path) -> None:
    """A JPEG cut off after two thirds."""
    content = jpeg_bytes(photo(200, 200))
    path.write_bytes(content[: len(content) * 2 // 3])


def png_bomb(path: Path, side: int = 20_000) -> None:
    """A valid PNG of side x side black pixels in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    body = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def grey16(path: Path) -> np.ndarray:
    """A 16-bit grey PNG whose values span the whole range; returns them."""
    levels = np.linspace(0, 65535, 40 * 30).round().astype(np.uint16).reshape(30, 40)
    Image.fromarray(levels).save(path)
    return levels


def palette_with_alpha(path: Path) -> None:
    """A palette PNG with one transparent colour a pixel value, as bytes."""
    image = photo().quantize(16)
    image.save(path, transparency=bytes(range(0, 256, 16)))


def save_hostile_folder(folder: Path) -> tuple[set[str], dict[str, str]]:
    """Write one of each below ``folder``/things, without labels of their own.

    Returns:
        The sample ids that must be scored, and for those that must not, a word of the reason.
    """
    things = folder / "things"
    things.mkdir(parents=True)
    photo().save(things / "plain.JPG")
    photo().save(things / "plain.webp")
    photo().save(things / "plain.bmp")
    photo(1, 1).save(things / "one.png")
    photo().convert("CMYK").save(things / "cmyk.jpeg")
    photo().convert("LA").save(things / "grey-alpha.png")
    grey16(things / "grey16.png")
    palette_with_alpha(things / "palette.png")
    photo().save(things / "really-a-png.jpg", "PNG")
    photo().save(things / "new\nline.png")
    photo().save(things / "back\\slash.png")
    raw = os.path.join(os.fsencode(things), b"caf\xe9.png")
    with open(raw, "wb") as file:
        photo().save(file, "PNG")
    good = {
        "plain.JPG", "plain.webp", "plain.bmp", "one.png", "cmyk.jpeg", "grey-alpha.png",
        "grey16.png", "palette.png", "really-a-png.jpg", "new\nline.png", r"back\\slash.png",
        r"caf\xe9.png",
    }  # fmt: skip

    truncated_jpeg(things / "truncated.jpg")
    (things / "empty.png").write_bytes(b"")
    (things / "text.jpg").write_text("this is no image\n")
    png_bomb(things / "bomb.png")
    photo(1, 5000).save(things / "thread.png")
    (things / "postscript.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    os.mkfifo(things / "pipe.jpg")
    os.symlink("nowhere", things / "dangling.png")
    bad = {
        "truncated.jpg": "truncated",
        "empty.png": "empty",
        "text.jpg": "not an image",
        "bomb.png": "400000000 pixels",
        "thread.png": "too long and thin",
        "postscript.jpg": "not an image",
        "pipe.jpg": "not a regular file",
        "dangling.png": "cannot be opened",
    }
    (things / "notes.txt").write_text("ignored")
    (things / "film.mp4").write_bytes(b"ignored")
    return {f"things/{name}" for name in good}, {f"things/{n}": r for n, r in bad.items()}
