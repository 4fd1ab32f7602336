"""What a written checkpoint file is: its path, and what a plain forward computes from its tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Features = Callable[[Tensor, str], Tensor]
Map = Callable[[Tensor], Tensor]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocess(
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    resize: int | None = 256,
    crop: int | None = 224,
    interpolation: str = "bilinear",
    crop_fraction: float | None = None,
) -> dict[str, Any]:
    """How the source evaluates. Either the short side is resized and then cropped, or, with
    `crop_fraction`, that share of the short side is cropped and then resized to `crop`."""
    return {
        "mean": mean,
        "std": std,
        "resize": resize,
        "crop": crop,
        "interpolation": interpolation,
        "crop_fraction": crop_fraction,
    }


@dataclass
class Tower:
    """One backbone of a file with the projector on it: h = features(images, pool), z = projector(h)."""

    features: Features
    projector: Map | None = None


@dataclass
class Published:
    """A checkpoint file and the answers a plain forward over its own tensors gives.

    path: what a user passes to load_encoder
    num_features: r
    towers_by_name: "online", "ema" -> Tower, as far as the file holds them
    default_tower: the one the source evaluates
    heads: the canonical names of the parts that the file holds beside the default backbone
    classifier: weight (classes, r) and bias, None where the file's is not the trained one
    converter_features: what the converter's own network computes, where it differs from the trained one
    """

    path: Path
    num_features: int
    towers_by_name: dict[str, Tower]
    default_tower: str
    preprocess: dict[str, Any]
    heads: frozenset[str] = frozenset()
    predictor: Map | None = None
    prototypes_weight: Tensor | None = None
    queue: Tensor | None = None
    center: Tensor | None = None
    classifier: tuple[Tensor, Tensor | None] | None = None
    converter_features: Features | None = None
    state: Any = field(default=None, repr=False)

    @property
    def towers(self) -> tuple[str, ...]:
        return tuple(self.towers_by_name)

    def _tower(self, name: str) -> Tower:
        return self.towers_by_name[self.default_tower if name == "default" else name]

    @torch.no_grad()
    def features(self, images: Tensor, tower: str = "default", pool: str = "cls") -> Tensor:
        """h (B, r) float32 of normalised images (B, 3, H, W); `pool` matters to ViTs alone."""
        return self._tower(tower).features(images, pool)

    @torch.no_grad()
    def projection(self, images: Tensor, tower: str = "default") -> Tensor | None:
        """The projector's output, before any L2 normalisation and before prototypes."""
        chosen = self._tower(tower)
        return (
            None if chosen.projector is None else chosen.projector(chosen.features(images, "cls"))
        )

    @torch.no_grad()
    def prediction(self, z: Tensor) -> Tensor | None:
        return None if self.predictor is None else self.predictor(z)


@dataclass(frozen=True)
class Row:
    """One kind of published file.

    system: the system as the file itself tells it; None where it cannot, and then `fits` lists the
        systems whose files look the same, the one that this row imitates first
    source: the repository or zoo that wrote it
    filename: the name under which users have it
    encoder: False for a file that holds no encoder and must be refused
    """

    id: str
    system: str | None
    source: str
    filename: str
    writer: Callable[..., Published] = field(repr=False)
    fits: tuple[str, ...] = ()
    encoder: bool = True

    def write(self, folder: Path, seed: int = 0, **size: Any) -> Published:
        """Write the file into `folder`. Sizes: `full=True` for the published one, or what the writer takes
        (`stem` and `layers` of a ResNet, `width` and `depth` of a ViT)."""
        folder.mkdir(parents=True, exist_ok=True)
        return self.writer(folder / self.filename, seed, **size)
