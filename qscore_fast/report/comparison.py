"""Two runs over the same images: what changed from one to the other."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyarrow.compute as pc
from markupsafe import Markup

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.sample_file import some_of
from qscore_fast.report.chart import Chart
from qscore_fast.report.distribution import distribution
from qscore_fast.report.score_rows import ScoreRows
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.store import Store

BINS = 48


def comparison(
    run: ScoreRun,
    rows: ScoreRows,
    other: str | os.PathLike[str] | ScoreRun,
    num_images: int,
) -> dict[str, Any]:
    """The scores of ``run`` against those of ``other``, image by image, joined by sample id.

    Args:
        rows: those of ``run``.
        other: the run to compare with, such as that of the encoder before fine-tuning.
        num_images: how many of the images that changed most to name, in each direction.

    Raises:
        StoreError: no complete run there.
        SettingsError: the runs share no image.
    """
    before = other if isinstance(other, ScoreRun) else ScoreRun(other)
    before_rows = ScoreRows.of(before)
    here, there = _joined(run, before)
    q, q_before = rows.q[here].astype(np.float64), before_rows.q[there].astype(np.float64)
    change = q - q_before
    edges = np.histogram_bin_edges(np.concatenate([q, q_before]), BINS)
    order = np.argsort(change, kind="stable")
    records = [Store(one.path).record for one in (before, run)]
    about, record = (one.about for one in records)
    listed = [one.asked["source"]["manifest_hash"] for one in records]
    return {
        "other": "/".join(before.path.resolve().parts[-2:]),
        "encoder": record.get("encoder_name", "unknown"),
        "other_encoder": about.get("encoder_name", "unknown"),
        "same_source": listed[0] == listed[1],
        "num_common": len(here),
        "num_only_here": len(rows) - len(here),
        "num_only_other": len(before_rows) - len(there),
        "distribution": {k: v for k, v in distribution(rows).items() if k != "histogram"},
        "other_distribution": {
            k: v for k, v in distribution(before_rows).items() if k != "histogram"
        },
        "num_discriminative": len(run.features),
        "other_num_discriminative": len(before.features),
        "eps": run.features.eps,
        "other_eps": before.features.eps,
        "mean_change": float(change.mean()),
        "median_change": float(np.median(change)),
        "share_up": float((change > 0).mean()),
        "share_down": float((change < 0).mean()),
        "rank_correlation": _rank_correlation(q, q_before),
        "histogram": {
            "edges": edges.tolist(),
            "counts": np.histogram(q, edges)[0].tolist(),
            "other_counts": np.histogram(q_before, edges)[0].tolist(),
        },
        "up": _named(here, q_before, change, order[::-1], num_images, 1),
        "down": _named(here, q_before, change, order, num_images, -1),
    }


def _joined(run: ScoreRun, other: ScoreRun) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the images that both have, in both."""
    ids = run.scores()["sample_id"].combine_chunks()
    other_ids = other.scores()["sample_id"].combine_chunks()
    if ids.equals(other_ids):
        both = np.arange(len(ids))
        if not len(both):
            raise SettingsError(f"the runs in {run.path} and {other.path} have no scored image")
        return both, both
    place = pc.index_in(ids, value_set=other_ids)
    here = np.flatnonzero(pc.is_valid(place).to_numpy(zero_copy_only=False))
    if not len(here):
        raise SettingsError(
            f"the runs in {run.path} and {other.path} share no image: the first has {some_of(ids)}, the "
            f"other {some_of(other_ids)}; compare two runs over the same source"
        )
    return here, place.drop_null().to_numpy().astype(np.int64)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's; None where one side has no spread."""
    ranks = [_mean_ranks(values) for values in (a, b)]
    if len(a) < 2 or any(rank.std() == 0 for rank in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """(n,): equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def _named(
    here: np.ndarray,
    before: np.ndarray,
    change: np.ndarray,
    order: np.ndarray,
    count: int,
    sign: int,
) -> list[dict[str, Any]]:
    return [
        {"row": int(here[i]), "before": float(before[i]), "change": float(change[i])}
        for i in order[:count].tolist()
        if sign * change[i] > 0
    ]


def comparison_chart(found: dict[str, Any]) -> Markup:
    """Both histograms on one scale."""
    histogram = found["histogram"]
    edges = histogram["edges"]
    highest = max(*histogram["counts"], *histogram["other_counts"])
    chart = Chart(
        f"Histograms of the scores of both runs: median {found['distribution']['quantiles']['0.5']:.3f} "
        f"here, {found['other_distribution']['quantiles']['0.5']:.3f} in the other run",
        "Q-Score", "images", (edges[0], edges[-1]), (0, highest * 1.04),
    )  # fmt: skip
    titles = [f"{a:.3f} to {b:.3f}: {n:,} images" for a, b, n in zip(
        edges[:-1], edges[1:], histogram["counts"], strict=True)]  # fmt: skip
    chart.bars(edges, histogram["counts"], titles, "bar")
    others = histogram["other_counts"]
    chart.line([*edges[:-1], edges[-1]], [*others, others[-1]], "line other", steps=True)
    return chart.svg()
