"""What the representations of a probed encoder are like: Q-Score as a predictor, rank, spread, collapse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

import qscore_fast as qf
from qscore_fast.errors import QScoreError
from qscore_fast.evaluation.failure import auroc
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.measures import RankMe
from qscore_fast.finetuning.comparison.arms import LINEAR
from qscore_fast.finetuning.watching.health import normalised_std
from qscore_fast.scoring.atomic import write_text

NAME = "representation.json"
COLLAPSE_BELOW = 0.1
"""As the loop has it: of the normalised standard deviation of the base."""


def representation(place: Path, eps: float, fingerprint: str) -> dict[str, Any]:
    """Of the runs ``train`` and ``test`` in the folder of a probed encoder; kept there once it is known.

    Args:
        place: as ``compare`` leaves it.
        eps: of D, which is discovered anew on the training images: after a training the features of the
            start may be other ones.
        fingerprint: of the encoder.

    Returns:
        ``auroc``: of Q against the linear probe's being right, None where it is right or wrong throughout;
        ``own_mean_q``, ``empty_fraction``, ``num_discriminative``: under that D; ``rankme``,
        ``normalised_std``: of the test images.
    """
    path, key = place / NAME, {"eps": eps, "fingerprint": fingerprint}
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["of"] == key:
            return dict(known["is"])
    found = _measured(place, eps)
    write_text(path, json.dumps({"of": key, "is": found}) + "\n")
    return found


def has_collapsed(about: dict[str, Any], base: dict[str, Any]) -> bool:
    """Whether the directions of the test images have come together, by the loop's own rule."""
    return bool(about["normalised_std"] < COLLAPSE_BELOW * base["normalised_std"])


def _measured(place: Path, eps: float) -> dict[str, Any]:
    train, test = (FeatureRows.of(place / split) for split in ("train", "test"))
    census = None
    for block in train.blocks(8192):
        rows = torch.from_numpy(block.astype(np.float32))
        census = (census or qf.FeatureCensus(rows.shape[1], eps)).update(rows)
    assert census is not None
    features = qf.discriminative_features(census)
    rank, scores, stds, counts = RankMe(len(features.mask)), [], [], []
    for block in test.blocks(8192):
        rows = torch.from_numpy(block.astype(np.float32))
        scores.append(qf.q_score(rows, features).double().numpy())
        rank.update(rows)
        stds.append(normalised_std(rows))
        counts.append(len(rows))
    q = np.concatenate(scores)
    correct = pq.read_table(place / LINEAR / "probe.parquet", columns=["correct"])["correct"]
    right = correct.to_numpy(zero_copy_only=False)
    if len(right) != len(q):
        raise QScoreError(
            f"{place}: {len(right)} answers of the probe and {len(q)} test images: delete it"
        )
    std = float(np.average(stds, weights=counts))
    value = auroc()(q, right) if 0 < right.sum() < len(right) else float("nan")
    return {
        "auroc": None if np.isnan(value) else float(value),
        "own_mean_q": float(q.mean()),
        "empty_fraction": float((q == 0).mean()),
        "num_discriminative": int(features.mask.sum()),
        "rankme": float(rank.compute()),
        "normalised_std": std,
    }
