"""Threads that never hold the process: what hangs in a read is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Abandoned(BaseException):
    """The pool of this thread was closed: nobody waits for its result any more."""


class DaemonPool:
    """Calls in a bounded number of threads, as a ``ThreadPoolExecutor`` does them.

    An executor's threads are waited for when it is shut down, and again when the interpreter ends, however
    long a read of theirs hangs. These are told to stop, and left behind if they do not.

    Args:
        threads: how many at most.
        name: of the threads, for people.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._most = threads
        self._name = name
        self._threads: list[_Worker] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._stopping = threading.Event()

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """The future result of ``call(*arguments)``; begun in the order of the calls."""
        future: Future[T] = Future()
        self._jobs.put((future, call, arguments))
        if len(self._threads) < self._most:
            self._threads.append(_Worker(self._jobs, self._stopping, self._name))
            self._threads[-1].start()
        return future

    def close(self, patience: float) -> None:
        """Cancel what has not begun, and wait ``patience`` seconds at most for what has."""
        self._stopping.set()
        try:
            while (job := self._jobs.get_nowait()) is not None:
                job[0].cancel()
        except Empty:
            pass
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + patience
        for thread in self._threads:
            if thread.is_alive():  # else it ended, or a signal came before it was started
                thread.join(max(0.0, deadline - time.monotonic()))


class _Worker(threading.Thread):
    def __init__(self, jobs: SimpleQueue[_Job | None], stopping: threading.Event, name: str):
        super().__init__(name=name, daemon=True)
        self._jobs = jobs
        self.stopping = stopping

    def run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call, arguments = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call(*arguments))
                except BaseException as error:
                    future.set_exception(error)
            # An idle thread would keep an image alive.
            del job, future, call, arguments


def pause(seconds: float) -> None:
    """Sleep; in a thread of a pool that is closed meanwhile, Abandoned at once."""
    thread = threading.current_thread()
    if not isinstance(thread, _Worker):
        time.sleep(seconds)
    elif thread.stopping.wait(seconds):
        raise Abandoned
