"""Samples decoded ahead of the encoder, in order, by a bounded pool of threads."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from torch import Tensor

from qscore_fast.errors import ImageError
from qscore_fast.images import Decoder, Preprocess, Sample, Source, Unit, quiet_pillow
from qscore_fast.images.daemon_pool import DaemonPool
from qscore_fast.images.nvjpeg import EncodedJpeg
from qscore_fast.scoring.image_loader import ImageLoader

MOST_WORKERS = 16
"""Decoding threads that are taken where nobody says how many; one a core, up to this."""
AHEAD_BYTES = 256 * 2**20
"""Of images that wait, encoded or decoded; one of any size may always wait."""
PATIENCE = 3.0
"""Seconds for images that are being decoded when nobody waits for them any more."""


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
        ahead: how many images are decoded or waiting at any time; this and ``AHEAD_BYTES`` bound the
            memory.

    Raises:
        UnavailableError: the images cannot be read for now.
    """
    loader = ImageLoader(source, preprocess, decoder)
    held = _Bytes()

    def load(sample: Sample) -> Decoded:
        start = time.perf_counter()
        image = loader.load(sample)
        held.add(_bytes_of(image) - len(sample.content or b""))
        return Decoded(sample.sample_id, sample.label, image, time.perf_counter() - start)

    waiting: deque[Future[Decoded] | None] = deque()
    pool = DaemonPool(workers, "qscore-decode")

    def next_one() -> Decoded | None:
        future = waiting.popleft()
        if future is None:
            return None
        decoded = future.result()
        held.add(-_bytes_of(decoded.image))
        return decoded

    try:
        with quiet_pillow():
            for unit in units:
                for sample in source.read(unit):
                    held.add(len(sample.content or b""))
                    waiting.append(pool.submit(load, sample))
                    del sample  # its content is the pool's to let go
                    while len(waiting) >= ahead or (waiting and held.total > AHEAD_BYTES):
                        yield next_one()
                waiting.append(None)
            while waiting:
                yield next_one()
    finally:
        pool.close(PATIENCE)


class _Bytes:
    """A sum that several threads add to."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        with self._lock:
            self.total += number


def _bytes_of(image: Tensor | EncodedJpeg | ImageError) -> int:
    if isinstance(image, Tensor):
        return image.nbytes
    return len(image.content) if isinstance(image, EncodedJpeg) else 0
