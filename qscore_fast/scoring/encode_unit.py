"""Work units through the encoder and the kernels: images in, rows of parts out."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.errors import EncoderError, ImageError, SettingsError
from qscore_fast.images import Decoder, NvJpegDecoder, Source
from qscore_fast.images.nvjpeg import INTERPOLATIONS, EncodedJpeg
from qscore_fast.scoring.cuda_lane import CudaLane
from qscore_fast.scoring.encoding_lane import EncodedBatch, InOrder, Lane, PlainLane, WhatToKeep
from qscore_fast.scoring.made_with import made_with
from qscore_fast.scoring.part import UNDECODABLE, PartRows
from qscore_fast.scoring.prefetch import Decoded
from qscore_fast.scoring.unit_rows import Failure, UnitRows

OnImages = Callable[[int, list[Failure]], None]
"""Hears of progress: how many images more are done, and which of those have failed."""
OnUnitImages = Callable[[int, int, list[Failure]], None]
"""The same of the images of one unit; first comes which one, counted from 0."""

JPEG_BYTES = 2**28
"""Of the JPEGs that wait for their batch to be full; more are decoded before it is."""


def check_decoder(
    decoder: Decoder, encoder: Encoder, device: torch.device | str | None = None
) -> None:
    """See that a decoder of the GPU has one, and does what the encoder's images need.

    Args:
        device: where the encoder will be; by default where it is.

    Raises:
        SettingsError: it does not.
    """
    if not isinstance(decoder, NvJpegDecoder):
        return
    kind = torch.device(device or encoder.device).type
    if kind != "cuda":
        raise SettingsError(
            f"decoder nvjpeg decodes on the encoder's GPU, and {encoder.name} is on {kind}: take a CUDA "
            "device, or decoder pillow"
        )
    if encoder.preprocess.interpolation not in INTERPOLATIONS:
        raise SettingsError(
            f"decoder nvjpeg resizes {' or '.join(INTERPOLATIONS)}, and {encoder.name} takes "
            f"{encoder.preprocess.interpolation}: take decoder pillow"
        )


def lane_of(encoder: Encoder, keep: WhatToKeep, stack: ExitStack) -> Lane:
    """The lane of the encoder's device; what it has to let go goes on the stack."""
    if encoder.device.type == "cuda":
        return CudaLane(encoder, keep, stack)
    return PlainLane(encoder, keep)


class UnitEncoder:
    """Turns units into rows, batch by batch. No batch crosses a unit, so that what a part holds does
    not depend on which other parts were there already.

    Args:
        source: where the images are listed.
        encoder: on the device to use.
        batch_size: images a call of the encoder.
        activation_eps: entries above mu + activation_eps * sigma are kept.
        two_sided: whether those below mu - activation_eps * sigma are kept as well.
        keep_embeddings: whether the rows carry the float16 representations.
    """

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        batch_size: int,
        activation_eps: float,
        two_sided: bool,
        keep_embeddings: bool,
    ) -> None:
        self.source = source
        self.encoder = encoder
        self.batch_size = batch_size
        self.activation_eps = activation_eps
        self.two_sided = two_sided
        self.keep_embeddings = keep_embeddings

    def encode(
        self, images: Iterator[Decoded | None], on_images: OnUnitImages
    ) -> Iterator[tuple[PartRows, dict[str, float]]]:
        """The rows of each unit and its seconds by stage, in order; a unit's images end with None.

        On a GPU a unit may be given back when the first batches of the next are on their way.

        Raises:
            EncoderError: a batch does not fit into memory.
        """
        keep = WhatToKeep(self.activation_eps, self.two_sided, self.keep_embeddings)
        with ExitStack() as stack:
            yield from _Encoding(self, lane_of(self.encoder, keep, stack), on_images).units(images)


@dataclass
class _Unit:
    """A unit on its way, with the batch that is being filled.

    Attributes:
        encoding: batches whose results are not there yet.
        ended: whether all of its images have come.
        done: images that are not reported yet; ``failures`` are of those.
    """

    number: int
    rows: UnitRows
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    batch: list[tuple[int, Tensor | EncodedJpeg]] = field(default_factory=list)
    jpeg_bytes: int = 0
    encoding: int = 0
    ended: bool = False
    done: int = 0
    failures: list[Failure] = field(default_factory=list)


class _Encoding:
    """One call of ``UnitEncoder.encode``."""

    def __init__(self, unit_encoder: UnitEncoder, lane: Lane, on_images: OnUnitImages) -> None:
        self._of = unit_encoder
        self._lane = lane
        self._in_order = InOrder(lane)
        self._on_images = on_images
        self._units: deque[_Unit] = deque()
        self._owners: deque[_Unit] = deque()
        self._numbers = count()

    def units(
        self, images: Iterator[Decoded | None]
    ) -> Iterator[tuple[PartRows, dict[str, float]]]:
        """See ``UnitEncoder.encode``."""
        while True:
            start = time.perf_counter()
            decoded = next(images, _END)
            waited = time.perf_counter() - start
            if decoded is _END:
                break
            if not self._units or self._units[-1].ended:
                rows = UnitRows(self._of.encoder.num_features, self._of.keep_embeddings)
                self._units.append(_Unit(next(self._numbers), rows))
            unit = self._units[-1]
            unit.seconds["wait_for_decoding"] += waited
            if decoded is None:
                unit.ended = True
            else:
                self._take(unit, decoded)
            if len(unit.batch) == self._of.batch_size or (unit.ended and unit.batch):
                self._encode(unit)
            elif unit.done >= self._of.batch_size:
                self._report(unit)
            yield from self._finished()
        self._add_results(self._in_order.finish())
        yield from self._finished()

    def _take(self, unit: _Unit, decoded: Decoded) -> None:
        unit.seconds["decode"] += decoded.seconds
        row = unit.rows.start(decoded.sample_id, decoded.label)
        if isinstance(decoded.image, ImageError):
            self._fail(unit, row, decoded.image)
            return
        unit.batch.append((row, decoded.image))
        if isinstance(decoded.image, EncodedJpeg):
            unit.jpeg_bytes += len(decoded.image.content)
            if unit.jpeg_bytes > JPEG_BYTES:
                self._decode_early(unit)

    def _decode_early(self, unit: _Unit) -> None:
        unit.batch, undecodable = self._lane.decode(unit.batch)
        unit.jpeg_bytes = 0
        for row, error in undecodable:
            self._fail(unit, row, error)

    def _fail(self, unit: _Unit, row: int, error: ImageError) -> None:
        unit.done += 1
        unit.failures.append(unit.rows.fail(row, UNDECODABLE, error.stage, str(error)))

    def _encode(self, unit: _Unit) -> None:
        batch, unit.batch, unit.jpeg_bytes = unit.batch, [], 0
        unit.encoding += 1
        self._owners.append(unit)
        self._add_results(self._in_order.push(batch))

    def _add_results(self, results: Iterator[EncodedBatch]) -> None:
        while (result := self._next(results)) is not None:
            unit = self._owners.popleft()
            start = time.perf_counter()
            unit.failures += unit.rows.add(result)
            unit.encoding -= 1
            for stage, taken in result.seconds.items():
                unit.seconds[stage] += taken
            unit.seconds["activations"] += time.perf_counter() - start
            unit.done += len(result.rows) + len(result.undecodable)
            self._report(unit)

    def _next(self, results: Iterator[EncodedBatch]) -> EncodedBatch | None:
        try:
            return next(results, None)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise EncoderError(
                f"out of memory with {self._of.batch_size} images a batch on {self._of.encoder.device}: "
                "take a smaller batch_size (--batch-size); the finished parts stay"
            ) from error

    def _report(self, unit: _Unit) -> None:
        done, unit.done = unit.done, 0
        failures, unit.failures = unit.failures, []
        self._on_images(unit.number, done, failures)

    def _finished(self) -> Iterator[tuple[PartRows, dict[str, float]]]:
        """The units that are complete, as far as all those before are."""
        while self._units and self._units[0].ended and not self._units[0].encoding:
            unit = self._units.popleft()
            if unit.done:
                self._report(unit)
            made = made_with(self._of.encoder, self._of.batch_size)
            yield replace(unit.rows.finish(), made_with=made), dict(unit.seconds)


_END: Any = object()
