"""The distribution of a run's scores: as numbers and as pictures."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup

from qscore_fast.report.chart import Chart
from qscore_fast.report.score_rows import ScoreRows

BINS = 64
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def distribution(rows: ScoreRows) -> dict[str, Any]:
    """Counts, moments, quantiles and histogram of the scores; plain values."""
    q = rows.q
    if not len(q):
        return {"num_scored": 0}
    counts, edges = np.histogram(q, bins=min(BINS, max(1, int(np.sqrt(len(q)) * 2))))
    sorted_q = q[rows.order]
    return {
        "num_scored": len(q),
        "mean": float(q.mean(dtype=np.float64)),
        "std": float(q.std(dtype=np.float64)),
        "quantiles": {f"{share:g}": quantile(sorted_q, share) for share in QUANTILES},
        "num_zero": int((rows.num_active == 0).sum()),
        "num_active_mean": float(rows.num_active.mean(dtype=np.float64)),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def quantile(ascending: np.ndarray, share: float) -> float:
    """Of sorted values, between two of them linearly, as NumPy does it."""
    place = share * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    weight = place - below
    return float(ascending[below]) * (1 - weight) + float(ascending[above]) * weight


def distribution_chart(found: dict[str, Any]) -> Markup:
    """The histogram, with the median and the middle nine tenths marked."""
    edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
    marks = found["quantiles"]
    chart = Chart(
        f"Histogram of {found['num_scored']:,} scores: median {marks['0.5']:.3f}, from "
        f"{marks['0']:.3f} to {marks['1']:.3f}",
        "Q-Score", "images", (edges[0], edges[-1]), (0, max(counts) * 1.04),
    )  # fmt: skip
    titles = [
        f"{left:.3f} to {right:.3f}: {count:,} images"
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    middle = [marks["0.05"] <= (a + b) / 2 <= marks["0.95"] for a, b in pairwise(edges)]
    for css, chosen in (("bar quiet", False), ("bar", True)):
        heights = [c if m == chosen else 0 for c, m in zip(counts, middle, strict=True)]
        chart.bars(edges, heights, titles, css)
    chart.vertical(marks["0.5"], f"median {marks['0.5']:.3f}")
    return chart.svg()


def classes_of(rows: ScoreRows) -> list[dict[str, Any]]:
    """Each class's number of images and quantiles, by ascending median."""
    found = []
    for code, own in rows.rows_by_class().items():
        q = rows.q[own]
        found.append(
            {
                "label": rows.classes[code],
                "num_scored": len(own),
                "mean": float(q.mean(dtype=np.float64)),
                "min": float(q[0]),
                "q05": quantile(q, 0.05),
                "q25": quantile(q, 0.25),
                "median": quantile(q, 0.5),
                "q75": quantile(q, 0.75),
                "q95": quantile(q, 0.95),
                "max": float(q[-1]),
            }
        )
    return sorted(found, key=lambda item: (item["median"], item["label"]))


def class_strip(found: dict[str, Any], low: float, high: float) -> Markup:
    """One class on the common scale: its middle nine tenths, its middle half, its median."""
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return 2 + 196 * (value - low) / span

    return Markup(
        '<svg class="strip" viewBox="0 0 200 16" preserveAspectRatio="none" aria-hidden="true">'
        '<path class="thin" d="M{:.1f} 8H{:.1f}"/><path class="thick" d="M{:.1f} 8H{:.1f}"/>'
        '<path class="dot" d="M{:.1f} 3V13"/></svg>'
    ).format(
        x(found["q05"]), x(found["q95"]), x(found["q25"]), x(found["q75"]), x(found["median"])
    )  # fmt: skip
