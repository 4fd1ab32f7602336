"""Throughput of the exact search for neighbours, ours and FAISS's."""

from __future__ import annotations

from typing import Any

import numpy as np

from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.knn import nearest, searched

from .features import many_rows
from .turns import in_turns

K = 200
CHECKED = 300_000  # references of a search that is compared with float64


def measure(
    references: int, queries: int, features: int, device: str, rounds: int, with_faiss: bool
) -> dict[str, Any]:
    """The 200 nearest of each query: seconds, queries a second, multiply-adds a second."""
    rows = FeatureRows(many_rows(references, features))
    asked = FeatureRows(many_rows(queries, features, seed=1))
    calls = {"ours": lambda: nearest(asked, rows, K, device=device)}
    if with_faiss:
        calls["faiss-flat"] = lambda: (
            searched(asked, rows, K, "faiss-flat", device=device).neighbours
        )
    nearest(FeatureRows((asked.parts[0][:256],)), FeatureRows(rows.parts[:8]), K, device=device)
    times = in_turns(calls, device, rounds)
    found: dict[str, Any] = {
        "references": references,
        "queries": queries,
        "features": features,
        "k": K,
        "dtype": rows.dtype.name,
        "contenders": {
            name: {
                "seconds": timed.to_json(),
                "queries_per_second": queries / timed.median,
                "gflops": 2 * references * queries * features / timed.median / 1e9,
            }
            for name, timed in times.items()
        },
    }
    if with_faiss:
        ours, theirs = (times[name].result.index for name in ("ours", "faiss-flat"))
        found["same_neighbours"] = float((ours == theirs).mean())
        found["times_faster"] = times["faiss-flat"].median / times["ours"].median
    elif references <= CHECKED:
        # A few of the queries against all references in float64.
        found["largest_difference_of_cosine"] = _check(rows, asked, times["ours"].result.similarity)
    return found


def _check(rows: FeatureRows, asked: FeatureRows, similarity: np.ndarray, few: int = 4) -> float:
    """The largest difference of a cosine from float64's, over the first queries and 200 neighbours."""
    query = _unit(asked.parts[0][:few])
    cosines = [query @ _unit(block).T for block in rows.blocks(65_536)]
    best = -np.sort(-np.concatenate(cosines, 1), axis=1)[:, :K]
    return float(np.abs(best - similarity[:few]).max())


def _unit(block: np.ndarray) -> np.ndarray:
    wide = block.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)
