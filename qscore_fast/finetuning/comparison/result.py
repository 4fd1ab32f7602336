"""Comparison: what the probes say of every arm and seed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qscore_fast.errors import StoreError
from qscore_fast.finetuning.comparison.intervals import Interval, mean_interval, paired_interval

FORMAT = "qscore-fast.comparison"
BASE, CONTROL = "base", "control"
MEASURES = ("linear", "knn", "mean_q")


@dataclass(frozen=True)
class Probed:
    """One encoder.

    Attributes:
        arm: "base", which was not trained further, or the regulariser it was trained with.
        seed: None for the base.
        linear, knn: top-1 of the test images, from 0 to 1: logistic regression, and 20 neighbours.
        mean_q: of the test images, under the D that the trainings had; NaN without one.
        fingerprint: of the encoder.
        ridge: of the linear probe, as a part of its features' mean variance (``ridge_of``): chosen on
            held-out training images of the base, and the same for all arms.
    """

    arm: str
    seed: int | None
    linear: float
    knn: float
    mean_q: float
    fingerprint: str
    ridge: float | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that was probed, of one system.

    Attributes:
        system: its name. probed: in the order of the arms, then of the seeds.
        settings: of the trainings, but for regulariser and seed.
    """

    system: str
    probed: tuple[Probed, ...]
    settings: Mapping[str, Any]

    @property
    def arms(self) -> tuple[str, ...]:
        """Those that were trained, in order."""
        return tuple(dict.fromkeys(one.arm for one in self.probed if one.arm != BASE))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of the trainings, in order."""
        return tuple(dict.fromkeys(one.seed for one in self.probed if one.seed is not None))

    def values(self, arm: str, measure: str) -> list[float]:
        """A measure of an arm, one value a seed."""
        return [getattr(one, measure) for one in self.probed if one.arm == arm]

    def mean(self, arm: str, measure: str) -> Interval:
        """The mean over the seeds, with its interval."""
        return mean_interval(self.values(arm, measure))

    def gain(self, arm: str, measure: str, over: str = CONTROL) -> Interval | None:
        """The mean difference from another arm, seed by seed; from the base, seed by seed from one value.

        None where the other one is missing, or is the same.
        """
        others = self.values(over, measure)
        values = self.values(arm, measure)
        if not others or arm == over:
            return None
        if over == BASE:
            others = others * len(values)
        return paired_interval(values, others)

    def to_json(self) -> dict[str, Any]:
        """Plain values: every row, and for each arm means and gains; what is not finite is None."""
        rows = [asdict(one) for one in self.probed]
        arms = {
            arm: {
                measure: {
                    "mean": asdict(self.mean(arm, measure)),
                    "over_control": _plain(self.gain(arm, measure)),
                    "over_base": _plain(self.gain(arm, measure, BASE)),
                }
                for measure in MEASURES
            }
            for arm in self.arms
        }
        found: dict[str, Any] = _finite(
            {
                "format": FORMAT,
                "system": self.system,
                "settings": dict(self.settings),
                "probed": rows,
                "arms": arms,
            }
        )
        return found

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Comparison:
        """Read compare.json.

        Raises:
            StoreError: missing or no such file.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read the comparison {path}: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise StoreError(f"{path} is no comparison of qscore finetune")
        rows: Sequence[Mapping[str, Any]] = content["probed"]
        probed = tuple(
            Probed(**{**row, "mean_q": float("nan") if row["mean_q"] is None else row["mean_q"]})
            for row in rows
        )
        return cls(content["system"], probed, content["settings"])


def _plain(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else {**asdict(interval), "excludes_0": interval.excludes_zero}


def _finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
