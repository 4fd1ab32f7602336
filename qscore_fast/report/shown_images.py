"""ShownImages: the images of a report, each once, however many galleries it is in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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
NUMBERS = ("q_score", "num_active", "num_highly_active", "mean", "std", "l1", "l2")
PICTURE_BYTES = 10_000_000
"""Of all pictures of a report before base64, which makes them a third larger."""

BATCH = 32
"""Images in memory at once."""


class HeatMapDrawer(Protocol):
    """What draws heat maps on images."""

    def __call__(
        self, images: Sequence[Image.Image], feature: int | None = None
    ) -> Sequence[Image.Image | None]:
        """Each image with the map of its own features, or of one; None where there is nothing to show."""
        ...


@dataclass
class ShownImages:
    """Rows that were asked for, with what a reader sees of them.

    Attributes:
        entries: plain values of each image, in the order of their places.
        pictures: data URIs by place. maps: the same with the heat of the image's own features.
        feature_maps: feature -> place -> data URI with the heat of that feature.
        missing: reason -> how many pictures there are not.
    """

    rows: ScoreRows
    entries: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[int, str] = field(default_factory=dict)
    maps: dict[int, str] = field(default_factory=dict)
    feature_maps: dict[int, dict[int, str]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    _used: int = 0
    _places: dict[int, int] = field(default_factory=dict)

    def add(self, rows: Iterable[int]) -> list[int]:
        """The places of these rows, new ones at the end."""
        return [self._places.setdefault(row, len(self._places)) for row in rows]

    @property
    def places(self) -> Mapping[int, int]:
        """The place of each row."""
        return self._places

    def __len__(self) -> int:
        return len(self._places)

    def fill(
        self,
        store: Store,
        index: PartRowsIndex,
        features: DiscriminativeFeatures,
        images: SourceImages | None,
        heat_maps: HeatMapDrawer | None = None,
        galleries: Mapping[int, Sequence[int]] | None = None,
        correct: Mapping[str, bool] | None = None,
    ) -> None:
        """Read what is shown of every row: once all of them were added.

        Args:
            images: where the pictures come from; None for a report without.
            heat_maps: what draws the maps.
            galleries: feature -> the places in its gallery, which show its own map.
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
                **{name: columns[name] for name in NUMBERS},
                "share_below": below / len(ascending),
                "features": [
                    {"feature": j, "value": value} for j, value in active[row][:MOST_FEATURES]
                ],
                "size": None,
                "missing": None,
            }
            if correct is not None:
                entry["correct"] = correct.get(columns["sample_id"])
            self.entries.append(entry)
        if images is None:
            return
        ids = {entry["row"]: entry["sample_id"] for entry in self.entries}
        for batch in self._batches(images, ids):
            self._add_pictures(batch)
            if heat_maps is not None:
                self._add_maps(batch, heat_maps, None, self.maps)
        if heat_maps is None:
            return
        for feature, places in (galleries or {}).items():
            # Read again: kept, the images of all galleries would fill the memory.
            own = {asked[place]: ids[asked[place]] for place in places if place in self.pictures}
            into = self.feature_maps.setdefault(feature, {})
            for batch in self._batches(images, own):
                self._add_maps(batch, heat_maps, feature, into)

    def _batches(
        self, images: SourceImages, ids: Mapping[int, str]
    ) -> Iterator[dict[int, Image.Image]]:
        """Place -> image of these rows, some at a time; what cannot be read is recorded."""
        batch: dict[int, Image.Image] = {}
        for row, found in images.read(ids):
            place = self._places[row]
            if isinstance(found, ImageError):
                self._miss(place, str(found))
                continue
            self.entries[place]["size"] = list(found.size)
            batch[place] = found
            if len(batch) == BATCH:
                yield batch
                batch = {}
        if batch:
            yield batch

    def _add_pictures(self, batch: dict[int, Image.Image]) -> None:
        for place, image in batch.items():
            uri = self._kept(thumbnail(image))
            if uri is None:
                self._miss(place, "left out to keep the file small")
            else:
                self.pictures[place] = uri

    def _add_maps(
        self,
        batch: dict[int, Image.Image],
        heat_maps: HeatMapDrawer,
        feature: int | None,
        into: dict[int, str],
    ) -> None:
        places = [place for place in batch if place in self.pictures]
        drawn = heat_maps([batch[place] for place in places], feature)
        for place, picture in zip(places, drawn, strict=True):
            uri = None if picture is None else self._kept(thumbnail(picture))
            if uri is not None:
                into[place] = uri

    def _kept(self, picture: Image.Image) -> str | None:
        """The picture as a data URI, while there is room for it."""
        content = webp(picture)
        if self._used + len(content) > PICTURE_BYTES:
            return None
        self._used += len(content)
        return data_uri(content)

    def _miss(self, place: int, reason: str) -> None:
        self.entries[place]["missing"] = reason
        self.missing[reason] = self.missing.get(reason, 0) + 1
