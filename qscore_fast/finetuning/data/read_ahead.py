"""read_ahead: an iterator that a thread keeps ahead of whoever takes from it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterator[Item], count: int) -> Generator[Item, None, None]:
    """The same items; up to ``count`` of them wait in memory. What the iterator raises is raised here."""
    waiting: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(count)
    stop = threading.Event()

    def put(item: Any, error: BaseException | None = None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                waiting.put((item, error), timeout=0.1)
                return

    def read() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=read, name="qscore-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stop.set()
        thread.join()
