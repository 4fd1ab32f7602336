"""Tests that coverage does not watch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def coverage_paused() -> Iterator[None]:
    """For what runs on Triton's interpreter: tracing doubles its time, and the lines of the package that it
    passes are those that the other backends pass.
    """
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
