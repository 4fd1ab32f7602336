"""DrawnImage: an image with its heat maps by one encoder or several, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.saliency.heat_map_sheet import Panel, plain
from qscore_fast.saliency.heatmaps import Combine, heatmaps
from qscore_fast.saliency.overlay import overlay

CANVAS = 128  # pixels to which the sides of a smaller image are brought on a sheet
LISTED = 3  # features that a title names


@dataclass(frozen=True, eq=False)
class DrawnImage:
    """One image as one encoder sees it.

    Attributes:
        sample_id: its name.
        image: at its own resolution.
        heat: (h, w) at the resolution of the layer.
        q_score: of it under its D; None where given features are shown.
        total: the sum of h over the features that the map shows.
        features: those that the map shows.
        note: why there is nothing to see, or empty.
        encoder: whose preprocessing says where the crop lies.
        colour_map: of the overlay.
    """

    sample_id: str
    image: Image.Image
    heat: Tensor
    q_score: float | None
    total: float
    features: list[int]
    note: str
    encoder: Encoder
    colour_map: str

    def picture(self) -> np.ndarray:
        """uint8 (height, width, 3) of the image's own size."""
        return overlay(self.image, self.heat, self.encoder.preprocess, colour_map=self.colour_map)

    def panels(self) -> list[Panel]:
        """The image, and beside it the map on it, for a sheet."""
        canvas = self._canvas()
        seen = overlay(canvas, self.heat, self.encoder.preprocess, colour_map=self.colour_map)
        return [
            Panel(np.asarray(canvas.convert("RGB")), plain(self.sample_id, 26)),
            Panel(seen, self.title),
        ]

    @property
    def title(self) -> str:
        """The score, or the sum of h, and the first features; or the note."""
        if self.note:
            return plain(self.note.partition(":")[0], 30)
        named = ", ".join(map(str, self.features[:LISTED]))
        more = f" +{len(self.features) - LISTED}" if len(self.features) > LISTED else ""
        value = f"h {self.total:.2f}" if self.q_score is None else f"Q {self.q_score:.3f}"
        return f"{value}  [{named}{more}]"

    def to_json(self) -> dict[str, Any]:
        """Plain values; a score that is not finite is null."""
        return {
            "sample_id": self.sample_id,
            "encoder": self.encoder.name,
            "q_score": self.q_score
            if self.q_score is not None and np.isfinite(self.q_score)
            else None,
            "sum_of_features": self.total if np.isfinite(self.total) else None,
            "features": self.features,
            "note": self.note,
        }

    def _canvas(self) -> Image.Image:
        """A small image larger, where the crop is a share of the image whatever its size."""
        preprocess = self.encoder.preprocess
        factor = CANVAS // max(self.image.size)
        if factor < 2 or (preprocess.resize is None and preprocess.crop is not None):
            return self.image
        size = self.image.width * factor, self.image.height * factor
        return self.image.resize(size, Image.Resampling.NEAREST)


def draw_images(
    encoder: Encoder,
    images: dict[str, Image.Image],
    features: DiscriminativeFeatures | list[int] | None,
    *,
    combine: Combine = "sum",
    layer: str | None = None,
    two_sided: bool | None = None,
    batch_size: int = 32,
    colour_map: str = "inferno",
) -> Sequence[DrawnImage]:
    """Heat maps of images, given by name; the other arguments are those of ``heatmaps``."""
    found = heatmaps(
        encoder, list(images.values()), features, combine,
        layer=layer, two_sided=two_sided, batch_size=batch_size,
    )  # fmt: skip
    maps, given = found.maps.cpu(), isinstance(features, list)
    totals = torch.where(found.members, found.h, 0).sum(1).tolist()
    return [
        DrawnImage(
            sample_id=name,
            image=image,
            heat=maps[i],
            q_score=None if given else found.q_score[i].item(),
            total=totals[i],
            features=found.features[i].tolist(),
            note=found.notes[i],
            encoder=encoder,
            colour_map=colour_map,
        )
        for i, (name, image) in enumerate(images.items())
    ]
