"""The error of a metric that has no value on the samples at hand."""

from __future__ import annotations

from qscore_fast.errors import QScoreError


class UndefinedMetricError(QScoreError, ValueError):
    """A metric is undefined on these samples; ``reason`` says why, on one line."""

    def __init__(self, metric: str, reason: str) -> None:
        super().__init__(f"{metric} is undefined: {reason}")
        self.reason = reason
