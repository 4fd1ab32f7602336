"""Samples decoded ahead of the encoder, in order, by a bounded pool of threads."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from qscore_fast.errors import ImageError
from qscore_fast.images import (
    Decoder,
    NvJpegDecoder,
    Preprocess,
    Sample,
    Source,
    Unit,
    quiet_pillow,
)
from qscore_fast.images.nvjpeg import EncodedJpeg

MOST_WORKERS = 16
"""Decoding threads that are taken where nobody says how many; one a core, up to this."""


@dataclass(frozen=True)
class Decoded:
    """A sample's name, and its pixels, uint8 (C, height, width), a JPEG that the GPU decodes, or why there
    is neither; and how long that took.
    """

    sample_id: str
    label: str | None
    image: Tensor | EncodedJpeg | ImageError
    seconds: float


def default_workers() -> int:
    """One decoding thread a core that this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(MOST_WORKERS, cores or 1)


def decoded_ahead(
    source: Source,
    units: Iterable[Unit],
    preprocess: Preprocess,
    *,
    decoder: Decoder,
    workers: int,
    ahead: int,
) -> Generator[Decoded | None, None, None]:
    """The samples of the units, in order, and None after the last one of each unit.

    Threads are enough: Pillow releases the interpreter while it decodes and resizes.

    Args:
        ahead: how many images are decoded or waiting at any time; this bounds the memory.
    """

    def load(sample: Sample) -> Decoded:
        start = time.perf_counter()
        image = _pixels(sample, preprocess, decoder)
        return Decoded(sample.sample_id, sample.label, image, time.perf_counter() - start)

    waiting: deque[Future[Decoded] | None] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="qscore-decode")

    def next_one() -> Decoded | None:
        future = waiting.popleft()
        return None if future is None else future.result()

    try:
        with quiet_pillow():
            for unit in units:
                for sample in source.read(unit):
                    waiting.append(pool.submit(load, sample))
                    if len(waiting) >= ahead:
                        yield next_one()
                waiting.append(None)
            while waiting:
                yield next_one()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pixels(
    sample: Sample, preprocess: Preprocess, decoder: Decoder
) -> Tensor | EncodedJpeg | ImageError:
    try:
        if isinstance(decoder, NvJpegDecoder):
            image = decoder.decode_or_postpone(sample, preprocess.mode)
            return image if isinstance(image, EncodedJpeg) else preprocess.pixels(image)
        return preprocess.pixels(decoder.decode(sample, preprocess.mode))
    except ImageError as error:
        return error
    except MemoryError:
        return ImageError("not enough memory to resize it")
