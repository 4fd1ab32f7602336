"""Sample ids that occur more than once in a listing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np


class Repeats:
    """Which entries repeat the id of an earlier one, and the number that makes theirs unique.

    Holds 16 bytes for each such entry and nothing for the others; 16 bytes an entry while it is built.

    Args:
        ids: makes the ids, from the first on; called twice, so that they need not be held.
        count: how many there are.
    """

    def __init__(self, ids: Callable[[], Iterable[str]], count: int) -> None:
        hashes = np.fromiter(map(hash, ids()), np.int64, count)
        ordered = np.sort(hashes)
        shared = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        positions: list[int] = []
        numbers: list[int] = []
        if len(shared):
            suspects = np.isin(hashes, shared)
            last: dict[str, int] = {}
            for index, sample_id in enumerate(ids()):
                if not suspects[index]:
                    continue
                if sample_id not in last:
                    last[sample_id] = 1
                    continue
                number = last[sample_id] + 1
                while _holds(ordered, hash(f"{sample_id}#{number}")):
                    number += 1
                last[sample_id] = number
                positions.append(index)
                numbers.append(number)
        self._positions = np.array(positions, np.int64)
        self._numbers = np.array(numbers, np.int64)

    def __len__(self) -> int:
        return len(self._positions)

    def number(self, index: int) -> int | None:
        """2, 3 and so on for an entry whose id occurred before; None for all others."""
        place = int(np.searchsorted(self._positions, index))
        if place < len(self._positions) and self._positions[place] == index:
            return int(self._numbers[place])
        return None


def _holds(ordered: np.ndarray, value: int) -> bool:
    place = np.searchsorted(ordered, value)
    return bool(place < len(ordered) and ordered[place] == value)
