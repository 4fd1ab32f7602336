"""ShownImages: the images of a report, each once, however many galleries it is in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from qscore_fast.errors import ImageError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.report.active_features import PartRowsIndex, active_features
from qscore_fast.report.score_rows import ScoreRows
from qscore_fast.report.source_images import SourceImages
from qscore_fast.report.thumbnails import data_uri, thumbnail, webp
from qscore_fast.scoring.store import Store

MOST_FEATURES = 8
PICTURE_BYTES = 10_000_000
"""Of all pictures of a report before base64, which makes them a third larger."""

HeatMaps = Callable[[Sequence[Image.Image], Sequence[Sequence[int]]], Sequence[Image.Image | None]]
"""Images and the features that made their scores -> pictures of the same sizes with the maps on them."""


@dataclass
class ShownImages:
    """Rows that were asked for, with what a reader sees of them.

    Attributes:
        entries: plain values of each image, in the order of their places.
        pictures: data URIs by place. maps: the same with heat maps.
        missing: reason -> how many pictures there are not.
    """

    rows: ScoreRows
    entries: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[int, str] = field(default_factory=dict)
    maps: dict[int, str] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    _places: dict[int, int] = field(default_factory=dict)

    def add(self, rows: Iterable[int]) -> list[int]:
        """The places of these rows, new ones at the end."""
        return [self._places.setdefault(row, len(self._places)) for row in rows]

    def __len__(self) -> int:
        return len(self._places)

    def fill(
        self,
        store: Store,
        index: PartRowsIndex,
        features: DiscriminativeFeatures,
        images: SourceImages | None,
        heat_maps: HeatMaps | None = None,
        correct: Mapping[str, bool] | None = None,
    ) -> None:
        """Read what is shown of every row: once all of them were added.

        Args:
            images: where the pictures come from; None for a report without.
            heat_maps: what draws the maps.
            correct: by sample id, whether a probe was right.
        """
        asked = list(self._places)
        table = self.rows.read(asked)
        active = active_features(store, index, asked, features)
        ascending = self.rows.q[self.rows.order]
        for row, columns in zip(asked, table, strict=True):
            below = int(np.searchsorted(ascending, np.float32(columns["q_score"])))
            entry = {
                "row": row,
                "sample_id": columns["sample_id"],
                "label": self.rows.label(row),
                **{
                    name: columns[name]
                    for name in (
                        "q_score", "num_active", "num_highly_active", "mean", "std", "l1", "l2",
                    )
                },
                "share_below": below / len(ascending),
                "features": [
                    {"feature": j, "value": value} for j, value in active[row][:MOST_FEATURES]
                ],
                "size": None,
                "missing": None,
            }  # fmt: skip
            if correct is not None:
                entry["correct"] = correct.get(columns["sample_id"])
            self.entries.append(entry)
        if images is not None:
            self._read_pictures(images, heat_maps, {row: active[row] for row in asked})

    def _read_pictures(
        self,
        images: SourceImages,
        heat_maps: HeatMaps | None,
        active: dict[int, list[tuple[int, float]]],
    ) -> None:
        wanted = {entry["row"]: entry["sample_id"] for entry in self.entries}
        used = 0
        for row, found in images.read(wanted):
            place = self._places[row]
            entry = self.entries[place]
            if isinstance(found, ImageError):
                entry["missing"] = str(found)
                self.missing[str(found)] = self.missing.get(str(found), 0) + 1
                continue
            entry["size"] = list(found.size)
            small = webp(thumbnail(found))
            drawn = [small]
            if heat_maps is not None and active[row]:
                over = heat_maps([found], [[j for j, _ in active[row]]])[0]
                if over is not None:
                    drawn.append(webp(thumbnail(over)))
            used += sum(map(len, drawn))
            if used > PICTURE_BYTES:
                reason = "left out to keep the file small"
                entry["missing"] = reason
                self.missing[reason] = self.missing.get(reason, 0) + 1
                continue
            self.pictures[place] = data_uri(small)
            if len(drawn) > 1:
                self.maps[place] = data_uri(drawn[1])
