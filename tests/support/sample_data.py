"""Small encoders and image folders that the tests of encoders, images, scoring and cli share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from qscore_fast.demo.fashion_mnist import CLASSES, read_idx
from qscore_fast.encoders.networks.small_resnet import SmallResNet
from qscore_fast.images import Preprocess

ARGUMENTS: dict[str, Any] = {
    "stem_channels": 8,
    "stem_stride": 2,
    "planes": [8, 64],
    "blocks": [1, 1],
    "strides": [1, 2],
}
PREPROCESS = {
    "mode": "L",
    "resize": 28,
    "crop": 28,
    "interpolation": "bilinear",
    "mean": [0.286],
    "std": [0.353],
}


@functools.cache
def small_module(seed: int = 0) -> SmallResNet:
    """r = 256; random weights that float16 holds exactly, with batch norm fitted to real images.

    Its features are sparse and differ between images, and eps = 4 leaves more than 1 % of the images
    without an active feature: the case that "auto" is for.
    """
    images = torch.from_numpy(read_idx("discover", "images-idx3")[:256].copy())[:, None]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = SmallResNet(**ARGUMENTS)
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
        module.train()(Preprocess.from_json(PREPROCESS).normalise(images))
        torch.nn.init.constant_(module.stages[-1][-1].bn3.bias, -3)
    return module.half().float().eval()


class Signed(torch.nn.Module):
    """Every other feature of :func:`small_module` with its sign turned."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_module()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images) * (1 - 2 * (torch.arange(256) % 2)) + 0.01


def checkpoint_content(seed: int = 0) -> dict[str, Any]:
    """What the file of :func:`small_module` holds."""
    return {
        "format": "qscore-fast.encoder",
        "format_version": 1,
        "system": "simclr",
        "architecture": {"name": "small_resnet", "arguments": ARGUMENTS},
        "num_features": 256,
        "preprocess": PREPROCESS,
        "state_dict": {
            name: value.half() if value.is_floating_point() else value
            for name, value in small_module(seed).state_dict().items()
        },
        "heads": {},
        "training": {},
    }


def save_checkpoint(path: Path, seed: int = 0) -> Path:
    """Write the checkpoint of :func:`small_module`."""
    torch.save(checkpoint_content(seed), path)
    return path


def save_images(folder: Path, count: int, split: str = "score", start: int = 0) -> Path:
    """``count`` of the bundled images as CLASS/NUMBER.png."""
    images = read_idx(split, "images-idx3")[start : start + count]
    labels = read_idx(split, "labels-idx1")[start : start + count]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / CLASSES[label] / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, compress_level=1)
    return folder
