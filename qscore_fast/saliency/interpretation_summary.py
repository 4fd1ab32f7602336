"""What the rows of an interpretation say: means by encoder, group, kind of mask, measure and class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from qscore_fast.evaluation.failure import percentile_interval
from qscore_fast.saliency.bootstrap_means import (
    MeanEstimate,
    mean_estimates,
    mean_resamples,
    stacked,
)
from qscore_fast.saliency.correctness_by_name import group_masks
from qscore_fast.saliency.interpretation_rows import KINDS, NO_MASK, measure_column, prefixes
from qscore_fast.saliency.overlap import MEASURES

Key = tuple[int, str, str, str]
"""Encoder (0 or 1), group ("all", "correct", "misclassified"), kind of mask, measure."""


@dataclass(frozen=True, eq=False)
class InterpretationSummary:
    """Means over images, with intervals from the bootstrap over images.

    Attributes:
        num_images: rows.
        means: by encoder, group, kind and measure.
        differences: the same keys without the group, in words -> difference of two means with its
            interval: "correct less misclassified", "compared less base" (paired: the same images),
            "core less spurious" (paired).
        classes: wnid -> encoder, kind and measure ("all" images) -> mean.
        class_sizes: wnid -> rows.
        undefined: by encoder and kind: reason -> images.
        unknown_outcomes: by encoder: images whose outcome is not known; None without a file.
    """

    num_images: int
    means: dict[Key, MeanEstimate]
    differences: dict[str, dict[Key, MeanEstimate]]
    classes: dict[str, dict[Key, MeanEstimate]]
    class_sizes: dict[str, int]
    undefined: dict[tuple[int, str], dict[str, int]]
    unknown_outcomes: tuple[int | None, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """Those that occur, in order."""
        return tuple(dict.fromkeys(group for _, group, _, _ in self.means))

    def to_json(self, encoders: Sequence[str]) -> dict[str, Any]:
        """Plain values; ``encoders`` names them."""
        return {
            "num_images": self.num_images,
            "means": _nested(self.means, encoders),
            "differences": {
                words: _nested(found, encoders) for words, found in self.differences.items()
            },
            "classes": {
                wnid: {"num_images": self.class_sizes[wnid], "means": _nested(found, encoders)}
                for wnid, found in self.classes.items()
            },
            "undefined": [
                {"encoder": encoders[number], "mask": kind, "images": reasons}
                for (number, kind), reasons in self.undefined.items()
            ],
            "unknown_outcomes": dict(zip(encoders, self.unknown_outcomes, strict=True)),
        }


def summarise(
    rows: pa.Table,
    correct: Sequence[np.ndarray | None],
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> InterpretationSummary:
    """Summarise rows as interpretation.parquet holds them.

    All estimates come from the same resamples of the images, so that differences are paired where both sides
    are of the same images.

    Args:
        rows: of one or two encoders.
        correct: for each encoder (N,) float64, 1, 0 or NaN where unknown; None without outcomes.
        num_resamples: of the bootstrap; 0 for no intervals.
    """
    n, num_encoders = len(rows), len(correct)
    groups = [group_masks(outcome, n) for outcome in correct]
    means: dict[Key, MeanEstimate] = {}
    differences: dict[str, dict[Key, MeanEstimate]] = {}
    for measure in MEASURES:
        values = {
            (e, kind): _column(rows, measure_column(prefix, kind, measure))
            for e, prefix in enumerate(prefixes(num_encoders))
            for kind in KINDS
        }
        keys: list[Key] = []
        columns: list[np.ndarray] = []
        for (e, kind), column in values.items():
            for group, members in groups[e].items():
                keys.append((e, group, kind, measure))
                columns.append(np.where(members, column, np.nan))
        paired: list[tuple[str, Key]] = []
        for e in range(num_encoders):
            paired.append(("core less spurious", (e, "all", "", measure)))
            columns.append(values[e, "core"] - values[e, "spurious"])
        if num_encoders == 2:
            for kind in KINDS:
                paired.append(("compared less base", (1, "all", kind, measure)))
                columns.append(values[1, kind] - values[0, kind])
        table = stacked(columns)
        resamples = mean_resamples(table, num_resamples, seed) if num_resamples else None
        found = mean_estimates(table, resamples, level)
        means |= dict(zip(keys, found[: len(keys)], strict=True))
        for (words, key), estimate in zip(paired, found[len(keys) :], strict=True):
            differences.setdefault(words, {})[key] = estimate
        for key, estimate in _between_groups(keys, found, resamples, level).items():
            differences.setdefault("correct less misclassified", {})[key] = estimate
    classes, sizes = _by_class(rows, num_encoders, num_resamples, level, seed)
    return InterpretationSummary(
        num_images=n,
        means=means,
        differences=differences,
        classes=classes,
        class_sizes=sizes,
        undefined=_undefined(rows, num_encoders),
        unknown_outcomes=tuple(
            None if outcome is None else int(np.isnan(outcome).sum()) for outcome in correct
        ),
    )


def _column(rows: pa.Table, name: str) -> np.ndarray:
    """(N,) float64, NaN for null."""
    return rows[name].to_numpy().astype(np.float64)


def _between_groups(
    keys: Sequence[Key],
    found: Sequence[MeanEstimate],
    resamples: np.ndarray | None,
    level: float,
) -> dict[Key, MeanEstimate]:
    """Correct less misclassified: of different images, in the same resamples of all."""
    place = {key: k for k, key in enumerate(keys)}
    result: dict[Key, MeanEstimate] = {}
    for key, k in place.items():
        e, group, kind, measure = key
        if group != "correct":
            continue
        other = place[e, "misclassified", kind, measure]
        first, second = found[k], found[other]
        if first.mean is None or second.mean is None:
            result[e, "all", kind, measure] = MeanEstimate(None, first.n + second.n)
            continue
        interval = None
        if resamples is not None:
            interval = percentile_interval(resamples[:, k] - resamples[:, other], level)
        difference = first.mean - second.mean
        result[e, "all", kind, measure] = MeanEstimate(difference, first.n + second.n, interval)
    return result


def _by_class(
    rows: pa.Table, num_encoders: int, num_resamples: int, level: float, seed: int
) -> tuple[dict[str, dict[Key, MeanEstimate]], dict[str, int]]:
    keys: list[Key] = []
    columns: list[np.ndarray] = []
    for e, prefix in enumerate(prefixes(num_encoders)):
        for kind in KINDS:
            for measure in MEASURES:
                keys.append((e, "all", kind, measure))
                columns.append(_column(rows, measure_column(prefix, kind, measure)))
    table = stacked(columns)
    wnids = np.array(rows["wnid"].to_pylist(), "S9")
    order = np.argsort(wnids, kind="stable")
    names, starts = np.unique(wnids[order], return_index=True)
    classes: dict[str, dict[Key, MeanEstimate]] = {}
    sizes: dict[str, int] = {}
    for name, members in zip(names, np.split(order, starts[1:]), strict=True):
        own = table[members]
        resamples = mean_resamples(own, num_resamples, seed) if num_resamples else None
        wnid = name.decode()
        classes[wnid] = dict(zip(keys, mean_estimates(own, resamples, level), strict=True))
        sizes[wnid] = len(members)
    return classes, sizes


def _undefined(rows: pa.Table, num_encoders: int) -> dict[tuple[int, str], dict[str, int]]:
    result = {}
    for e, prefix in enumerate(prefixes(num_encoders)):
        for kind in KINDS:
            counts = Counter(rows[f"{prefix}{kind}_undefined"].drop_null().to_pylist())
            reasons = sorted(counts, key=lambda reason: (reason != NO_MASK, reason))
            result[e, kind] = {reason: counts[reason] for reason in reasons}
    return result


def _nested(estimates: Mapping[Key, MeanEstimate], encoders: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "encoder": encoders[e],
            "images": group,
            "mask": kind or None,
            "measure": measure,
            **asdict(estimate),
        }
        for (e, group, kind, measure), estimate in estimates.items()
    ]
