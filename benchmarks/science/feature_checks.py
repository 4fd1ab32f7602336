"""What the labels and half-splits say about D: purity by band, and how stable D is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import qscore_fast as qf
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.features import DiscriminativeFeatures, FeatureCensus, discriminative_features

NUM_SPLITS = 10


def feature_checks(
    rows: FeatureRows, labels: ClassLabels, features: DiscriminativeFeatures
) -> dict[str, Any]:
    """Purity, the largest class's share of a feature's activations, by band; Jaccard of D under half-splits.

    Returns:
        ``purity`` (mean over the live features below, in and above D), ``num_features`` of these,
        ``num_dead``; ``jaccard`` (one a split), ``jaccard_by_chance`` of random sets as large.
    """
    counts = np.zeros((rows.num_features, labels.num_classes), np.int64)
    halves = np.random.default_rng(0).random((NUM_SPLITS, len(rows))) < 0.5
    of_half = np.zeros((NUM_SPLITS, rows.num_features), np.int64)
    start = 0
    for block in rows.blocks(8192):
        h = torch.from_numpy(np.array(block, np.float32))
        active = qf.highly_active(h, features.eps).numpy()
        own = labels.targets[start : start + len(block)]
        row, feature = active.nonzero()
        np.add.at(counts, (feature, own[row]), 1)
        of_half += halves[:, start : start + len(block)].astype(np.int64) @ active
        start += len(block)
    total = counts.sum(1)
    live, in_d = total > 0, features.mask.numpy()
    purity = counts.max(1) / np.maximum(total, 1)
    top = features.counts.numpy()[in_d].max() if in_d.any() else np.inf
    above = live & ~in_d & (features.counts.numpy() > top)
    bands = {"below": live & ~in_d & ~above, "in_d": in_d & live, "above": above}
    jaccard, chance = [], []
    for split in range(NUM_SPLITS):
        first, second = (
            discriminative_features(
                FeatureCensus.from_counts(torch.from_numpy(part), int(size), features.eps),
                features.lower,
                features.upper,
            ).mask.numpy()
            for part, size in (
                (of_half[split], halves[split].sum()),
                (total - of_half[split], (~halves[split]).sum()),
            )
        )
        jaccard.append(float((first & second).sum() / max((first | second).sum(), 1)))
        expected = first.sum() * second.sum() / len(first)
        chance.append(float(expected / (first.sum() + second.sum() - expected)))
    return {
        "purity": {
            name: float(purity[band].mean()) if band.any() else None for name, band in bands.items()
        },
        "num_features": {name: int(band.sum()) for name, band in bands.items()},
        "num_dead": int((~live).sum()),
        "jaccard": jaccard,
        "jaccard_by_chance": chance,
        "percent": features.percent.tolist(),
        "in_d": in_d.tolist(),
        "lower": features.lower,
        "upper": features.upper,
    }
