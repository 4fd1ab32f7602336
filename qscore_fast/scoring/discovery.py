"""Discriminative features from a store's parts, at any eps, without touching an image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from qscore_fast.features import (
    DiscriminativeFeatures,
    FeatureCensus,
    discriminative_features,
)
from qscore_fast.scoring.part import Part
from qscore_fast.scoring.store import Store
from qscore_fast.scoring.stored_entries import counts_above, filled_levels, mask_words

EMPTY_LIMIT = 0.01
DEFAULT_EPS = 4.0
FEW_SAMPLES = 500


@dataclass(frozen=True)
class Discovery:
    """What a census over parts found.

    Attributes:
        features: D at the eps in use.
        empty: share of the samples without an active feature of D, for each eps that was looked at:
            the one in use and a 0.1 grid from the run's activation_eps to 4; the grid is left out where
            nobody asked for it and the one in use leaves few empty.
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
        features, notes = self.features, empty_notes(self.features)
        if not features.percent.any():
            return notes
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


def empty_notes(features: DiscriminativeFeatures) -> list[str]:
    """What a user should know whose D is empty, one sentence; nothing where it is not."""
    if len(features):
        return []
    if features.percent.any():
        return [
            f"no feature is between the percentiles {features.lower:g} and {features.upper:g} of A: every "
            "score is 0; take them further apart"
        ]
    return [
        f"no feature is ever active at eps = {features.eps:g}: every score is 0. Either the "
        "encoder's features are all alike (collapsed), or eps is too large"
    ]


ENTRIES = ("status", "std", "l2", "feature", "value")


def activation_counts(
    store: Store, thresholds: np.ndarray, num_features: int
) -> tuple[np.ndarray, int]:
    """(thresholds, r) int64: how many samples have z > threshold, strictly, in each feature; and the
    number of samples.
    """
    counts = np.zeros((len(thresholds), num_features), np.int64)
    num_samples = 0

    def count(part: Part) -> tuple[np.ndarray, int]:
        return counts_above(part, thresholds, num_features), part.num_ok

    for found, rows in store.map_parts(count, ENTRIES):
        counts += found
        num_samples += rows
    return counts, num_samples


def eps_grid(activation_eps: float) -> list[float]:
    """The multiples of 0.1 from ``activation_eps`` to 4."""
    return [tenths / 10 for tenths in range(math.ceil(round(activation_eps * 10, 6)), 41)]


def features_at(
    store: Store, thresholds: np.ndarray, lower: float, upper: float
) -> list[DiscriminativeFeatures]:
    """D at each of the ascending eps ``thresholds``, at least the run's activation_eps; one pass over the
    parts.
    """
    encoder, two_sided = store.record.asked["encoder"], store.record.asked["two_sided"]
    counts, num_samples = activation_counts(store, thresholds, encoder["num_features"])
    return [
        replace(
            discriminative_features(
                FeatureCensus.from_counts(
                    torch.from_numpy(row), num_samples, threshold, two_sided=two_sided
                ),
                lower,
                upper,
            ),
            fingerprint=encoder["fingerprint"],
        )
        for threshold, row in zip(thresholds.tolist(), counts, strict=True)
    ]


def discover_on_grid(store: Store, *, eps: float | None, lower: float, upper: float) -> Discovery:
    """D, and how many samples it would leave empty at every eps of the grid; two passes over the parts.

    Args:
        eps: at least the run's activation_eps; None takes the suggested one, or where there is none the
            one with the fewest empty samples.
    """
    grid = eps_grid(store.record.asked["activation_eps"])
    wanted = [*grid] if eps is None else [*grid, eps]
    thresholds = np.unique(np.array(wanted, dtype=np.float64))
    candidates = features_at(store, thresholds, lower, upper)
    masks = np.stack([candidate.mask.numpy() for candidate in candidates])
    shares = empty_shares(store, thresholds, masks).tolist()
    empty = dict(zip(thresholds.tolist(), shares, strict=True))

    good = [value for value in grid if empty[value] <= EMPTY_LIMIT]
    suggested = max(good) if good else None
    auto = eps is None
    if eps is None:
        eps = suggested or min(empty, key=lambda value: (empty[value], -value))
    features = candidates[thresholds.tolist().index(eps)]
    return Discovery(features, empty, suggested, auto)


def empty_shares(store: Store, thresholds: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(thresholds,) float64: share of the samples without an entry of z > threshold in its mask.

    Args:
        masks: (thresholds, r) bool, D at each threshold; at most 64 of them.
    """
    in_masks = mask_words(masks)

    def count(part: Part) -> tuple[np.ndarray, int]:
        return filled_levels(part, thresholds, in_masks), part.num_ok

    num_filled = np.zeros(len(thresholds), np.int64)
    num_samples = 0
    for filled, rows in store.map_parts(count, ENTRIES):
        num_filled += filled
        num_samples += rows
    return (num_samples - num_filled) / max(num_samples, 1)
