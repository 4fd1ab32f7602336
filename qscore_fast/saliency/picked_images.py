"""Images of a source by their order or their ids, decoded at their own resolution."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from PIL import Image

from qscore_fast.errors import ImageError, SourceError
from qscore_fast.images import Source
from qscore_fast.images.decoders import PillowDecoder
from qscore_fast.images.preprocess import Preprocess

UNIT_SIZE = 1024


class Picked(NamedTuple):
    """Images of a source, in its order, and why others are missing."""

    images: dict[str, Image.Image]  # by sample id
    errors: dict[str, str]  # by sample id


def pick_images(
    source: Source, preprocess: Preprocess, *, limit: int | None = None, ids: Collection[str] = ()
) -> Picked:
    """Read the first ``limit`` usable images, or those with the given ids, as far as it takes.

    Args:
        preprocess: of the encoder: its mode is that of the images.

    Raises:
        SourceError: none of them can be used; the text has the first reason.
    """
    wanted, decoder = set(ids), PillowDecoder()
    images: dict[str, Image.Image] = {}
    errors: dict[str, str] = {}
    for unit in source.units(UNIT_SIZE):
        for sample in source.read(unit):
            if wanted and sample.sample_id not in wanted:
                continue
            try:
                images[sample.sample_id] = decoder.decode(sample, preprocess.mode)
            except ImageError as error:
                errors[sample.sample_id] = str(error)
            if len(images) == limit or (wanted and len(images) + len(errors) == len(wanted)):
                return _some(images, errors, source)
    for sample_id in sorted(wanted - images.keys() - errors.keys()):
        errors[sample_id] = "the source does not hold this image"
    return _some(images, errors, source)


def _some(images: dict[str, Image.Image], errors: dict[str, str], source: Source) -> Picked:
    if not images:
        reason = next((f"{name}: {why}" for name, why in errors.items()), "it is empty")
        raise SourceError(f"no image of {source.location} can be used; {reason}")
    return Picked(images, errors)
