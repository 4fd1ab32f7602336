"""Which units are this process's to do, while other processes work on the same run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from qscore_fast.scoring.store import Store

POLL_SECONDS = 0.2


class Claims:
    """Gives out the missing units one by one, each claimed against the other processes.

    Args:
        store: opened for writing.
        units: the units that this process may do, ascending.

    Attributes:
        found: how many were there from the start.
        claimed: the units that this process took.
    """

    def __init__(self, store: Store, units: Sequence[int]) -> None:
        self._store = store
        self._open = [index for index in units if not store.is_whole(index)]
        self.found = len(units) - len(self._open)
        self.claimed: set[int] = set()

    @property
    def missing(self) -> list[int]:
        """The units that are not known to be there."""
        return list(self._open)

    def sweep(self) -> Iterator[int]:
        """Claim what can be had, unit by unit, in order; what others hold is passed over.

        It never waits: whoever asks for the next unit may hold units that somebody else waits for.
        """
        for index in list(self._open):
            if self._store.claim(index):
                self.claimed.add(index)
                yield index
            elif self._store.is_whole(index):
                self._open.remove(index)

    def wait(self) -> None:
        """Give the other processes a moment."""
        time.sleep(POLL_SECONDS)

    def done(self, index: int) -> None:
        """The unit's part is written."""
        self._open.remove(index)
        self._store.release(index)
