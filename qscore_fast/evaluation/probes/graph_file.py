"""save_graph: a run's neighbour graph as a file."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.knn import neighbour_graph
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.atomic import replacing


def save_graph(
    run: str | os.PathLike[str] | ScoreRun,
    k: int,
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
) -> Path:
    """Write a run's :func:`neighbour_graph` as ``scipy.sparse.load_npz`` reads it, rows as in its scores.

    Raises:
        SettingsError: k is out of range, NaN or Inf in the rows, or a name that does not end in .npz.
        StoreError: no complete run, no embeddings, or a file that cannot be written.
        MissingExtraError: SciPy is not installed.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise SettingsError(f"{path} does not end in .npz, the format that the graph is written in")
    graph = neighbour_graph(FeatureRows.of(run), k, device)
    from scipy.sparse import save_npz

    with replacing(path) as temporary, temporary.open("wb") as file:
        save_npz(file, graph)
    return path
