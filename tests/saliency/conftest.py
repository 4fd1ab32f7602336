"""Planted images with their masks, as ImageNet and Salient ImageNet lie on a disk."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from planted_patches import WNIDS, PlantedImage, planted_images
from salient_tree import save_salient_tree


class PlantedTree(NamedTuple):
    """The folder of the images, that of the masks, and what was planted."""

    images: Path
    salient: Path
    planted: list[PlantedImage]


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedTree:
    """8 images with masks, and one without."""
    root = tmp_path_factory.mktemp("planted")
    images = planted_images(4)
    for image in images:
        path = root / "train" / image.wnid / f"{image.name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.encoded())
    (root / "train" / WNIDS[0] / f"{WNIDS[0]}_7.JPEG").write_bytes(images[0].encoded())
    masks = {
        wnid: {
            59 + number: {i.name: i.mask(kind == "core") for i in images if i.wnid == wnid}
            for number, kind in enumerate(("core", "spurious"))
        }
        for wnid in WNIDS
    }
    kinds = {wnid: {59: "core", 60: "spurious"} for wnid in WNIDS}
    numbers = {WNIDS[0]: 0, WNIDS[1]: 10}
    return PlantedTree(root / "train", save_salient_tree(root, masks, kinds, numbers), images)
