"""Real JPEG files of ImageNet's usual size, cut from scikit-learn's photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def save_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """``count`` different JPEG files of (width, height) = ``size`` in ten class folders."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    generator = np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        share = generator.uniform(0.4, 1.0)
        width, height = int(photo.width * share), int(photo.height * share)
        x, y = (
            generator.integers(photo.width - width + 1),
            generator.integers(photo.height - height + 1),
        )
        path = folder / f"n{number % 10:08d}" / f"{number:06d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((x, y, x + width, y + height)).resize(size).save(path, quality=90)


def linked(folder: Path, target: Path, count: int) -> Path:
    """A folder of ``count`` images: those of ``folder`` again and again, under new names."""
    files = sorted(folder.rglob("*.JPEG"))
    for index in range(count):
        path = target / f"n{index % 10:08d}" / f"{index:07d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(files[index % len(files)])
    return target
