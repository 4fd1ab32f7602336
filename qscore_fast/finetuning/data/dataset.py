"""ViewDataset: a request for a batch to its views, in whichever process asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from qscore_fast.errors import ImageError, SettingsError
from qscore_fast.finetuning.data.requests import BatchRequest, Request, seed_of
from qscore_fast.finetuning.data.single_images import SingleImages
from qscore_fast.finetuning.view_draws import ViewDraw
from qscore_fast.finetuning.views import ViewTransform
from qscore_fast.images import Decoder, Sample, quiet_pillow

Views = Callable[[Image.Image, int], list[Tensor]]
"""An image and a seed to its views, each (C, height, width)."""

_VIEWS, _OTHERS = 5, 6
MOST_BAD = 32
"""Bad images in place of one after which a source is given up."""


class _Views(NamedTuple):
    views: list[Tensor]
    draws: list[ViewDraw]


class ViewDataset(Dataset[dict[str, Any]]):
    """Decodes and augments; the random numbers of an image are its own, whoever draws them.

    Args:
        images: random access, or None where requests carry their samples.
        transform: an image and a seed to its views.
        cropped: leave the photometric part, which a ``ViewTransform`` has, to whoever trains.
        mode: colour mode of the images. decoder: what decodes them. seed: of the augmentation.
    """

    def __init__(
        self,
        images: SingleImages | None,
        transform: Views,
        mode: Literal["RGB", "L"],
        decoder: Decoder,
        seed: int,
        cropped: bool = False,
    ) -> None:
        self.images = images
        self.transform = transform
        self.mode = mode
        self.decoder = decoder
        self.seed = seed
        if cropped and not isinstance(transform, ViewTransform):
            raise SettingsError(
                "views_on_device needs the views of a recipe (ViewTransform): leave it out for others"
            )
        self.cropped = cropped

    def __getitem__(self, request: BatchRequest) -> dict[str, Any]:
        """The views (N, C, height, width) of a batch, what was bad, and the seconds that it took.

        With ``cropped`` the views are uint8, and ``draws`` says what is to be done with each.
        ``error`` is a text where too many images are bad to go on, otherwise None.
        """
        start = time.perf_counter()
        bad: list[tuple[str, str]] = list(request.bad)
        rows: list[_Views] = []
        spares = list(request.spares)
        error: str | None = None
        with quiet_pillow():
            for item in request.items:
                row = self._good(item, spares, rows, bad)
                if row is None:
                    error = f"{len(bad)} bad images and none in their place; the last: {bad[-1][1]}"
                    break
                rows.append(row)
        views, draws = [], None
        if not error:
            views = [torch.stack(view) for view in zip(*(row.views for row in rows), strict=True)]
            if self.cropped:
                draws = [list(one) for one in zip(*(row.draws for row in rows), strict=True)]
        return {
            "views": views,
            "draws": draws,
            "position": request.position,
            "bad": bad,
            "error": error,
            "seconds": time.perf_counter() - start,
        }

    def _good(
        self,
        item: Request,
        spares: list[Request],
        rows: list[_Views],
        bad: list[tuple[str, str]],
    ) -> _Views | None:
        """The views of an image, or of one in its place; None if there is no other."""
        if self.images is not None:
            for attempt in range(MOST_BAD):
                index = item.index
                if attempt:
                    index = seed_of(_OTHERS, self.seed, *item.key, attempt) % len(self.images)
                row = self._views(self.images[index], (*item.key, attempt), bad)
                if row is not None:
                    return row
            return None
        assert item.sample is not None
        row = self._views(item.sample, item.key, bad)
        while row is None and spares:
            spare = spares.pop()
            assert spare.sample is not None
            row = self._views(spare.sample, spare.key, bad)
        # Only a batch that is bad almost throughout comes to seeing one of its images twice.
        return row if row is not None or not rows else rows[len(bad) % len(rows)]

    def _views(
        self, sample: Sample, key: tuple[int, ...], bad: list[tuple[str, str]]
    ) -> _Views | None:
        try:
            image = self.decoder.decode(sample, self.mode)
            return self._transform(image, seed_of(_VIEWS, self.seed, *key))
        except ImageError as error:
            bad.append((sample.sample_id, f"{error.stage}: {error}"))
        except (MemoryError, ValueError, RuntimeError, ArithmeticError) as error:
            reason = (str(error).strip() or type(error).__name__).split("\n")[0]
            bad.append((sample.sample_id, f"augment: {reason}"))
        return None

    def _transform(self, image: Image.Image, seed: int) -> _Views:
        if self.cropped:
            assert isinstance(self.transform, ViewTransform)
            crops = self.transform.crops(image, seed)
            return _Views(crops.pixels, crops.draws)
        return _Views(self.transform(image, seed), [])
