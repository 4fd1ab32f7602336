"""Which scored images have features that float16 embeddings cannot hold."""

from __future__ import annotations

import numpy as np

from qscore_fast.scoring.part import Part
from qscore_fast.scoring.store import Store

LARGEST = 65504.0  # of float16
NAMED = 3


def overflow_notes(store: Store) -> list[str]:
    """What a user should know whose embeddings hold Inf beside finite scores, one sentence.

    The scores come from the features as the encoder gives them and lose nothing. Embeddings are read only
    where the norm of a row, which no entry exceeds, leaves room for such an entry.
    """
    if store.record.asked["embeddings"] == "none":
        return []
    ids: list[str] = []
    for index, (rows, names) in enumerate(store.map_parts(_large, ("sample_id", "l2", "status"))):
        if len(rows):
            whole = np.isfinite(store.embeddings_of(index)[rows]).all(1)
            ids += [name for name, fits in zip(names, whole, strict=True) if not fits]
    if not ids:
        return []
    first = ", ".join(map(repr, ids[:NAMED])) + (", ..." if len(ids) > NAMED else "")
    return [
        f"{len(ids):,} images have features beyond {LARGEST:,.0f}, the largest float16: their scores are "
        f"right, but Inf stands in their embeddings ({first}); what reads embeddings refuses the run, or "
        "leaves them out (--finite-only)"
    ]


def _large(part: Part) -> tuple[np.ndarray, list[str]]:
    rows = np.flatnonzero(part.stat("l2") >= LARGEST)
    return rows, part.column("sample_id").take(rows).to_pylist() if len(rows) else []
