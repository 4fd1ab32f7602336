"""Objects that are fetched some at a time, and had in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import NamedTuple

from qscore_fast.images.daemon_pool import DaemonPool
from qscore_fast.images.sources.source import MAX_IMAGE_BYTES

_READ_AHEAD = 16
_READ_AHEAD_BYTES = 64 * 2**20
_PATIENCE = 1.0  # seconds for reads that nobody waits for any more


class Fetch(NamedTuple):
    """One object to be fetched.

    Attributes:
        place: for the caller.
        call: fetches it; None where there is nothing to fetch.
        size: bytes that it is expected to have; -1 where unknown.
    """

    place: int
    call: Callable[[], bytes] | None
    size: int = -1

    @property
    def cost(self) -> int:
        if self.call is None:
            return 0
        return self.size if 0 <= self.size <= MAX_IMAGE_BYTES else _READ_AHEAD_BYTES // 4


def read_ahead(fetches: Iterable[Fetch]) -> Iterator[tuple[int, Future[bytes] | None]]:
    """The places and, as futures, the contents of objects, in order.

    Up to 16 objects (64 MiB, or one) are fetched at the same time.
    """
    waiting: deque[tuple[Fetch, Future[bytes] | None]] = deque()
    ahead = 0
    pool = DaemonPool(_READ_AHEAD, "qscore-fetch")
    try:
        for fetch in fetches:
            while waiting and (
                len(waiting) >= _READ_AHEAD or ahead + fetch.cost > _READ_AHEAD_BYTES
            ):
                done, future = waiting.popleft()
                yield done.place, future
                ahead -= done.cost
                # Otherwise this loop holds an image until the next one is wanted.
                del future
            waiting.append((fetch, None if fetch.call is None else pool.submit(fetch.call)))
            ahead += fetch.cost
        while waiting:
            done, future = waiting.popleft()
            yield done.place, future
    finally:
        # A reader may stop in the middle, and the store may hang.
        pool.close(_PATIENCE)
