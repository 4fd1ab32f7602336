"""DrawnImage: an image with its heat maps by one encoder or several, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.saliency.chosen_features import Features
from qscore_fast.saliency.heat_map_sheet import Panel, plain
from qscore_fast.saliency.heatmaps import Combine, heatmaps
from qscore_fast.saliency.overlay import overlay

CANVAS = 128  # pixels to which the sides of a smaller image are brought on a sheet
LISTED = 4  # features that a title names


@dataclass(frozen=True, eq=False)
class DrawnImage:
    """One image as one encoder sees it.

    Attributes:
        sample_id: its name.
        image: at its own resolution.
        heat: (h, w) at the resolution of the layer.
        q_score: of it.
        features: those that the map shows.
        note: why there is nothing to see, or empty.
        encoder: whose preprocessing says where the crop lies.
        colour_map: of the overlay.
    """

    sample_id: str
    image: Image.Image
    heat: Tensor
    q_score: float
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
        """The score and the first features, or the note."""
        if self.note:
            return plain(self.note.partition(":")[0], 30)
        named = ", ".join(map(str, self.features[:LISTED]))
        more = f" +{len(self.features) - LISTED}" if len(self.features) > LISTED else ""
        return f"Q {self.q_score:.3f}  [{named}{more}]"

    def to_json(self) -> dict[str, Any]:
        """Plain values; a score that is not finite is null."""
        return {
            "sample_id": self.sample_id,
            "encoder": self.encoder.name,
            "q_score": self.q_score if np.isfinite(self.q_score) else None,
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
    features: Features,
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
    maps, scores = found.maps.cpu(), found.q_score.tolist()
    return [
        DrawnImage(
            name,
            image,
            maps[i],
            scores[i],
            found.features[i].tolist(),
            found.notes[i],
            encoder,
            colour_map,
        )
        for i, (name, image) in enumerate(images.items())
    ]
