"""The bootstrap of failure metrics: resampled values, percentile intervals, paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qscore_fast.backends import native_kernels
from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure.block_counts import harmonic_numbers
from qscore_fast.evaluation.failure.metrics import Metric
from qscore_fast.evaluation.failure.ranking import Ranking
from qscore_fast.scoring.prefetch import default_workers

# Weights of one chunk of resamples: what is computed from them stays in a core's cache.
CHUNK = 65_536


@dataclass(frozen=True)
class Interval:
    """A percentile interval.

    Attributes:
        low, high: its ends.
        num_undefined: resamples without a value (one class only, say), which it leaves out.
    """

    low: float
    high: float
    num_undefined: int = 0


def bootstrap(
    scores: Mapping[str, npt.ArrayLike],
    correct: npt.ArrayLike,
    metrics: Sequence[Metric],
    num_resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Every metric of every score on the same resamples of the samples, drawn with replacement.

    The samples are sorted once a score; a resample is a row of multinomial counts over them. The result
    depends on the seed and the arguments alone, not on the number of cores.

    Args:
        scores: (n,) each; higher means more trusted.
        correct: (n,) bool, or 0 and 1.
        seed: of the resamples.

    Returns:
        For each score (num_resamples, number of metrics) float64; NaN where a resample has no value.

    Raises:
        SettingsError: as for :meth:`Ranking.of`, or a number is not positive.
    """
    rankings = {name: Ranking.of(score, correct, name) for name, score in scores.items()}
    return bootstrap_rankings(rankings, metrics, num_resamples, seed)


def bootstrap_rankings(
    rankings: Mapping[str, Ranking], metrics: Sequence[Metric], num_resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """:func:`bootstrap` of samples that are ranked already; the same samples in every ranking."""
    check_resampling(num_resamples, seed)
    result = {name: np.empty((num_resamples, len(metrics))) for name in rankings}
    if not result:
        return result
    num_samples = len(next(iter(rankings.values())).order)
    spans = chunks(num_samples, num_resamples)

    def compute(index: int) -> None:
        weights = resample_counts(num_samples, spans[index], index, seed)
        rows = slice(spans[index].start, spans[index].stop)
        for name, ranking in rankings.items():
            result[name][rows] = _computed(ranking, weights, metrics)

    with ThreadPoolExecutor(default_workers(), thread_name_prefix="qscore-bootstrap") as pool:
        for _ in pool.map(compute, range(len(spans))):
            pass
    return result


def _computed(ranking: Ranking, weights: np.ndarray, metrics: Sequence[Metric]) -> np.ndarray:
    """(resamples, number of metrics): from the native kernels where they know a metric."""
    kernels = native_kernels()
    values = np.empty((len(weights), len(metrics)))
    known = {} if kernels is None else {c: m.native for c, m in enumerate(metrics) if m.native}
    if kernels is not None and known:
        values[:, list(known)] = kernels.resampled_metrics(
            weights,
            ranking.order,
            ranking.wrong,
            ranking.starts,
            harmonic_numbers(weights.shape[1]),
            list(known.values()),
        )
    others = [column for column in range(len(metrics)) if column not in known]
    if others:
        counts = ranking.resampled(weights)
        for column in others:
            values[:, column] = metrics[column].compute(counts)
    return values


def chunks(num_samples: int, num_resamples: int) -> list[range]:
    """The resamples that are computed together."""
    size = max(1, CHUNK // num_samples)
    return [range(a, min(a + size, num_resamples)) for a in range(0, num_resamples, size)]


def resample_counts(num_samples: int, resamples: range, chunk: int, seed: int) -> np.ndarray:
    """(len(resamples), n) int64: how many times each sample was drawn in n draws with replacement."""
    generator = np.random.Generator(np.random.SFC64([seed, chunk]))
    rows = len(resamples)
    drawn = generator.integers(0, num_samples, (rows, num_samples))
    drawn += np.arange(0, rows * num_samples, num_samples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=rows * num_samples)
    return counts.reshape(rows, num_samples)


def percentile_interval(values: np.ndarray, level: float = 0.95) -> Interval | None:
    """The middle share ``level`` of resampled values; None if none of them is defined.

    Args:
        values: (resamples,) of one metric, or the difference of two scores' values on the same
            resamples: their paired difference.
    """
    if not 0 < level < 1:
        raise SettingsError(
            f"level = {level:g}: give the share that an interval holds, between 0 and 1"
        )
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), len(values) - len(defined))


def check_resampling(num_resamples: int, seed: int) -> None:
    """SettingsError if there are to be no resamples, or the seed is negative."""
    if num_resamples < 1:
        raise SettingsError(f"num_resamples = {num_resamples}: give a positive number")
    if seed < 0:
        raise SettingsError(f"seed = {seed}: give 0 or more")
