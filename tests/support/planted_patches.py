"""Images in which a red patch is the object and a blue one is not, and encoders that see one or both."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from qscore_fast.encoders import Encoder
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.images import Preprocess

SIDE = 256
OFFSET = (SIDE - 224) // 2  # of the centre crop
PATCH = 64
NUM_FEATURES = 64
CELL = 8
RED, BLUE = 3, 11  # the features that see them
BRIGHT, DULL = 255, 130
WNIDS = ("n01440764", "n01530575")


@dataclass(frozen=True)
class PlantedImage:
    """Where the patches lie, in the crop; which of them the first encoder can see."""

    name: str
    wnid: str
    core: tuple[int, int]
    spurious: tuple[int, int]
    is_correct: bool

    def pixels(self) -> np.ndarray:
        """uint8 (256, 256, 3): a bright and a dull patch on black."""
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        for channel, (left, top), bright in (
            (0, self.core, self.is_correct),
            (2, self.spurious, not self.is_correct),
        ):
            x, y = left + OFFSET, top + OFFSET
            picture[y : y + PATCH, x : x + PATCH, channel] = BRIGHT if bright else DULL
        return picture

    def encoded(self) -> bytes:
        """Without loss, whatever the name says."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels()).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()

    def mask(self, core: bool) -> np.ndarray:
        """uint8 (224, 224)."""
        left, top = self.core if core else self.spurious
        mask = np.zeros((224, 224), np.uint8)
        mask[top : top + PATCH, left : left + PATCH] = 255
        return mask


def planted_images(per_class: int) -> list[PlantedImage]:
    """Alternately correct and not; the patches change places with the images, on the encoder's grid."""
    return [
        PlantedImage(
            f"{wnid}_{100 + n}", wnid, core=(CELL * (n % 5), CELL * (2 + n % 3)),
            spurious=(CELL * (14 + n % 6), CELL * (15 - n % 4)), is_correct=n % 2 == 0,
        )
        for wnid in WNIDS
        for n in range(per_class)
    ]  # fmt: skip


class PatchSeer(nn.Module):
    """One convolution of 8 x 8, ReLU, spatial mean: feature RED fires on red above a threshold, BLUE on blue.

    Args:
        red, blue: the levels, 0 to 255, above which each fires.
    """

    def __init__(self, red: float, blue: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, NUM_FEATURES, CELL, stride=CELL)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        with torch.no_grad():
            self.stem.weight.zero_()
            self.stem.bias.zero_()
            for feature, channel, level in ((RED, 0, red), (BLUE, 2, blue)):
                self.stem.weight[feature, channel] = 1 / CELL**2
                self.stem.bias[feature] = -level / 255

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(self.act(self.stem(images))).flatten(1)


@dataclass(frozen=True, eq=False)
class Planted:
    """An encoder and its D."""

    encoder: Encoder
    features: DiscriminativeFeatures = field(repr=False)


def planted_encoder(
    red: float, blue: float, name: str, preprocess: Preprocess | None = None
) -> Planted:
    """RED and BLUE are D."""
    transform = preprocess or Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    encoder = Encoder(PatchSeer(red, blue).eval(), transform, name)
    counts = torch.zeros(NUM_FEATURES, dtype=torch.int64)
    counts[[RED, BLUE]] = 10
    features = DiscriminativeFeatures(
        counts=counts, num_samples=20, eps=4.0, lower=50.0, upper=95.0, mask=counts > 0,
        fingerprint=encoder.fingerprint,
    )  # fmt: skip
    return Planted(encoder, features)
