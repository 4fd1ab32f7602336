"""How good is each representation of a self-supervised image encoder? Q-Score, without labels.

    import qscore_fast as qf

    q = qf.q_score(h)                    # (..., r) -> (...), fused, differentiable
    loss = qf.QScoreLoss(features)(h)    # the regulariser, added to the SSL loss

The pipeline over images (``load_encoder``, ``score``) is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qscore_fast.backends import BackendInfo, backend_info, use_backend
from qscore_fast.errors import QScoreError
from qscore_fast.features import DiscriminativeFeatures, FeatureCensus, discriminative_features
from qscore_fast.functional import (
    activation_counts,
    highly_active,
    q_score,
    q_score_loss,
    row_stats,
    sparse_activations,
)
from qscore_fast.nn import QScoreLoss
from qscore_fast.reference import RowStats, SparseActivations

if TYPE_CHECKING:
    from qscore_fast.encoders import Encoder, load_encoder
    from qscore_fast.images import Preprocess
    from qscore_fast.scoring import ScoreRun, discover, score

__version__ = "0.1.0"

# The pipeline pulls in Arrow, Pillow and torchvision, which the kernels do not need.
_PIPELINE = {
    "Encoder": "qscore_fast.encoders",
    "load_encoder": "qscore_fast.encoders",
    "Preprocess": "qscore_fast.images",
    "ScoreRun": "qscore_fast.scoring",
    "discover": "qscore_fast.scoring",
    "score": "qscore_fast.scoring",
}

__all__ = [
    "row_stats",
    "highly_active",
    "sparse_activations",
    "activation_counts",
    "q_score",
    "q_score_loss",
    "QScoreLoss",
    "RowStats",
    "SparseActivations",
    "FeatureCensus",
    "DiscriminativeFeatures",
    "discriminative_features",
    "Encoder",
    "load_encoder",
    "Preprocess",
    "score",
    "discover",
    "ScoreRun",
    "BackendInfo",
    "backend_info",
    "use_backend",
    "QScoreError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _PIPELINE:
        return getattr(importlib.import_module(_PIPELINE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
