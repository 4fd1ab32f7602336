"""The compression curve of a report, from the file that ``qscore compress --test`` wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from markupsafe import Markup

from qscore_fast.errors import SettingsError
from qscore_fast.report.chart import Chart, percent

STYLES = {"discriminative": "line accent", "random": "line other dashed"}
OTHERS = ("line other", "line other dotted", "line faint", "line faint dashed")


def read_compression(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a compression.json, or of the folder that holds it.

    Raises:
        SettingsError: it is not there, or another kind of file.
    """
    file = Path(path)
    file = file / "compression.json" if file.is_dir() else file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        points = [
            {
                "strategy": str(point["strategy"]),
                "share": float(point["share"]),
                "num_kept": int(point["num_kept"]),
                "mean": float(point["mean"]),
                "spread": None if point["spread"] is None else float(point["spread"]),
            }
            for point in content["points"]
        ]
        if not points:
            raise ValueError("it holds no point")
        return {
            "full_accuracy": float(content["full_accuracy"]),
            "num_features": int(content["num_features"]),
            "num_test": int(content["num_test"]),
            "probe": str(content["probe"]),
            "points": points,
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{file} cannot be read as a compression curve ({error}): give what qscore compress --test "
            "--out wrote"
        ) from error


def styles(found: dict[str, Any]) -> dict[str, str]:
    """The strategies in their order, and how each is drawn."""
    names = list(dict.fromkeys(point["strategy"] for point in found["points"]))
    rest = iter(OTHERS * 2)
    return {name: STYLES.get(name) or next(rest, OTHERS[0]) for name in names}


def compression_chart(found: dict[str, Any]) -> Markup:
    """Accuracy against the share of the features that is kept."""
    points = found["points"]
    values = [point["mean"] for point in points] + [found["full_accuracy"]]
    margin = (max(values) - min(values)) * 0.08 or 0.01
    chart = Chart(
        f"Probe accuracy against the share of {found['num_features']:,} features kept",
        "features kept", "accuracy of the probe",
        (min(point["share"] for point in points), 1.0),
        (max(0.0, min(values) - margin), min(1.0, max(values) + margin)),
        x_format=percent, y_format=percent,
    )  # fmt: skip
    full = found["full_accuracy"]
    chart.line([chart.x_range[0], 1.0], [full, full], "rule")
    for name, css in reversed(styles(found).items()):
        own = sorted(
            (point["share"], point["mean"]) for point in points if point["strategy"] == name
        )
        own.append((1.0, full))
        chart.line([share for share, _ in own], [mean for _, mean in own], css)
    return chart.svg()
