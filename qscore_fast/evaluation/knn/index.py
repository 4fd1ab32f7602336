"""searched: exact search, or an index of FAISS with the recall that it reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from qscore_fast.errors import MissingExtraError, SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.knn.search import Neighbours, check_k, nearest, unit_blocks

IndexName = Literal["exact", "faiss-flat", "faiss-ivf", "faiss-hnsw"]
INDEXES: tuple[IndexName, ...] = get_args(IndexName)

BLOCK = 8192
LINKS, CONSTRUCTION = 32, 200  # of HNSW, as its authors and FAISS use them for high recall
ROWS_PER_LIST = 39  # FAISS asks for as many to train a list
SAMPLE = 500


@dataclass(frozen=True, eq=False)
class Search:
    """What an index found.

    Attributes:
        neighbours: of every query.
        recall: share of the true k neighbours that were found, on a seeded sample of at most 500 queries; 1
            for an exact index, by definition.
        settings: of the index, in plain values.
    """

    neighbours: Neighbours
    recall: float
    settings: dict[str, Any]


def searched(
    queries: FeatureRows,
    references: FeatureRows,
    k: int,
    index: IndexName = "exact",
    *,
    probes: int | None = None,
    breadth: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Search:
    """The k nearest references by cosine.

    Args:
        index: ``exact``, blocked products in PyTorch (CPU or GPU); ``faiss-flat``, the same in FAISS;
            ``faiss-ivf``, lists around sqrt(N) centres (fewer where rows are few) of which ``probes`` are
            searched (a tenth of them by default); ``faiss-hnsw``, a graph with 32 links, searched with
            ``breadth`` candidates (at least 128 and 2 k by default).
        seed: of the sample on which recall is measured.

    Raises:
        SettingsError: an unknown index, k out of range, NaN or Inf in the rows.
        MissingExtraError: FAISS is not installed.
    """
    if index not in INDEXES:
        raise SettingsError(f"index is {index!r}: give one of {', '.join(INDEXES)}")
    if index == "exact":
        return Search(nearest(queries, references, k, device=device), 1.0, {"index": index})
    check_k(k, len(references))
    faiss = _faiss()
    made, settings = _built(faiss, index, references, k, probes, breadth)
    parts = [made.search(block, k) for block in unit_blocks(queries, BLOCK)]
    found = Neighbours(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    recall = 1.0
    if index != "faiss-flat":
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(len(queries))[:SAMPLE])
        truth = nearest(FeatureRows((queries.gather(chosen),)), references, k, device=device)
        hits = [
            np.isin(own, true).sum()
            for own, true in zip(found.index[chosen], truth.index, strict=True)
        ]
        recall = float(np.sum(hits)) / truth.index.size
    return Search(found, recall, {"index": index, **settings})


def _built(
    faiss: Any,
    index: IndexName,
    references: FeatureRows,
    k: int,
    probes: int | None,
    breadth: int | None,
) -> tuple[Any, dict[str, int]]:
    r, n = references.num_features, len(references)
    settings: dict[str, int] = {}
    if index == "faiss-flat":
        made = faiss.IndexFlatIP(r)
    elif index == "faiss-hnsw":
        made = faiss.IndexHNSWFlat(r, LINKS, faiss.METRIC_INNER_PRODUCT)
        made.hnsw.efConstruction = CONSTRUCTION
        made.hnsw.efSearch = breadth or max(128, 2 * k)
        settings = {"links": LINKS, "breadth": made.hnsw.efSearch}
    else:
        lists = max(1, min(round(n**0.5), n // ROWS_PER_LIST))
        made = faiss.IndexIVFFlat(faiss.IndexFlatIP(r), r, lists, faiss.METRIC_INNER_PRODUCT)
        made.nprobe = min(lists, probes or max(1, round(lists / 10)))
        settings = {"lists": lists, "probes": made.nprobe}
        every = max(1, n // (256 * lists))
        sample = FeatureRows((references.gather(np.arange(0, n, every)),))
        made.train(np.concatenate(list(unit_blocks(sample, BLOCK))))
    for block in unit_blocks(references, BLOCK):
        made.add(block)
    return made, settings


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingExtraError("faiss", "knn") from None
    return faiss
