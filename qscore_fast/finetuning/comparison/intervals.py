"""Means over seeds with Student's intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from qscore_fast.errors import MissingExtraError, SettingsError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and how far it may be off.

    Attributes:
        mean: of the values. half_width: of the interval; None for one value, which has none.
        count: values.
    """

    mean: float
    half_width: float | None
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside; never for one value."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The mean of values, one a seed, with the interval of Student's t distribution.

    Raises:
        SettingsError: no value. MissingExtraError: SciPy is not installed.
    """
    if not values:
        raise SettingsError("there is no value to take a mean of: give one seed or more")
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Interval(mean, None, 1)
    try:
        from scipy.stats import t
    except ImportError as error:
        raise MissingExtraError("scipy", "finetune") from error
    quantile = float(t.ppf((1 + confidence) / 2, count - 1))
    return Interval(mean, quantile * statistics.stdev(values) / math.sqrt(count), count)


def paired_interval(
    values: Sequence[float], others: Sequence[float], confidence: float = CONFIDENCE
) -> Interval:
    """The mean of the differences ``values - others``, seed by seed, with their interval.

    Raises:
        SettingsError: there are not as many of both.
    """
    if len(values) != len(others):
        raise SettingsError(
            f"{len(values)} values and {len(others)} others: pairs need the same seeds in both"
        )
    return mean_interval([a - b for a, b in zip(values, others, strict=True)], confidence)
