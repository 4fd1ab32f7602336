"""A planted population: which features are discriminative and which samples are good is known.

Every feature has one of three kinds. A *rare* one fires for a few samples of any class, an *ubiquitous* one
for a large part of all samples, a *class-specific* one for samples of its class. A good sample fires its
class's features strongly above a quiet background; a poor one fires them weakly above a loud one, half of
them those of another class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RARE, CLASS_SPECIFIC, UBIQUITOUS = 0, 1, 2
# A poor sample's class-specific features fire at this part of a good one's strength, above this much more
# background.
POOR_STRENGTH, POOR_BACKGROUND = 0.6, 1.8


@dataclass(frozen=True)
class Population:
    """A planted population.

    Attributes:
        h: (n, r) float32, 0 or above.
        labels: (n,) int64 class.
        good: (n,) bool: the planted quality.
        kinds: (r,) int64: RARE, CLASS_SPECIFIC or UBIQUITOUS.
        owner: (r,) int64: the class of a class-specific feature, -1 for others.
    """

    h: np.ndarray
    labels: np.ndarray
    good: np.ndarray
    kinds: np.ndarray
    owner: np.ndarray

    @property
    def class_specific(self) -> np.ndarray:
        """(r,) bool: what discovery should find."""
        return self.kinds == CLASS_SPECIFIC


def planted_population(
    num_samples: int = 20_000,
    num_features: int = 512,
    num_classes: int = 10,
    *,
    rare: float = 0.50,
    ubiquitous: float = 0.05,
    good: float = 0.7,
    seed: int = 0,
) -> Population:
    """Draw a population.

    Args:
        rare, ubiquitous: shares of the features of these kinds; the rest is class-specific.
        good: share of the samples of good quality.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    n, r = num_samples, num_features
    kinds = np.full(r, CLASS_SPECIFIC)
    kinds[: round(rare * r)] = RARE
    kinds[r - round(ubiquitous * r) :] = UBIQUITOUS
    kinds = rng.permutation(kinds)
    owner = np.full(r, -1)
    specific = np.flatnonzero(kinds == CLASS_SPECIFIC)
    owner[specific] = np.arange(len(specific)) % num_classes

    labels = rng.integers(num_classes, size=n)
    is_good = rng.random(n) < good
    # How often each kind fires, by feature. Class-specific ones fire for 20 to 55 % of their class.
    chance = np.empty(r)
    chance[specific] = _log_uniform(rng, 0.2, 0.55, len(specific))
    is_rare, common = kinds == RARE, kinds == UBIQUITOUS
    chance[is_rare] = _log_uniform(rng, 1e-3 / num_classes, 0.06 / num_classes, is_rare.sum())
    # About three of them in a sample, however many there are.
    chance[common] = np.minimum(_log_uniform(rng, 2.0, 4.5, common.sum()) / common.sum(), 0.6)

    # Some of what a poor sample fires belongs to another class: these are the ones that a probe gets wrong.
    other = (labels + rng.integers(1, num_classes, size=n)) % num_classes
    confused = ~is_good[:, None] & (rng.random((n, r)) < 0.5)
    seen = np.where(confused, other[:, None], labels[:, None])
    fires = rng.random((n, r)) < chance
    fires &= (seen == owner[None, :]) | (kinds != CLASS_SPECIFIC)

    strength = rng.lognormal(np.log(4.0), 0.25, (n, r)).astype(np.float32)
    poor = ~is_good[:, None]
    strength = np.where(poor & (kinds == CLASS_SPECIFIC), POOR_STRENGTH * strength, strength)
    background = np.abs(rng.normal(0, 0.2, (n, r))).astype(np.float32)
    background = np.where(poor, POOR_BACKGROUND * background, background)
    h = background + np.where(fires, strength, 0)
    return Population(h.astype(np.float32), labels, is_good, kinds, owner)


def _log_uniform(rng: np.random.Generator, low: float, high: float, size: int) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))
