"""PictureCache: small pictures of a run's images, made when asked for, the latest kept."""

from __future__ import annotations

import threading
from collections import OrderedDict

from qscore_fast.errors import ImageError
from qscore_fast.report.source_images import SourceImages
from qscore_fast.report.thumbnails import SIDE, thumbnail, webp

LARGE = 720
"""Pixels of the long side of an enlarged picture."""
BYTES = 64 * 2**20
AT_ONCE = 4
"""Images that are decoded side by side: each can be large."""


class PictureCache:
    """WebP pictures by row of the scores; safe to use from many threads.

    Args:
        images: where they come from.
        limit: bytes to keep, at most.
    """

    def __init__(self, images: SourceImages, limit: int = BYTES) -> None:
        self._images = images
        self._limit = limit
        self._kept: OrderedDict[tuple[int, bool], bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._decoding = threading.Semaphore(AT_ONCE)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    def picture(self, row: int, sample_id: str, large: bool = False) -> bytes:
        """The picture of the image at this row.

        Raises:
            ImageError: the source no longer holds it, or it cannot be decoded.
        """
        key = row, large
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._decoding:
            ((_, found),) = self._images.read({row: sample_id})
            if isinstance(found, ImageError):
                raise found
            content = webp(thumbnail(found, LARGE if large else SIDE))
        with self._lock:
            if key not in self._kept and len(content) <= self._limit:
                self._kept[key] = content
                self._size += len(content)
            while self._size > self._limit:
                self._size -= len(self._kept.popitem(last=False)[1])
        return content
