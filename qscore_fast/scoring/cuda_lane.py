"""A batch's way through a GPU, on three streams."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.errors import ImageError
from qscore_fast.scoring.encoding_lane import (
    Batch,
    EncodedBatch,
    Image,
    WhatToKeep,
    decoded_on_device,
    empty_result,
    fill_result,
    kept_of,
    pixels_on_device,
)


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
        result = empty_result(rows, undecodable)
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
            on_host = [None if t is None else _to_pinned(t) for t in kept_of(h, self._keep)]
            events[5].record()
        events[5].synchronize()
        # Copied, since pinned memory is scarce and the rows of a unit are many.
        fill_result(result, [None if t is None else t.clone() for t in on_host])
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


def _to_pinned(values: Tensor) -> Tensor:
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
