"""CompressionCurve: probe accuracy against the share of the features that is kept."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.compression.curve_figure import save_curve
from qscore_fast.evaluation.compression.selection import BY_ACTIVITY
from qscore_fast.scoring.atomic import made_folder, write_text

# Two standard errors of a paired mean, 95 % of a normal distribution.
Z95 = 1.959964


@dataclass(frozen=True)
class CurvePoint:
    """One strategy at one share.

    Attributes:
        strategy: discriminative, random, top_tail, bottom_tail, variance or pca.
        share: asked for.
        num_kept: k.
        accuracies: top-1 from 0 to 1, one for each seed.
        difference: mean accuracy less that of ``random`` at the same share; None without it.
        interval: 95 % of ``difference``: a normal interval of the paired difference over the test images,
            for these subsets and this training set.
        converged: whether the optimiser of every seed's probe ended at a minimum.
        num_dead: of the features kept, those that are never active in the census, by which strategies order
            them; None where the features differ by seed, or are components.
    """

    strategy: str
    share: float
    num_kept: int
    accuracies: tuple[float, ...]
    difference: float | None = None
    interval: tuple[float, float] | None = None
    converged: bool = True
    num_dead: int | None = None

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None


@dataclass(frozen=True)
class CompressionCurve:
    """All points, and the accuracy of the whole representation.

    Attributes:
        full_accuracy: top-1 with all r features.
        num_features: r.
        num_train, num_test, num_classes: of the probe.
        points: strategies in the order asked for, shares descending.
        probe: what was trained, in words.
        full_converged: whether the optimiser of the probe on all features ended at a minimum.
        notes: what a reader should know, one sentence each.
        right: (n,) bool by strategy, share and seed, which test images each probe got right, for paired
            comparisons; of all features under ("all", 1.0, 0). Not in the files.
    """

    full_accuracy: float
    num_features: int
    num_train: int
    num_test: int
    num_classes: int
    points: tuple[CurvePoint, ...]
    probe: str
    full_converged: bool = True
    notes: tuple[str, ...] = ()
    right: dict[tuple[str, float, int], np.ndarray] = field(
        default_factory=dict, repr=False, compare=False
    )

    def of(self, strategy: str) -> list[CurvePoint]:
        """Those of one strategy."""
        return [point for point in self.points if point.strategy == strategy]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "full_accuracy": self.full_accuracy,
            "full_converged": self.full_converged,
            "num_features": self.num_features,
            "num_train": self.num_train,
            "num_test": self.num_test,
            "num_classes": self.num_classes,
            "probe": self.probe,
            "points": [
                {
                    "strategy": point.strategy,
                    "share": point.share,
                    "num_kept": point.num_kept,
                    "mean": point.mean,
                    "spread": point.spread,
                    "accuracies": list(point.accuracies),
                    "difference_to_random": point.difference,
                    "interval": point.interval and list(point.interval),
                    "converged": point.converged,
                    "num_dead": point.num_dead,
                }
                for point in self.points
            ],
            "notes": self.all_notes,
        }

    @property
    def all_notes(self) -> list[str]:
        """The notes, and what the points themselves say."""
        notes = list(self.notes)
        names = [f"{p.strategy} at {100 * p.share:g} %" for p in self.points if not p.converged]
        if not self.full_converged:
            names.insert(0, "all features")
        if names:
            notes.append(
                f"{len(names)} of {len(self.points) + 1} probes used up their steps, so their accuracy may "
                f"still change a little: {', '.join(names)}"
            )
        dead = [p for p in self.points if p.num_dead and p.strategy in BY_ACTIVITY]
        if dead:
            names = [f"{p.num_dead:,} in {p.strategy} at {100 * p.share:g} %" for p in dead]
            notes.append(
                "features that are never active in the census are among those kept, which says nothing about "
                f"their order: {', '.join(names)}"
            )
        return notes

    def to_markdown(self) -> str:
        """A row a strategy, a column a share; accuracies in per cent, the spread over seeds beside them."""
        shares = sorted({point.share for point in self.points}, reverse=True)
        names = list(dict.fromkeys(point.strategy for point in self.points))
        lines = [
            "| kept | " + " | ".join(f"{100 * share:g} %" for share in shares) + " |",
            "|---|" + "---|" * len(shares),
        ]
        for name in names:
            cells = {point.share: point for point in self.of(name)}
            lines.append(
                f"| {name.replace('_', ' ')} | "
                + " | ".join(_cell(cells[share]) if share in cells else "" for share in shares)
                + " |"
            )
        lines += ["", f"All {self.num_features:,} features: {100 * self.full_accuracy:.2f} %."]
        for note in self.all_notes:
            lines += ["", f"Note: {note}."]
        return "\n".join(lines) + "\n"

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write compression.json, compression.md and compression.svg.

        Raises:
            StoreError: the folder cannot be made or written.
        """
        folder = made_folder(folder)
        paths = [folder / f"compression.{kind}" for kind in ("json", "md", "svg")]
        write_text(paths[0], json.dumps(self.to_json(), indent=1) + "\n")
        write_text(paths[1], self.to_markdown())
        save_curve(
            {name: [(p.share, p.mean, p.spread) for p in self.of(name)]
             for name in dict.fromkeys(point.strategy for point in self.points)},
            self.full_accuracy,
            paths[2],
        )  # fmt: skip
        return paths


def points_of(
    strategies: Sequence[str],
    shares: Sequence[float],
    sizes: dict[tuple[str, float], int],
    correct: dict[tuple[str, float, int], np.ndarray],
    converged: dict[tuple[str, float, int], bool],
    dead: dict[tuple[str, float], int],
) -> tuple[CurvePoint, ...]:
    """The points, from which test images each probe got right.

    Args:
        sizes: k by strategy and share.
        correct: (n,) bool by strategy, share and seed. converged: of the probes' optimisers, likewise.
        dead: how many of the features are never active in the census, by strategy and share,
            where that does not differ by seed.

    Raises:
        SettingsError: no strategy or no share.
    """
    if not strategies or not shares:
        raise SettingsError("a curve needs one strategy and one share or more")
    means = {
        key: np.mean(
            [right for (*found, _), right in correct.items() if tuple(found) == key], axis=0
        )
        for key in sizes
    }
    points = []
    for strategy in strategies:
        for share in sorted(shares, reverse=True):
            own = [
                float(right.mean())
                for (name, at, _), right in sorted(correct.items(), key=lambda item: item[0][2])
                if (name, at) == (strategy, share)
            ]
            difference, interval = None, None
            if strategy != "random" and ("random", share) in means:
                paired = means[strategy, share] - means["random", share]
                difference = float(paired.mean())
                half = (
                    Z95 * float(paired.std(ddof=1)) / math.sqrt(len(paired))
                    if len(paired) > 1
                    else 0
                )
                interval = (difference - half, difference + half)
            size = sizes[strategy, share]
            ended = all(ok for key, ok in converged.items() if key[:2] == (strategy, share))
            points.append(
                CurvePoint(
                    strategy, share, size, tuple(own), difference, interval, ended,
                    dead.get((strategy, share)),
                )
            )  # fmt: skip
    return tuple(points)


def _cell(point: CurvePoint) -> str:
    spread = f" ± {100 * point.spread:.2f}" if point.spread is not None else ""
    return f"{100 * point.mean:.2f}{spread}"
