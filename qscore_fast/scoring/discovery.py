"""Discriminative features from a store's parts, at any eps, without touching an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from qscore_fast.features import (
    DiscriminativeFeatures,
    FeatureCensus,
    discriminative_features,
)
from qscore_fast.scoring.part import Part

EMPTY_LIMIT = 0.01
DEFAULT_EPS = 4.0
FEW_SAMPLES = 500


@dataclass(frozen=True)
class Discovery:
    """What a census over parts found.

    Attributes:
        features: D at the eps in use.
        empty: share of the samples without an active feature of D, for each eps that was looked at:
            the one in use and a 0.1 grid from the run's activation_eps to 4.
        suggested_eps: the largest eps of the grid at which at most 1 % of the samples are empty;
            None if there is none.
        auto: whether eps was left to be chosen.
    """

    features: DiscriminativeFeatures
    empty: dict[float, float]
    suggested_eps: float | None
    auto: bool = False

    @property
    def empty_fraction(self) -> float:
        """Share of the samples without an active feature of D, from 0 to 1."""
        return self.empty[self.features.eps]

    def notes(self) -> list[str]:
        """What a user should know about this D, one sentence each."""
        features, notes = self.features, []
        if not features.percent.any():
            return [
                f"no feature is ever active at eps = {features.eps:g}: every score is 0. Either the "
                "encoder's features are all alike (collapsed), or eps is too large"
            ]
        if features.num_samples < FEW_SAMPLES:
            notes.append(
                f"the features were discovered on {features.num_samples} images only; percentiles "
                f"need more ({FEW_SAMPLES} or more), or features from a larger run (--features)"
            )
        if self.auto and self.suggested_eps is not None:
            notes.append(
                f"eps = {features.eps:g} (auto) is the largest up to {DEFAULT_EPS:g} that leaves at "
                "most 1 % of the samples without an active discriminative feature "
                f"({100 * self.empty_fraction:.2f} %)"
            )
        if self.empty_fraction > EMPTY_LIMIT:
            share = f"{100 * self.empty_fraction:.1f} % of the samples have no active "
            share += f"discriminative feature at eps = {features.eps:g}, so their score is 0"
            if self.suggested_eps is not None:
                notes.append(
                    f"{share}; eps = {self.suggested_eps:g} is the largest at which at most 1 % "
                    "have none (--eps auto takes it)"
                )
            else:
                best = min(self.empty, key=lambda eps: (self.empty[eps], -eps))
                notes.append(
                    f"{share}; no eps from {min(self.empty):g} to {DEFAULT_EPS:g} brings that to "
                    f"1 % (best: {100 * self.empty[best]:.1f} % at eps = {best:g})"
                )
        return notes


class ThresholdCensus:
    """Activation counts for many eps at once. ``thresholds`` must ascend."""

    def __init__(self, thresholds: np.ndarray, num_features: int) -> None:
        self.thresholds = thresholds
        self.num_samples = 0
        # Row k: entries with exactly k of the thresholds below their z.
        self._histogram = np.zeros((len(thresholds) + 1, num_features), np.int64)

    def update(self, part: Part) -> None:
        """Count a part's entries."""
        levels = levels_of(part, self.thresholds)
        num_features = self._histogram.shape[1]
        cells = levels.astype(np.int64) * num_features + part.feature
        self._histogram += np.bincount(cells, minlength=self._histogram.size).reshape(
            self._histogram.shape
        )
        self.num_samples += len(part.ok)

    def counts(self) -> np.ndarray:
        """(thresholds, r) int64: how many samples have z > threshold, strictly, in each feature."""
        return self._histogram[::-1].cumsum(axis=0)[-2::-1]


def levels_of(part: Part, thresholds: np.ndarray) -> np.ndarray:
    """(nnz,): how many of the ascending thresholds lie strictly below each entry's z."""
    return np.searchsorted(thresholds, part.z, side="left")


def eps_grid(activation_eps: float) -> list[float]:
    """The multiples of 0.1 from ``activation_eps`` to 4."""
    return [tenths / 10 for tenths in range(math.ceil(round(activation_eps * 10, 6)), 41)]


def discover_in_parts(
    parts: Callable[[], Iterable[Part]],
    num_features: int,
    activation_eps: float,
    *,
    eps: float | None,
    lower: float,
    upper: float,
    fingerprint: str | None,
    two_sided: bool = False,
) -> Discovery:
    """Census, D, and how many samples D leaves empty; two passes over the parts.

    Args:
        parts: gives a fresh iteration over the parts each time.
        eps: at least ``activation_eps``; None takes the suggested one, or where there is none the
            one with the fewest empty samples.
        fingerprint: the encoder's, kept with the features.
        two_sided: whether the parts hold entries below the mean as well, kept with the features.
    """
    grid = eps_grid(activation_eps)
    wanted = [*grid] if eps is None else [*grid, eps]
    thresholds = np.unique(np.array(wanted, dtype=np.float64))
    census = ThresholdCensus(thresholds, num_features)
    for part in parts():
        census.update(part)

    candidates = [
        replace(
            discriminative_features(
                FeatureCensus.from_counts(
                    torch.from_numpy(counts), census.num_samples, threshold, two_sided=two_sided
                ),
                lower,
                upper,
            ),
            fingerprint=fingerprint,
        )
        for threshold, counts in zip(thresholds.tolist(), census.counts().copy(), strict=True)
    ]
    masks = np.stack([candidate.mask.numpy() for candidate in candidates])
    shares = empty_shares(parts(), thresholds, masks).tolist()
    empty = dict(zip(thresholds.tolist(), shares, strict=True))

    good = [value for value in grid if empty[value] <= EMPTY_LIMIT]
    suggested = max(good) if good else None
    auto = eps is None
    if eps is None:
        eps = suggested or min(empty, key=lambda value: (empty[value], -value))
    features = candidates[thresholds.tolist().index(eps)]
    return Discovery(features, empty, suggested, auto)


def empty_shares(parts: Iterable[Part], thresholds: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(thresholds,) float64: share of the samples without an entry of z > threshold in its mask.

    Args:
        masks: (thresholds, r) bool, D at each threshold.
    """
    num_empty = np.zeros(len(thresholds), np.int64)
    num_samples = 0
    for part in parts:
        num_samples += len(part.ok)
        active = masks[:, part.feature]
        active &= levels_of(part, thresholds) > np.arange(len(thresholds))[:, None]
        for index, entries in enumerate(active):
            num_empty[index] += len(part.ok) - len(np.unique(part.row[entries]))
    return num_empty / max(num_samples, 1)
