"""How good is each representation of a self-supervised image encoder? Q-Score, without labels.

    import qscore_fast as qf

    q = qf.q_score(h)                    # (..., r) -> (...), fused, differentiable
    loss = qf.QScoreLoss(features)(h)    # the regulariser, added to the SSL loss

Every name is imported when it is first used: the kernels need no Arrow, Pillow or torchvision, and
``qscore --help`` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qscore_fast.lazy_imports import lazy_names

if TYPE_CHECKING:
    from qscore_fast.backends import BackendInfo, backend_info, use_backend
    from qscore_fast.encoders import Encoder, load_encoder
    from qscore_fast.errors import QScoreError
    from qscore_fast.features import (
        DiscriminativeFeatures,
        FeatureCensus,
        discriminative_features,
    )
    from qscore_fast.finetuning import finetune
    from qscore_fast.functional import (
        activation_counts,
        highly_active,
        q_score,
        q_score_loss,
        row_stats,
        score_maps,
        score_rows,
        sparse_activations,
    )
    from qscore_fast.images import Preprocess
    from qscore_fast.nn import QScoreLoss
    from qscore_fast.reference import MapScores, RowScores, RowStats, SparseActivations
    from qscore_fast.saliency.heat_maps import HeatMaps
    from qscore_fast.saliency.heatmaps import heatmaps
    from qscore_fast.saliency.overlay import overlay
    from qscore_fast.scoring import ScoreRun, discover, rescore, score

__version__ = "0.1.0"

_NAMES = {
    "backends": ("BackendInfo", "backend_info", "use_backend"),
    "encoders": ("Encoder", "load_encoder"),
    "errors": ("QScoreError",),
    "features": ("DiscriminativeFeatures", "FeatureCensus", "discriminative_features"),
    "finetuning": ("finetune",),
    "functional": (
        "activation_counts",
        "highly_active",
        "q_score",
        "q_score_loss",
        "row_stats",
        "score_maps",
        "score_rows",
        "sparse_activations",
    ),
    "images": ("Preprocess",),
    "nn": ("QScoreLoss",),
    "reference": ("MapScores", "RowScores", "RowStats", "SparseActivations"),
    "saliency": ("HeatMaps", "heatmaps", "overlay"),
    "scoring": ("ScoreRun", "discover", "rescore", "score"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "row_stats",
    "highly_active",
    "sparse_activations",
    "activation_counts",
    "q_score",
    "score_rows",
    "score_maps",
    "q_score_loss",
    "QScoreLoss",
    "RowStats",
    "SparseActivations",
    "RowScores",
    "MapScores",
    "FeatureCensus",
    "DiscriminativeFeatures",
    "discriminative_features",
    "Encoder",
    "load_encoder",
    "Preprocess",
    "score",
    "discover",
    "rescore",
    "ScoreRun",
    "finetune",
    "heatmaps",
    "HeatMaps",
    "overlay",
    "BackendInfo",
    "backend_info",
    "use_backend",
    "QScoreError",
    "__version__",
]


_public_name = lazy_names(__name__, _MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _NAMES or name == "ops":
        return importlib.import_module(f"qscore_fast.{name}")
    return _public_name(name)


def __dir__() -> list[str]:
    return sorted(__all__)
