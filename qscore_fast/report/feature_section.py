"""The discriminative features of a run: how often each fires, and the images that show it best."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.discovery import feature_activity
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.report.chart import Chart, thinned
from qscore_fast.report.score_rows import ScoreRows
from qscore_fast.scoring.store import Store

CURVE_POINTS = 400


def feature_section(
    store: Store,
    features: DiscriminativeFeatures,
    rows: ScoreRows,
    *,
    num_features: int,
    num_images: int,
) -> dict[str, Any]:
    """The A curve of the population that D was chosen from, and D's features that stand out most here.

    One pass over the parts. A feature stands out by the mean of its ``num_images`` largest
    (h_j - mu) / ||h||.

    Raises:
        StoreError: a part is damaged.
    """
    percent = features.percent.numpy()
    in_d = features.mask.numpy()
    order = np.argsort(percent, kind="stable")
    places = thinned(len(order), CURVE_POINTS)
    chosen = np.flatnonzero(in_d[order])
    found: dict[str, Any] = {
        "num_features": len(percent),
        "num_discriminative": int(in_d.sum()),
        "num_dead": int((percent == 0).sum()),
        "num_samples": features.num_samples,
        "curve": {"place": places.tolist(), "percent": percent[order][places].tolist()},
        "band": [int(chosen[0]), int(chosen[-1])] if len(chosen) else None,
        "band_percent": [float(percent[in_d].min()), float(percent[in_d].max())]
        if len(chosen)
        else None,
        "of_this_run": features.num_samples == len(rows),
        "top": [],
    }
    if not len(chosen) or not num_features or not num_images:
        return found
    labels = None
    if rows.classes and (rows.codes >= 0).all():
        labels = ClassLabels(rows.codes.astype(np.int64), rows.classes)
    activity = feature_activity(
        store, len(percent), features.eps, labels, num_splits=0, num_top=num_images
    )
    strength = np.where(in_d, activity.top_values.mean(1), -1.0)
    for feature in np.argsort(-strength, kind="stable")[:num_features].tolist():
        fired = activity.top_rows[feature] >= 0
        if not in_d[feature] or not fired.any():
            continue
        entry = {
            "feature": feature,
            "percent": float(percent[feature]),
            "count": int(activity.counts[feature]),
            "rows": activity.top_rows[feature][fired].tolist(),
            "values": activity.top_values[feature][fired].tolist(),
        }
        if labels is not None and activity.by_class is not None:
            own = activity.by_class[feature]
            entry["top_class"] = labels.classes[int(own.argmax())]
            entry["purity"] = float(own.max() / max(own.sum(), 1))
        found["top"].append(entry)
    return found


def feature_chart(found: dict[str, Any]) -> Markup:
    """How often each feature fires, ascending, with the band of D."""
    places, percent = found["curve"]["place"], found["curve"]["percent"]
    chart = Chart(
        f"Share of images in which each of {found['num_features']:,} features fires, ascending; "
        f"{found['num_discriminative']:,} of them are discriminative",
        "features, by how often they fire", "images in which it fires (%)",
        (0, max(found["num_features"] - 1, 1)), (0, max(percent) * 1.05),
    )  # fmt: skip
    if found["band"] is not None:
        first, last = found["band"]
        inside = [(x, y) for x, y in zip(places, percent, strict=True) if first <= x <= last]
        if inside:
            chart.area([x for x, _ in inside], [y for _, y in inside], "area")
        chart.vertical(first, f"{found['band_percent'][0]:.3g} %")
        if last > first:
            chart.vertical(last, f"{found['band_percent'][1]:.3g} %")
    chart.line(places, percent, "line strong")
    return chart.svg()
