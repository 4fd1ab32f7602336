"""feature_activity: who fires when, counted in one pass over a run's parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.scoring.discovery import ENTRIES
from qscore_fast.scoring.part import Part
from qscore_fast.scoring.store import Store


@dataclass(frozen=True, eq=False)
class FeatureActivity:
    """Counts at one eps.

    Attributes:
        num_samples: N.
        counts: (r,) int64: samples that have feature j in L.
        by_class: (r, C) int64 of these; None without labels.
        half_sizes: (splits,) int64: samples in the first half of each random split.
        half_counts: (splits, r) int64: ``counts`` of the first halves.
        top_rows: (r, m) int64: the samples in which feature j stands out most, the most first; -1 where it
            fires for fewer. Rows are those of the run's scores; of equal values the first row counts.
        top_values: (r, m) float64: there |h_j - mu| / ||h||; 0 where there is none.
    """

    num_samples: int
    counts: np.ndarray
    by_class: np.ndarray | None
    half_sizes: np.ndarray
    half_counts: np.ndarray
    top_rows: np.ndarray
    top_values: np.ndarray


def feature_activity(
    store: Store,
    num_features: int,
    eps: float,
    labels: ClassLabels | None = None,
    *,
    num_splits: int = 10,
    num_top: int = 10,
    seed: int = 0,
) -> FeatureActivity:
    """Count over a complete run. Memory does not grow with the samples, and the parts do not matter.

    Args:
        eps: at least the run's activation_eps.
        labels: of all scored samples, in order.
        num_splits: random halves, each by a generator of its own from ``seed``.
        num_top: m.

    Raises:
        SettingsError: eps below what the parts hold, or labels of another number of samples.
        StoreError: a damaged part.
    """
    if not eps >= store.record.asked["activation_eps"]:
        raise SettingsError(
            f"eps is {eps:g}, and the run kept activations above {store.record.asked['activation_eps']:g}: "
            "give at least that"
        )
    r, c = num_features, 0 if labels is None else labels.num_classes
    counts = np.zeros(r, np.int64)
    by_class = None if labels is None else np.zeros((r, c), np.int64)
    generators = [np.random.default_rng([seed, split]) for split in range(num_splits)]
    half_sizes, half_counts = np.zeros(num_splits, np.int64), np.zeros((num_splits, r), np.int64)
    top_rows, top_values = np.full((r, num_top), -1), np.zeros((r, num_top))
    first = 0

    def active(part: Part) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        chosen = part.z > eps
        rows = np.repeat(np.arange(part.num_ok), part.lengths)[chosen]
        return part.num_ok, rows, part.feature[chosen].astype(np.int64), part.distance[chosen]

    for size, rows, feature, value in store.map_parts(active, ENTRIES):
        counts += np.bincount(feature, minlength=r)
        if labels is not None and by_class is not None:
            own = labels.targets[first : first + size]
            if len(own) < size:
                raise SettingsError(
                    f"{len(labels):,} labels are fewer than the scored samples: give one for each"
                )
            by_class += np.bincount(feature * c + own[rows], minlength=r * c).reshape(r, c)
        for split, generator in enumerate(generators):
            half = generator.random(size) < 0.5
            half_sizes[split] += half.sum()
            half_counts[split] += np.bincount(feature[half[rows]], minlength=r)
        _merge_top(top_rows, top_values, rows + first, feature, value)
        first += size
    return FeatureActivity(first, counts, by_class, half_sizes, half_counts, top_rows, top_values)


def _merge_top(
    top_rows: np.ndarray,
    top_values: np.ndarray,
    rows: np.ndarray,
    feature: np.ndarray,
    value: np.ndarray,
) -> None:
    """Put the largest values of a part among the best so far, in place."""
    r, m = top_rows.shape
    order = np.lexsort((rows, -value, feature))
    ordered = feature[order]
    starts = np.searchsorted(ordered, np.arange(r))
    rank = np.arange(len(ordered)) - starts[ordered]
    kept = rank < m
    candidates, values = np.full((r, m), -1), np.zeros((r, m))
    candidates[ordered[kept], rank[kept]] = rows[order][kept]
    values[ordered[kept], rank[kept]] = value[order][kept]
    # What came before has lower rows: it stays first among equals.
    joined_rows = np.concatenate([top_rows, candidates], 1)
    joined = np.concatenate([top_values, values], 1)
    best = np.argsort(-joined, axis=1, kind="stable")[:, :m]
    top_rows[:] = np.take_along_axis(joined_rows, best, 1)
    top_values[:] = np.take_along_axis(joined, best, 1)
