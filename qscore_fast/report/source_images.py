"""SourceImages: the pictures of a run, read again from the source that it was made from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from qscore_fast.errors import ImageError, QScoreError
from qscore_fast.images import DEFAULT_MAX_PIXELS, Sample, Source, Unit, open_source
from qscore_fast.images.decoders import PillowDecoder
from qscore_fast.images.sample_id import path_of_sample_id
from qscore_fast.report.active_features import PartRowsIndex
from qscore_fast.scoring.store import Store

FOLDERS = ("folder", "imagenet-val", "imagenet-kaggle")
"""Kinds whose sample ids are paths below the source's location."""


class SourceImages:
    """Opens samples by their place in the run; never by a name from elsewhere.

    Args:
        store: the run.
        location: where the images are now, in place of where the run found them.
        follow_links: whether a symbolic link may lead out of the source's folder, as it may when a folder
            is scored.
        options: of :func:`open_source`, where the names of columns do not tell.
    """

    def __init__(
        self,
        store: Store,
        location: str | None = None,
        *,
        follow_links: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._store = store
        self._index = PartRowsIndex(store)
        about = store.record.about
        self.location = location if location is not None else str(about.get("source_root", ""))
        self._kind = store.record.asked["source"]["kind"]
        if location is not None and os.path.isdir(location) != (self._kind in FOLDERS):
            self._kind = "given"
        self._follow_links = follow_links
        self._options = dict(options or {})
        asked = store.record.asked["decoder"]
        self._decoder = PillowDecoder(
            asked.get("max_pixels", DEFAULT_MAX_PIXELS), bool(asked.get("exif_rotation"))
        )
        self._opened: tuple[Source, Sequence[Unit]] | None = None
        self._reason = None if self.location else "the run does not say where its images are"

    def read(self, wanted: Mapping[int, str]) -> Iterator[tuple[int, Image.Image | ImageError]]:
        """Row of the scores -> its picture in RGB, or why there is none; in the order of the rows.

        Args:
            wanted: the sample id of each row.
        """
        for unit, rows in self._index.by_unit(wanted).items():
            ids = {row: wanted[row] for row in rows}
            samples = (
                {i: self._in_folder(i) for i in ids.values()}
                if self._kind in FOLDERS
                else self._in_unit(unit, set(ids.values()))
            )
            for row, sample_id in ids.items():
                yield row, self._decoded(samples.get(sample_id), sample_id)

    def _decoded(self, sample: Sample | None, sample_id: str) -> Image.Image | ImageError:
        if sample is None:
            return ImageError(self._reason or "the source no longer holds this sample", "read")
        try:
            self._check_link(sample)
            return self._decoder.decode(sample, "RGB")
        except ImageError as error:
            return error

    def _in_folder(self, sample_id: str) -> Sample:
        path = path_of_sample_id(sample_id)
        if path.startswith(b"/") or b"\0" in path or b".." in path.split(b"/"):
            return Sample(sample_id, error=ImageError("its id is no path below the source", "read"))
        return Sample(sample_id, path=os.path.join(os.fsencode(self.location), path))

    def _in_unit(self, index: int, ids: set[str]) -> dict[str, Sample]:
        found: dict[str, Sample] = {}
        source, units = self._source()
        if source is None or index >= len(units):
            return found
        try:
            for sample in source.read(units[index]):
                if sample.sample_id in ids:
                    found[sample.sample_id] = sample
                    if len(found) == len(ids):
                        break
        except (QScoreError, OSError) as error:
            self._reason = f"the source cannot be read: {error}"
        return found

    def _source(self) -> tuple[Source | None, Sequence[Unit]]:
        if self._opened is None and self._reason is None:
            try:
                # A folder may hold several kinds of images; the others are opened by what is there.
                kind = self._kind if self._kind in ("webdataset", "parquet") else None
                source = open_source(self.location, kind=kind, **self._options)
                self._opened = source, source.units(self._store.record.asked["unit_size"])
            except (QScoreError, OSError) as error:
                self._reason = f"the source cannot be opened: {error}"
        return self._opened or (None, ())

    def _check_link(self, sample: Sample) -> None:
        """ImageError for a link that leads where this source does not."""
        if self._follow_links or sample.path is None:
            return
        if self._kind in FOLDERS:
            root = os.path.realpath(os.fsencode(self.location))
            real = os.path.realpath(sample.path)
            inside = real.startswith(root.rstrip(b"/") + b"/")
        else:
            inside = not os.path.islink(sample.path)
        if not inside:
            raise ImageError("a symbolic link that leads out of the source is not followed", "read")
