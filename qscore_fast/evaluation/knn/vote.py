"""votes: the classes of the neighbours, weighted."""

from __future__ import annotations

from typing import Literal

import numpy as np

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.knn.search import Neighbours

Weighting = Literal["softmax", "uniform"]


def votes(
    neighbours: Neighbours,
    targets: np.ndarray,
    num_classes: int,
    k: int,
    *,
    temperature: float = 0.07,
    weighting: Weighting = "softmax",
) -> np.ndarray:
    """(q, C) float64, rows sum to 1: how the k nearest vote.

    ``softmax``: a neighbour at cosine s weighs exp(s / T), as in InstDisc (T = 0.1, k = 200) and DINO
    (T = 0.07, k = 20). ``uniform``: every neighbour weighs the same. Where an index found fewer than k, those
    vote. Equal classes rank by their number.

    Args:
        targets: (N,) int64 of the references.
        k: at most the neighbours that were searched for.

    Raises:
        SettingsError: k or the temperature is out of range.
    """
    if not 1 <= k <= neighbours.index.shape[1]:
        raise SettingsError(
            f"k = {k}: search found {neighbours.index.shape[1]} neighbours; give k from 1 to that"
        )
    if not (temperature > 0 and np.isfinite(temperature)):
        raise SettingsError(f"temperature is {temperature:g}: give a number above 0")
    index, similarity = neighbours.index[:, :k], neighbours.similarity[:, :k].astype(np.float64)
    there = index >= 0
    if weighting == "softmax":
        # The nearest weighs 1: no overflow, and the same ranking.
        weight = np.exp((similarity - similarity[:, :1]) / temperature) * there
    else:
        weight = there.astype(np.float64)
    rows = np.repeat(np.arange(len(index)), k)
    cells = rows * num_classes + targets[index.reshape(-1)]
    size = len(index) * num_classes
    found = np.bincount(cells, weight.reshape(-1), size).reshape(len(index), num_classes)
    return found / found.sum(1, keepdims=True)
