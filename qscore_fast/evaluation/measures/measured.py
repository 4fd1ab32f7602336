"""Measured: the value of a measure, or the reason why it has none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from qscore_fast.errors import QScoreError


@dataclass(frozen=True)
class Measured:
    """What a measure gave. ``float(measured)`` is the value.

    Attributes:
        value: finite; None where the measure is undefined.
        reason: why it is undefined; None where there is a value.
        details: what the value was made with: the fit's range, the centring, the rows used.
    """

    value: float | None
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: float, **details: Any) -> Measured:
        """A value; one that is not finite is undefined, for numbers that overflow."""
        if not math.isfinite(value):
            return cls(None, "the numbers are too large or too small for float64", details)
        return cls(float(value), None, details)

    @classmethod
    def undefined(cls, reason: str, **details: Any) -> Measured:
        """No value; ``reason`` ends the sentence "undefined, because"."""
        return cls(None, reason, details)

    def __float__(self) -> float:
        """The value; QScoreError with the reason where there is none."""
        if self.value is None:
            raise QScoreError(f"the measure is {self}")
        return self.value

    def __str__(self) -> str:
        return f"undefined, because {self.reason}" if self.value is None else f"{self.value:.6g}"

    def to_json(self) -> dict[str, Any]:
        """``value`` (null where undefined), ``undefined`` (the reason or null), ``details``."""
        return {"value": self.value, "undefined": self.reason, "details": self.details}
