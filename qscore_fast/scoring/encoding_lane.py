"""A batch's way through the device: pixels there, the encoder, the kernels, and the results back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.errors import ImageError
from qscore_fast.functional import sparse_activations
from qscore_fast.images.nvjpeg import EncodedJpeg, decode_jpegs

Image = tuple[int, Tensor | EncodedJpeg]
"""An image's row in its unit, and its pixels, uint8 (C, height, width), or its JPEG."""
Batch = Sequence[Image]


@dataclass(frozen=True)
class WhatToKeep:
    """What the rows of a run hold of each representation.

    Attributes:
        activation_eps: entries above mu + activation_eps * sigma.
        two_sided: those below mu - activation_eps * sigma as well.
        embeddings: the representation itself, float16.
    """

    activation_eps: float
    two_sided: bool
    embeddings: bool


@dataclass
class EncodedBatch:
    """The results of a batch of B images, on the CPU.

    Attributes:
        rows: of the B images, without those that could not be decoded.
        undecodable: rows whose JPEG the GPU could not decode, and why.
        stats: (B, 4) float32: mean, std, l1, l2. lengths: (B,) int64, active entries of each image.
        feature: (nnz,) int32. value: (nnz,) float32.
        embeddings: (B, r) float16, or None.
        seconds: by stage: transfer, encode, activations; on CUDA also pin, in a thread of its own.
    """

    rows: list[int]
    undecodable: list[tuple[int, ImageError]]
    stats: np.ndarray
    lengths: np.ndarray
    feature: np.ndarray
    value: np.ndarray
    embeddings: np.ndarray | None
    seconds: dict[str, float] = field(default_factory=dict)


class Lane(Protocol):
    """The three steps of a batch, and how many batches may lie between them.

    Attributes:
        staged: batches that wait to be launched while others are. launched: batches whose results wait to be
            collected while others run.
    """

    staged: int
    launched: int

    def decode(self, batch: Batch) -> tuple[list[Image], list[tuple[int, ImageError]]]:
        """The batch with its JPEGs decoded, and those that turn out damaged."""
        ...

    def stage(self, batch: Batch) -> Any: ...
    def launch(self, staged: Any) -> Any: ...
    def collect(self, launched: Any) -> EncodedBatch: ...


class InOrder:
    """Sends batches down a lane, each step as late as the lane allows and in the order of the batches."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._staged: deque[Any] = deque()
        self._launched: deque[Any] = deque()

    def push(self, batch: Batch) -> Iterator[EncodedBatch]:
        """Take one more batch; give back the results that are due."""
        self._staged.append(self._lane.stage(batch))
        yield from self._move(self._lane.staged, self._lane.launched)

    def finish(self) -> Iterator[EncodedBatch]:
        """The results of all batches that are on their way."""
        yield from self._move(0, 0)

    def _move(self, staged: int, launched: int) -> Iterator[EncodedBatch]:
        while len(self._staged) > staged:
            self._launched.append(self._lane.launch(self._staged.popleft()))
            yield from self._collected(max(launched, 1))
        yield from self._collected(launched)

    def _collected(self, left: int) -> Iterator[EncodedBatch]:
        while len(self._launched) > left:
            yield self._lane.collect(self._launched.popleft())


class PlainLane:
    """One step after the other, on the CPU and wherever there are no streams: nothing waits."""

    staged = launched = 0

    def __init__(self, encoder: Encoder, keep: WhatToKeep) -> None:
        self._encoder = encoder
        self._keep = keep

    def decode(self, batch: Batch) -> tuple[list[Image], list[tuple[int, ImageError]]]:
        """See ``Lane``."""
        return decoded_on_device(batch, self._encoder)

    def stage(self, batch: Batch) -> Batch:
        """Nothing: a copy that waits would only cost memory."""
        return batch

    def launch(self, staged: Batch) -> tuple[Tensor | None, EncodedBatch]:
        """The representations, and what is known of their rows."""
        start = time.perf_counter()
        rows, pixels, undecodable = pixels_on_device(staged, self._encoder)
        transferred = time.perf_counter()
        result = _empty(rows, undecodable)
        if pixels is None:
            return None, result
        h = self._encoder(self._encoder.preprocess.normalise(pixels))
        result.seconds = {
            "transfer": transferred - start,
            "encode": time.perf_counter() - transferred,
        }
        return h, result

    def collect(self, launched: tuple[Tensor | None, EncodedBatch]) -> EncodedBatch:
        """Kernels, and their results."""
        h, result = launched
        if h is not None:
            start = time.perf_counter()
            _fill(result, [None if t is None else t.cpu() for t in _kept(h, self._keep)])
            result.seconds["activations"] = time.perf_counter() - start
        return result


@dataclass
class _OnItsWay:
    """A batch on a GPU."""

    h: Tensor | None
    result: EncodedBatch
    events: list[torch.cuda.Event]


class CudaLane:
    """Three streams: while the encoder works on a batch, the next one is copied, the one after it is stacked
    into pinned memory by a thread, and the kernels and results of the one before are done.

    What is made on one stream and used on another is recorded there, so that its memory is not given to
    others too early. The encoder runs on the stream that is current when the lane is made.
    """

    staged = launched = 1

    def __init__(self, encoder: Encoder, keep: WhatToKeep, stack: ExitStack) -> None:
        self._encoder = encoder
        self._keep = keep
        self._device = encoder.device
        self._encoding = torch.cuda.current_stream(self._device)
        self._copying = torch.cuda.Stream(self._device)
        self._finishing = torch.cuda.Stream(self._device)
        self._thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="qscore-pin"))

    def decode(self, batch: Batch) -> tuple[list[Image], list[tuple[int, ImageError]]]:
        """See ``Lane``; on the stream on which the rest of the batch will be copied."""
        with torch.cuda.stream(self._copying):
            return decoded_on_device(batch, self._encoder)

    def stage(self, batch: Batch) -> tuple[Batch, Future[tuple[Batch | Tensor, float]]]:
        """Stacking, begun."""
        return batch, self._thread.submit(self._pinned, batch)

    def launch(self, staged: tuple[Batch, Future[tuple[Batch | Tensor, float]]]) -> _OnItsWay:
        """The copy and the encoder, queued; decoding on the GPU is waited for."""
        batch, future = staged
        pinned, seconds = future.result()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(6)]
        with torch.cuda.stream(self._copying):
            events[0].record()
            if isinstance(pinned, Tensor):
                rows = [row for row, _ in batch]
                undecodable: list[tuple[int, ImageError]] = []
                pixels: Tensor | None = pinned.to(self._device, non_blocking=True)
            else:
                rows, pixels, undecodable = pixels_on_device(pinned, self._encoder)
            events[1].record()
        result = _empty(rows, undecodable)
        result.seconds["pin"] = seconds
        if pixels is None:
            return _OnItsWay(None, result, events)
        with torch.cuda.stream(self._encoding):
            self._encoding.wait_event(events[1])
            pixels.record_stream(self._encoding)
            events[2].record()
            h = self._encoder(self._encoder.preprocess.normalise(pixels))
            events[3].record()
        return _OnItsWay(h, result, events)

    def collect(self, launched: _OnItsWay) -> EncodedBatch:
        """Kernels and results, on a stream beside the encoder's."""
        h, result, events = launched.h, launched.result, launched.events
        if h is None:
            return result
        with torch.cuda.stream(self._finishing):
            self._finishing.wait_event(events[3])
            with torch.inference_mode():  # in which it was made
                h.record_stream(self._finishing)
            events[4].record()
            on_host = [None if t is None else _to_pinned(t) for t in _kept(h, self._keep)]
            events[5].record()
        events[5].synchronize()
        # Copied, since pinned memory is scarce and the rows of a unit are many.
        _fill(result, [None if t is None else t.clone() for t in on_host])
        for place, stage in enumerate(("transfer", "encode", "activations")):
            took = events[2 * place].elapsed_time(events[2 * place + 1])
            result.seconds[stage] = took / 1000
        return result

    def _pinned(self, batch: Batch) -> tuple[Batch | Tensor, float]:
        """The batch in one pinned tensor, unless some of it is still encoded or on the GPU already."""
        start = time.perf_counter()
        images = [i for _, i in batch if isinstance(i, Tensor) and i.device.type == "cpu"]
        if len(images) < len(batch):
            return batch, 0.0
        with torch.cuda.device(self._device):
            pinned = torch.empty(
                (len(images), *images[0].shape), dtype=images[0].dtype, pin_memory=True
            )
            torch.stack(images, out=pinned)
        return pinned, time.perf_counter() - start


def lane_of(encoder: Encoder, keep: WhatToKeep, stack: ExitStack) -> Lane:
    """The lane of the encoder's device; what it has to let go goes on the stack."""
    if encoder.device.type == "cuda":
        return CudaLane(encoder, keep, stack)
    return PlainLane(encoder, keep)


def decoded_on_device(
    batch: Batch, encoder: Encoder
) -> tuple[list[Image], list[tuple[int, ImageError]]]:
    """The batch with its JPEGs decoded on the encoder's device, and those that turn out damaged."""
    jpegs = [(row, image) for row, image in batch if isinstance(image, EncodedJpeg)]
    decoded = decode_jpegs([jpeg for _, jpeg in jpegs], encoder.preprocess, encoder.device)
    results = dict(zip((row for row, _ in jpegs), decoded, strict=True))
    good: list[Image] = []
    undecodable = []
    for row, image in batch:
        found = results.get(row, image)
        if isinstance(found, ImageError):
            undecodable.append((row, found))
        else:
            good.append((row, found))
    return good, undecodable


def pixels_on_device(
    batch: Batch, encoder: Encoder
) -> tuple[list[int], Tensor | None, list[tuple[int, ImageError]]]:
    """Rows and uint8 (B, C, height, width) on the encoder's device, without the JPEGs that are damaged."""
    undecodable: list[tuple[int, ImageError]] = []
    on_device = False
    if any(isinstance(image, EncodedJpeg) for _, image in batch):
        batch, undecodable = decoded_on_device(batch, encoder)
        on_device = True
    images = [image for _, image in batch if isinstance(image, Tensor)]
    if not images:
        return [], None, undecodable
    if on_device or any(image.device != images[0].device for image in images):
        images = [image.to(encoder.device, non_blocking=True) for image in images]
    pixels = torch.stack(images).to(encoder.device, non_blocking=True)
    return [row for row, _ in batch], pixels, undecodable


def _kept(h: Tensor, keep: WhatToKeep) -> list[Tensor | None]:
    """Offsets, feature, value, mean, std, l1, l2, and the embeddings or None."""
    sparse = sparse_activations(h, keep.activation_eps, two_sided=keep.two_sided)
    return [*sparse, h.to(torch.float16) if keep.embeddings else None]


def _to_pinned(values: Tensor) -> Tensor:
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


def _empty(rows: list[int], undecodable: list[tuple[int, ImageError]]) -> EncodedBatch:
    return EncodedBatch(
        rows,
        undecodable,
        np.empty((0, 4), np.float32),
        np.empty(0, np.int64),
        np.empty(0, np.int32),
        np.empty(0, np.float32),
        None,
    )


def _fill(result: EncodedBatch, on_host: list[Tensor | None]) -> None:
    offsets, feature, value, *stats, embeddings = on_host
    assert offsets is not None and feature is not None and value is not None
    result.stats = torch.stack([s for s in stats if s is not None], dim=1).float().numpy()
    result.lengths = offsets.diff().numpy()
    result.feature = feature.numpy()
    result.value = value.float().numpy()
    result.embeddings = None if embeddings is None else embeddings.numpy()
