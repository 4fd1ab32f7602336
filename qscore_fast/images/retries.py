"""How long a disk or a store that fails is waited for: one policy for all that is read."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from qscore_fast.images.daemon_pool import pause

T = TypeVar("T")

WAITS = (0.2, 0.6, 1.8, 5.4)
"""Seconds before each further attempt, give or take three tenths."""

_WAITED_OUT = "waited_out"


def tried_again(call: Callable[[], T], may_pass: Callable[[Exception], bool]) -> T:
    """The result of ``call``, tried again after each of ``WAITS`` while it raises what ``may_pass``.

    The last attempt's error comes out as it is. Where calls stand within calls, the innermost waits: what
    has been waited out once is not waited for again.
    """
    for seconds in WAITS:
        try:
            return call()
        except Exception as error:
            if was_waited_out(error) or not may_pass(error):
                raise
        # Spread out, so that workers that were throttled together do not come back together.
        pause(seconds * random.uniform(0.7, 1.3))
    try:
        return call()
    except Exception as error:
        setattr(error, _WAITED_OUT, True)
        raise


def was_waited_out(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, is the last one of ``tried_again``."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if getattr(cause, _WAITED_OUT, False):
            return True
        seen.append(cause)
        cause = cause.__cause__
    return False
