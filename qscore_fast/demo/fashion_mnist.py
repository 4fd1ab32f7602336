"""The bundled Fashion-MNIST images, from the data set's own file format to class folders of PNGs."""

from __future__ import annotations

import gzip
import importlib.resources
import os
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from qscore_fast.errors import QScoreError, StoreError

CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip

Split = Literal["discover", "score"]


def unpack_images(split: Split, folder: Path, limit: int | None = None) -> bool:
    """Write a split below ``folder`` as CLASS/NUMBER.png, unless it is there; True if it was written.

    Only the first ``limit`` images, where that is given.

    The folder appears under its name only once it is complete.
    """
    if folder.exists():
        return False
    images, labels = read_idx(split, "images-idx3"), read_idx(split, "labels-idx1")
    if images.ndim != 3 or labels.shape != images.shape[:1] or labels.max() >= len(CLASSES):
        raise QScoreError(f"the bundled {split} images and labels do not belong together")
    save_class_folders(images[:limit], labels[:limit], folder)
    return True


def save_class_folders(images: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    """Write uint8 (n, 28, 28) images as CLASS/NUMBER.png; ``folder`` appears once it is complete."""
    temporary = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")
    try:
        for name in CLASSES:
            (temporary / name).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = temporary / CLASSES[label] / f"{number:05d}.png"
            Image.fromarray(image).save(path, compress_level=1)
        temporary.rename(folder)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_idx(split: Split, kind: str) -> np.ndarray:
    """One bundled file: uint8 (images, 28, 28) or (images,)."""
    name = f"{split}-{kind}-ubyte.gz"
    packed = (importlib.resources.files("qscore_fast") / "demo" / "data" / name).read_bytes()
    return idx_array(packed, f"the bundled {name}")


def idx_array(packed: bytes, name: str) -> np.ndarray:
    """The uint8 array of a gzipped idx file.

    The idx layout: two zero bytes, the type (8: unsigned byte), the number of dimensions, each
    dimension as big-endian int32, then the values.

    Raises:
        QScoreError: another layout, or cut off; ``name`` is in the message.
    """
    try:
        content = gzip.decompress(packed)
    except (OSError, EOFError) as error:
        raise QScoreError(f"{name} is no whole gzip file ({error})") from error
    if content[:3] != b"\0\0\x08":
        raise QScoreError(f"{name} is not an idx file of unsigned bytes")
    ndim = content[3]
    try:
        shape = np.frombuffer(content, ">i4", count=ndim, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except ValueError as error:
        raise QScoreError(f"{name} is cut off ({error})") from error
