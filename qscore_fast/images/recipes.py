"""The transforms that published encoders were evaluated with, by name."""

from __future__ import annotations

from dataclasses import replace

from qscore_fast.images.preprocess import IMAGENET, Preprocess

__all__ = [
    "BYOL",
    "CIFAR10",
    "DINOV3_SAT",
    "IMAGENET",
    "IMAGENET_BICUBIC",
    "SWAV",
    "UNIT_RANGE",
]

# DINO, DINOv2, DINOv3.
IMAGENET_BICUBIC = replace(IMAGENET, interpolation="bicubic")

# Its code has .228 where ImageNet's standard deviation is .229, for training and for evaluation.
SWAV = replace(IMAGENET, std=(0.228, 0.224, 0.225))

# Official SimCLR and SimCLRv2. TensorFlow's bicubic does not antialias; Pillow's does.
UNIT_RANGE = Preprocess(
    resize=(224, 224),
    crop=None,
    interpolation="bicubic",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    crop_fraction=0.875,
)

# Official BYOL rounds the side of its crop down, which is at most one pixel less than here.
BYOL = replace(UNIT_RANGE, mean=IMAGENET.mean, std=IMAGENET.std, crop_fraction=224 / (224 + 32))

# solo-learn's evaluation on CIFAR; its pre-training has .2470, .2435, .2616.
CIFAR10 = Preprocess(resize=32, crop=32, mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.243, 0.261))

# DINOv3 trained on satellite images (SAT-493M).
DINOV3_SAT = replace(IMAGENET_BICUBIC, mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143))
