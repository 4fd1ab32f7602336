"""Purity beyond chance: how far the classes of a feature's images are from those of as many random ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from qscore_fast.evaluation.discovery.report import BANDS, DiscoveryReport

DRAWS = 200
RESAMPLES = 10_000


def chance_purity(
    counts: np.ndarray, class_sizes: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """(r,): the largest class's share of ``counts[j]`` images, expected where labels are permuted.

    It is large for few images: of one image, 1. Simulated, ``draws`` times a feature; NaN where it has none.

    Args:
        counts: (r,) int64 images of each feature. class_sizes: (C,) int64 images of each class.
    """
    rng = np.random.default_rng(seed)
    found = np.full(len(counts), np.nan)
    for j in np.flatnonzero(counts > 0):
        drawn = rng.multivariate_hypergeometric(
            class_sizes, int(counts[j]), size=draws, method="marginals"
        )
        found[j] = drawn.max(1).mean() / counts[j]
    return found


def purity_beyond_chance(
    report: DiscoveryReport, num_resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Mean purity by band, what chance gives features that fire as often, and the difference of the bands.

    Args:
        report: with labels.
        num_resamples: of the bootstrap over the features of each band.

    Returns:
        ``chance`` and ``excess`` (purity less chance) by band, None for an empty one; ``difference``: the
        excess in D less that above the band, and its 95 % percentile interval: [difference, low, high]; None
        where one of them is empty.
    """
    assert report.labels is not None and report.purity is not None
    sizes = np.bincount(report.labels.targets, minlength=report.labels.num_classes)
    chance = chance_purity(report.activity.counts, sizes, seed=seed)
    excess = report.purity - chance
    bands = report.bands

    def mean(values: np.ndarray, band: str) -> float | None:
        return float(values[bands[band]].mean()) if bands[band].any() else None

    return {
        "chance": {band: mean(chance, band) for band in BANDS},
        "excess": {band: mean(excess, band) for band in BANDS},
        "difference": difference_of_means(
            excess[bands["in_d"]], excess[bands["above"]], num_resamples, seed
        ),
        "num_resamples": num_resamples,
    }


def difference_of_means(
    a: np.ndarray, b: np.ndarray, num_resamples: int = RESAMPLES, seed: int = 0
) -> list[float] | None:
    """mean(a) - mean(b) and its 95 % bootstrap interval, both sides resampled; None without one of them."""
    if not len(a) or not len(b):
        return None
    rng = np.random.default_rng(seed)
    means = [
        values[rng.integers(len(values), size=(num_resamples, len(values)))].mean(1)
        for values in (a, b)
    ]
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return [float(a.mean() - b.mean()), float(low), float(high)]
