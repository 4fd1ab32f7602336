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
GPU_NEIGHBOURS = 2048  # that FAISS finds on a GPU, at most


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
            ``breadth`` candidates (at least 128 and 2 k by default). A query for which one of these finds
            nothing is answered exactly.
        seed: of the sample on which recall is measured.
        device: of the search. On a GPU ``faiss-flat`` and ``faiss-ivf`` take FAISS's GPU build; ``exact``
            takes PyTorch alone.

    Raises:
        SettingsError: an unknown index, k out of range, NaN or Inf in the rows, or a device on which this
            index cannot be.
        MissingExtraError: FAISS, or its GPU build for a GPU, is not installed.
    """
    if index not in INDEXES:
        raise SettingsError(f"index is {index!r}: give one of {', '.join(INDEXES)}")
    if index == "exact":
        device = usable_device(device)
        return Search(nearest(queries, references, k, device=device), 1.0, {"index": index})
    check_k(k, len(references))
    faiss = faiss_module()
    gpu = _gpu(faiss, index, k, str(device))
    device = usable_device(device)
    made, settings = _built(faiss, index, references, k, probes, breadth, gpu)
    parts = [made.search(block, k) for block in unit_blocks(queries, BLOCK)]
    found = Neighbours(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    unanswered = np.flatnonzero(found.index[:, 0] < 0)
    if len(unanswered):  # whose lists are empty, as most are where all references are alike
        exact = nearest(FeatureRows((queries.gather(unanswered),)), references, k, device=device)
        found.similarity[unanswered], found.index[unanswered] = exact.similarity, exact.index
        settings["answered_exactly"] = len(unanswered)
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
    gpu: int | None,
) -> tuple[Any, dict[str, Any]]:
    """The filled index, and its settings; on a GPU its rows never lie in the CPU's memory as well."""
    r, n = references.num_features, len(references)
    settings: dict[str, Any] = {} if gpu is None else {"gpu": gpu}
    if index == "faiss-flat":
        made = _placed(faiss, faiss.IndexFlatIP(r), gpu)
    elif index == "faiss-hnsw":
        made = faiss.IndexHNSWFlat(r, LINKS, faiss.METRIC_INNER_PRODUCT)
        made.hnsw.efConstruction = CONSTRUCTION
        made.hnsw.efSearch = breadth or max(128, 2 * k)
        settings |= {"links": LINKS, "breadth": made.hnsw.efSearch}
    else:
        lists = max(1, min(round(n**0.5), n // ROWS_PER_LIST))
        centres = faiss.IndexFlatIP(r)
        whole = faiss.IndexIVFFlat(centres, r, lists, faiss.METRIC_INNER_PRODUCT)
        made = _placed(faiss, whole, gpu)
        made.nprobe = min(lists, probes or max(1, round(lists / 10)))
        settings |= {"lists": lists, "probes": made.nprobe}
        every = max(1, n // (256 * lists))
        sample = FeatureRows((references.gather(np.arange(0, n, every)),))
        made.train(np.concatenate(list(unit_blocks(sample, BLOCK))))
    for block in unit_blocks(references, BLOCK):
        made.add(block)
    return made, settings


def usable_device(device: str | torch.device) -> torch.device:
    """SettingsError for a device that PyTorch cannot use here."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise SettingsError(
            f"device = {device} cannot be used ({reason}): give cpu, cuda or cuda:1"
        ) from error


def _gpu(faiss: Any, index: IndexName, k: int, device: str) -> int | None:
    """The number of the GPU to search on; None on the CPU. Never another device than was asked for."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return None
    elsewhere = "give device cpu (--device cpu), or index exact, which needs PyTorch alone"
    if kind != "cuda":
        raise SettingsError(f"{index} cannot be on device {device}: {elsewhere}")
    if index == "faiss-hnsw":
        raise SettingsError(
            f"FAISS has no HNSW on a GPU, and device is {device}: {elsewhere}; or faiss-ivf"
        )
    if not hasattr(faiss, "StandardGpuResources"):
        raise MissingExtraError(
            f"FAISS's GPU build (in place of faiss-cpu, for {index} on {device})", "faiss-gpu"
        )
    chosen, there = int(number or 0), faiss.get_num_gpus()
    if chosen >= there:
        raise SettingsError(f"FAISS sees {there} GPUs, and device is {device}: {elsewhere}")
    if k > GPU_NEIGHBOURS:
        raise SettingsError(
            f"k = {k}, and FAISS finds {GPU_NEIGHBOURS:,} neighbours on a GPU at most: {elsewhere}"
        )
    return chosen


def _placed(faiss: Any, index: Any, gpu: int | None) -> Any:
    """An empty index on its device, which it keeps a share of the resources of."""
    if gpu is None:
        return index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), gpu, index)


def faiss_module() -> Any:
    """FAISS; MissingExtraError without it."""
    try:
        import faiss
    except ImportError:
        raise MissingExtraError("faiss", "knn") from None
    return faiss
