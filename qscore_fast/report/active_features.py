"""Which features of D made an image's score, read from the run's parts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.scoring.part import STATS
from qscore_fast.scoring.store import Store

COLUMNS = ("status", *STATS, "feature", "value")


class PartRowsIndex:
    """Where the rows of a run's scores lie in its parts."""

    def __init__(self, store: Store) -> None:
        """StoreError if a part's notes are missing."""
        self._ends = np.cumsum([0, *(notes["num_scored"] for notes in store.part_notes())])

    def place(self, row: int) -> tuple[int, int]:
        """The unit of a row, and the row's place among the scored images of its part."""
        unit = int(np.searchsorted(self._ends, row, side="right")) - 1
        return unit, row - int(self._ends[unit])

    def by_unit(self, rows: Iterable[int]) -> dict[int, list[int]]:
        """Unit -> the rows that lie in it, ascending."""
        found: dict[int, list[int]] = {}
        for row in sorted(set(rows)):
            found.setdefault(self.place(row)[0], []).append(row)
        return found


def active_features(
    store: Store, index: PartRowsIndex, rows: Iterable[int], features: DiscriminativeFeatures
) -> dict[int, list[tuple[int, float]]]:
    """Row -> its entries of L and D as (feature, (h_j - mu) / ||h||), the largest first.

    Raises:
        StoreError: a part is damaged.
    """
    mask = features.mask.cpu().numpy()
    found: dict[int, list[tuple[int, float]]] = {}
    for unit, wanted in index.by_unit(rows).items():
        part = store.part(unit, COLUMNS)
        ends = np.cumsum(part.lengths)
        chosen = (part.z > features.eps) & mask[part.feature]
        for row in wanted:
            place = index.place(row)[1]
            entries = np.arange(ends[place] - part.lengths[place], ends[place])
            entries = entries[chosen[entries]]
            entries = entries[np.argsort(-part.distance[entries], kind="stable")]
            found[row] = [(int(part.feature[e]), float(part.value[e])) for e in entries]
    return found
