"""A call in a process of its own: its result, its seconds, and the memory that the process took at most."""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def measured(
    function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """``result``, ``seconds`` of the call, and ``peak_bytes`` resident in its new process (None where the
    system does not tell).

    Args:
        environment: variables that the process has beside those of this one.

    Raises:
        RuntimeError: the call failed; its traceback went to standard error.
    """
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_measure, args=(sender, function, arguments)
    )
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"{function.__name__} ended without a result") from None
    finally:
        process.join()


def _measure(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    start = time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status")
    match = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.M) if status.exists() else None
    peak = int(match[1]) * 1024 if match else None
    sender.send({"result": result, "seconds": seconds, "peak_bytes": peak})
