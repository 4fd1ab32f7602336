"""Images decoded ahead of the encoder, in order, by a bounded pool of threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from qscore_fast.errors import ImageError
from qscore_fast.images import FolderSource, Preprocess, decode_image, quiet_pillow


def default_workers() -> int:
    """One decoding thread a core that this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(16, cores or 1)


def decoded_ahead(
    source: FolderSource,
    indices: Iterable[int],
    preprocess: Preprocess,
    *,
    max_pixels: int,
    workers: int,
    ahead: int,
) -> Generator[Tensor | ImageError, None, None]:
    """The pixels, uint8 (C, height, width), or the error of each image, in the order of ``indices``.

    Threads are enough: Pillow releases the interpreter while it decodes and resizes.

    Args:
        ahead: how many images are decoded or waiting at any time; this bounds the memory.
    """

    def load(index: int) -> Tensor | ImageError:
        try:
            return preprocess.pixels(decode_image(source.file(index), preprocess.mode, max_pixels))
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError("not enough memory to resize it")

    waiting: deque[Future[Tensor | ImageError]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="qscore-decode")
    try:
        with quiet_pillow():
            for index in indices:
                waiting.append(pool.submit(load, index))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
