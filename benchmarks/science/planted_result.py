"""What discovery finds of the planted features, and whether the scores rank the planted quality."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import qscore_fast as qf
from qscore_fast.evaluation.failure import auroc

from .planted import planted_population

# The default band keeps 45 % of the features. The others plant other shares than it expects.
CASES: dict[str, dict[str, Any]] = {
    "r = 512, 10 classes, shares as the band expects": {},
    "r = 2,048, 100 classes, shares as the band expects": {
        "num_features": 2048,
        "num_classes": 100,
    },
    "2,000 samples": {"num_samples": 2000},
    "40 % rare, 10 % ubiquitous": {"rare": 0.4, "ubiquitous": 0.1},
    "60 % rare, 5 % ubiquitous": {"rare": 0.6, "ubiquitous": 0.05},
}


def planted_results(seeds: tuple[int, ...] = (0, 1, 2)) -> list[dict[str, Any]]:
    """A row a case: F1 of D against the class-specific features, AUROC of scores against the quality.

    Every figure is a list, one entry a seed.
    """
    rows = []
    for name, settings in CASES.items():
        found: list[dict[str, float]] = [_one(seed, settings) for seed in seeds]
        figures = {key: [one[key] for one in found] for key in found[0]}
        rows.append({"case": name, "settings": settings, "seeds": list(seeds), **figures})
    return rows


def _one(seed: int, settings: dict[str, Any]) -> dict[str, float]:
    population = planted_population(seed=seed, **settings)
    h = torch.from_numpy(population.h)
    features = qf.discriminative_features(qf.FeatureCensus(h.shape[1]).update(h))
    found, wanted = features.mask.numpy(), population.class_specific
    norm = np.linalg.norm(population.h, axis=1)
    q = qf.q_score(h, features).numpy()
    scores = {
        "Q-Score": q,
        "Q-Score, all features": qf.q_score(h).numpy(),
        "max activation / L2": population.h.max(1) / norm,
        "L2 norm": norm,
        "shuffled Q-Score": np.random.default_rng(seed).permutation(q),
    }
    return {
        "f1": 2 * float((found & wanted).sum()) / float(found.sum() + wanted.sum()),
        "num_features_found": int(found.sum()),
        **{
            f"AUROC of {name}": float(auroc()(score.astype(np.float64), population.good))
            for name, score in scores.items()
        },
    }
