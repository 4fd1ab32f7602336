"""``in_order``: many short questions to a disk or a store, some at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from qscore_fast.images.daemon_pool import DaemonPool

T = TypeVar("T")

AT_ONCE = 16
_PATIENCE = 1.0  # seconds for questions whose answers nobody waits for any more


def in_order(calls: Iterable[Callable[[], T]], at_once: int = AT_ONCE) -> Iterator[T]:
    """The results of calls, in their order; raises what one of them raised.

    Whoever stops in the middle, as a signal does, is not held by a store that hangs.
    """
    waiting: deque[Future[T]] = deque()
    pool = DaemonPool(at_once, "qscore-list")
    try:
        for call in calls:
            # More than are asked at a time, so that a slow one does not hold up those behind it.
            if len(waiting) >= 4 * at_once:
                yield waiting.popleft().result()
            waiting.append(pool.submit(call))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.close(_PATIENCE)
