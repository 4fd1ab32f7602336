"""ViewLoader: batches of views for one process, made ahead by worker processes, continued exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from qscore_fast.errors import SettingsError, SourceError
from qscore_fast.finetuning.data.dataset import ViewDataset, Views
from qscore_fast.finetuning.data.order import ShuffledImages
from qscore_fast.finetuning.data.read_ahead import read_ahead
from qscore_fast.finetuning.data.requests import BatchRequest, Position
from qscore_fast.finetuning.data.shards import ShuffledShards
from qscore_fast.finetuning.data.single_images import SingleImages
from qscore_fast.finetuning.view_batch import photometric_batch
from qscore_fast.finetuning.view_draws import ViewDraw
from qscore_fast.finetuning.views import ViewTransform
from qscore_fast.images import Source, choose_decoder
from qscore_fast.images.sources.source import is_url
from qscore_fast.scoring.prefetch import default_workers

AHEAD = 2


@dataclass
class ViewBatch:
    """A batch of one process.

    Attributes:
        views: (N, C, height, width) each, of the same N images in the same order; float32, normalised, or
            uint8 crops where ``draws`` says what is still to be done.
        draws: by view and image; None where nothing is.
        position: where the batch after it begins; give it to :meth:`ViewLoader.after`.
        bad: sample ids and reasons of the images that others took the place of.
        seconds: that its worker took.
    """

    views: list[Tensor]
    position: Position
    bad: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    draws: list[list[ViewDraw]] | None = None

    def to(self, device: torch.device) -> ViewBatch:
        """The same with its views on a device; from pinned memory without waiting."""
        return replace(self, views=[view.to(device, non_blocking=True) for view in self.views])

    def finished(self, transform: ViewTransform) -> ViewBatch:
        """The same with what was still to be done with the views, on their device."""
        if self.draws is None:
            return self
        views = [
            transform.normalise(photometric_batch(pixels, view, draws))
            for pixels, view, draws in zip(self.views, transform.recipe, self.draws, strict=True)
        ]
        return replace(self, views=views, draws=None)


class ViewLoader:
    """Endless batches of augmented views of a source, shuffled anew every epoch.

    What a batch holds depends on the settings and its number alone: not on the number of workers, nor on
    whether it is reached in one go. The memory does not grow with the source beyond its listing.

    Args:
        source: any source. Folders, lists and remote folders are shuffled throughout; shards and tables are
            read in order, many at once, and shuffled in blocks (``ShuffledShards``).
        transform: an image and a seed to its views. mode: the images' colour mode, "RGB" or "L".
        batch_size: images a step, over all processes and parts. parts: batches a step and process.
        seed: of order and augmentation. rank, world: of this process.
        workers: decoding processes; 0 decodes in this one; None: one a core, at most 16.
        shuffle_images: the size of those blocks.
        cropped: leave all but the cropping to :meth:`ViewBatch.finished`; needs a ``ViewTransform``.

    Raises:
        SettingsError: a batch size that the processes and parts do not divide, or with one image each.
        SourceError: no image, or too few for one batch.
    """

    def __init__(
        self,
        source: Source,
        transform: Views,
        mode: str,
        batch_size: int,
        *,
        parts: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int | None = None,
        shuffle_images: int = 2048,
        cropped: bool = False,
    ) -> None:
        if batch_size % (parts * world):
            raise SettingsError(
                f"batch_size is {batch_size}, which {world} processes and {parts} batches a step do not "
                "divide: take a multiple of both (--batch-size)"
            )
        own = batch_size // (parts * world)
        if own < 2:
            raise SettingsError(
                f"batch_size is {batch_size} over {world} processes and {parts} batches a step: each needs "
                "2 images or more (--batch-size)"
            )
        images = SingleImages.of(source)
        count = source.num_samples
        if count is not None and count < batch_size:
            raise SourceError(
                f"{source.location} holds {count} images, too few for one batch of {batch_size}: give more "
                "images, or a smaller batch (--batch-size)"
            )
        self.order: ShuffledImages | ShuffledShards
        if images is not None:
            self.order = ShuffledImages(len(images), own, parts, seed, rank, world)
        else:
            self.order = ShuffledShards(source, own, shuffle_images, seed, rank, world)
        self._dataset = ViewDataset(
            images,
            transform,
            "L" if mode == "L" else "RGB",
            choose_decoder(),
            seed,
            cropped,
        )
        self._workers = default_workers() if workers is None else workers
        self._remote = is_url(source.location)
        self._position: Position | None = None
        self._count: int | None = None

    def after(self, position: Position | None, count: int | None = None) -> ViewLoader:
        """Set where the next iteration begins, and after how many batches it ends (None: never)."""
        self._position, self._count = position, count
        return self

    def __iter__(self) -> Iterator[ViewBatch]:
        """The batches.

        Raises:
            SourceError: so many images are bad that nothing can take their place.
        """
        if self._count == 0:
            return
        # DataLoader draws a seed for its workers, which must not come out of the training's generator.
        loader: DataLoader[dict[str, Any]] = DataLoader(
            self._dataset,
            batch_size=None,
            sampler=_Requests(self.order, self._position, self._count),
            num_workers=self._workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=AHEAD if self._workers else None,
            worker_init_fn=_one_thread,
            generator=torch.Generator(),
            # Drivers of remote stores have threads, which a fork would leave behind.
            multiprocessing_context="spawn" if self._workers and self._remote else None,
        )
        for found in loader:
            if found["error"]:
                raise SourceError(f"the images cannot be used: {found['error']}")
            names = ("views", "position", "bad", "seconds", "draws")
            yield ViewBatch(**{name: found[name] for name in names})


class _Requests(Sampler[BatchRequest]):
    """What the workers are asked for, in order."""

    def __init__(
        self,
        order: ShuffledImages | ShuffledShards,
        position: Position | None,
        count: int | None,
    ) -> None:
        self._order, self._position, self._count = order, position, count

    def __iter__(self) -> Iterator[BatchRequest]:
        batches = self._order.batches(self._position)
        if isinstance(self._order, ShuffledShards):
            batches = read_ahead(batches, AHEAD)
        if self._count is None:
            yield from batches
            return
        for _ in range(self._count):
            yield next(batches)


def _as_it_is(found: Any) -> Any:
    return found


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
