"""A batch's way through the device: pixels there, the encoder, the kernels, and the results back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
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
        freed_last: tensors on the CPU that have to live until the results are kept. In the place of a large
            one that was freed first, malloc would put what stays, and the next batch would not fit there.
    """

    rows: list[int]
    undecodable: list[tuple[int, ImageError]]
    stats: np.ndarray
    lengths: np.ndarray
    feature: np.ndarray
    value: np.ndarray
    embeddings: np.ndarray | None
    seconds: dict[str, float] = field(default_factory=dict)
    freed_last: list[Tensor] = field(default_factory=list)


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
        result = empty_result(rows, undecodable)
        if pixels is None:
            return None, result
        h = self._encoder(self._encoder.preprocess.normalise(pixels))
        result.freed_last = [pixels, h]
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
            fill_result(result, [None if t is None else t.cpu() for t in kept_of(h, self._keep)])
            result.seconds["activations"] = time.perf_counter() - start
        return result


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


def kept_of(h: Tensor, keep: WhatToKeep) -> list[Tensor | None]:
    """Offsets, feature, value, mean, std, l1, l2, and the embeddings or None."""
    sparse = sparse_activations(h, keep.activation_eps, two_sided=keep.two_sided)
    return [*sparse, h.to(torch.float16) if keep.embeddings else None]


def empty_result(rows: list[int], undecodable: list[tuple[int, ImageError]]) -> EncodedBatch:
    """Results that are not there yet."""
    return EncodedBatch(
        rows,
        undecodable,
        np.empty((0, 4), np.float32),
        np.empty(0, np.int64),
        np.empty(0, np.int32),
        np.empty(0, np.float32),
        None,
    )


def fill_result(result: EncodedBatch, on_host: list[Tensor | None]) -> None:
    """Put what ``kept_of`` gave, brought to the CPU, into the results."""
    offsets, feature, value, *stats, embeddings = on_host
    assert offsets is not None and feature is not None and value is not None
    result.stats = torch.stack([s for s in stats if s is not None], dim=1).float().numpy()
    result.lengths = offsets.diff().numpy()
    result.feature = feature.numpy()
    result.value = value.float().numpy()
    result.embeddings = None if embeddings is None else embeddings.numpy()
