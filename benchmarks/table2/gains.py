"""Means over the seeds and differences between arms, from a file of results."""

from __future__ import annotations

from typing import Any

from qscore_fast.finetuning.comparison import Interval, mean_interval, paired_interval
from qscore_fast.finetuning.comparison.result import BASE, CONTROL

System = dict[str, Any]


def values(system: System, arm: str, measure: str) -> list[float]:
    """A measure of an arm, one value a seed in the order of the seeds; none where one is undefined."""
    found = [row[measure] for row in system["rows"] if row["arm"] == arm]
    return [] if None in found else found


def mean(system: System, arm: str, measure: str) -> Interval | None:
    """The mean over the seeds."""
    found = values(system, arm, measure)
    return mean_interval(found) if found else None


def gain(system: System, arm: str, measure: str, over: str = CONTROL) -> Interval | None:
    """The mean difference from another arm, seed by seed; the base has one value for all seeds."""
    ours, others = values(system, arm, measure), values(system, over, measure)
    if over == BASE:
        others = others * len(ours)
    return paired_interval(ours, others) if ours and len(ours) == len(others) else None


def over_systems(
    systems: list[System], arm: str, measure: str, over: str = CONTROL
) -> Interval | None:
    """The mean of the systems' mean gains, with the interval of their spread: a system is a sample."""
    found = [one.mean for system in systems if (one := gain(system, arm, measure, over))]
    return mean_interval(found) if found else None


def arms_of(systems: list[System]) -> list[str]:
    """Those that were trained, in order."""
    found = dict.fromkeys(row["arm"] for system in systems for row in system["rows"])
    return [arm for arm in found if arm != BASE]
