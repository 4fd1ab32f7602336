"""save_graph: a run's neighbour graph as a file."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import torch

from qscore_fast.errors import MissingExtraError, SettingsError, StoreError
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.finite_rows import finite_mask, non_finite
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
    path = check_graph(run, k, path)
    graph = neighbour_graph(FeatureRows.of(run), k, device)
    from scipy.sparse import save_npz

    with replacing(path) as temporary, temporary.open("wb") as file:
        save_npz(file, graph)
    return path


def check_graph(
    run: str | os.PathLike[str] | ScoreRun, k: int, path: str | os.PathLike[str]
) -> Path:
    """Whether :func:`save_graph` will have what it needs, so that work before it is not lost.

    Raises:
        SettingsError, StoreError, MissingExtraError: as in :func:`save_graph`.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise SettingsError(f"{path} does not end in .npz, the format that the graph is written in")
    if not path.parent.is_dir():
        raise StoreError(f"{path.parent}, where the graph is to go, is no folder: make it first")
    run = run if isinstance(run, ScoreRun) else ScoreRun(run)
    most = len(run.scores()) - 1
    if not 1 <= k <= most:
        raise SettingsError(
            f"a graph with {k} neighbours an image takes more images than the {most + 1:,} of {run.path}: "
            f"give k up to {most:,} (--k), or no graph"
        )
    if find_spec("scipy") is None:
        raise MissingExtraError("scipy", "evaluation")
    finite = finite_mask(FeatureRows.of(run))
    if not finite.all():
        remedy = "ask for no graph (--graph), which has a row for every image"
        raise non_finite(run, finite, remedy)
    return path
