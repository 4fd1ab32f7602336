"""Failure prediction in a report: the table of all scores, and three curves of a few of them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure import Ranking, evaluate_run
from qscore_fast.evaluation.sample_file import read_samples, text_of
from qscore_fast.report.chart import Chart, percent, thinned
from qscore_fast.scoring import ScoreRun

POINTS = 160
STYLES = ("line accent", "line other", "line other dashed", "line other dotted")


@dataclass(frozen=True, eq=False)
class FailureSection:
    """What a report says of failure prediction.

    Attributes:
        content: plain values: the table and the curves.
        sample_ids, correct: of the evaluated images.
    """

    content: dict[str, Any]
    sample_ids: pa.Array
    correct: np.ndarray


def failure_section(
    run: ScoreRun, probe: str | os.PathLike[str], num_resamples: int
) -> FailureSection:
    """From what ``qscore evaluate --out`` or ``qscore probe --out`` wrote, or a file of correctness.

    Args:
        probe: a folder with failure.json and failure.parquet, which are taken as they are; or with
            probe.parquet (and logits.npy); or a file as ``qscore evaluate --correct`` takes it.
        num_resamples: of the bootstrap, where it has to be evaluated first.

    Raises:
        SettingsError: nothing of that kind is there, or it does not fit the run.
    """
    path = Path(probe)
    if (path / "failure.json").is_file() and (path / "failure.parquet").is_file():
        table, ids, correct, scores = _read(path)
    else:
        file = path / "probe.parquet" if path.is_dir() else path
        if not file.is_file():
            raise SettingsError(
                f"{path} holds neither failure.json and failure.parquet nor probe.parquet: give what "
                "qscore evaluate --out or qscore probe --out wrote, or a file with sample_id and correct"
            )
        logits = file.with_name("logits.npy") if file.name == "probe.parquet" else None
        found = evaluate_run(
            run,
            file,
            logits=logits if logits is not None and logits.is_file() else None,
            num_resamples=num_resamples,
        )
        table, ids, correct = found.table.to_json(), found.sample_ids, found.correct
        scores = found.scores
    content = {**table, "curves": _curves(table, scores, correct)}
    return FailureSection(content, ids, correct)


def _read(folder: Path) -> tuple[dict[str, Any], pa.Array, np.ndarray, dict[str, np.ndarray]]:
    try:
        table = json.loads((folder / "failure.json").read_text(encoding="utf-8"))
        rows = read_samples(folder / "failure.parquet")
        correct = rows["correct"].to_numpy().astype(bool)
        scores = {
            name: rows[name].to_numpy()
            for name in rows.column_names
            if name not in ("sample_id", "correct")
        }
        needed = ("num_samples", "num_wrong", "accuracy", "main", "metrics", "scores", "notes")
        return (
            {name: table[name] for name in (*needed, "level", "num_resamples")},
            text_of(rows["sample_id"]),
            correct,
            scores,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"failure.json and failure.parquet in {folder} cannot be read ({error}): run the same "
            "qscore evaluate --out again"
        ) from error


def _curves(
    table: dict[str, Any], scores: dict[str, np.ndarray], correct: np.ndarray
) -> list[dict[str, Any]]:
    """ROC, precision-recall and risk-coverage of the score, its best rivals and the probe's bound."""
    if not 0 < int(correct.sum()) < len(correct):
        return []

    def auroc(row: dict[str, Any]) -> float:
        value = row["estimates"].get("auroc", {}).get("value")
        return -1.0 if value is None else value

    rows = [row for row in table["scores"] if row["name"] in scores]
    main = [row for row in rows if row["name"] == table["main"]]
    others = sorted((row for row in rows if row not in main), key=auroc, reverse=True)
    rivals = [row for row in others if not row.get("uses_labels")][:2]
    bounds = [row for row in others if row.get("uses_labels")][:1]
    return [
        {"name": row["name"], "title": row["title"], **_points(scores[row["name"]], correct)}
        for row in [*main, *rivals, *bounds]
    ]


def _points(score: np.ndarray, correct: np.ndarray) -> dict[str, list[float]]:
    counts = Ranking.of(score, correct).counts
    places = thinned(len(counts.covered), POINTS)
    covered, errors = counts.covered[places], counts.errors[places]
    successes = covered - errors
    return {
        "coverage": (covered / counts.num_samples).tolist(),
        "risk": (errors / covered).tolist(),
        "true_positive_rate": (successes / counts.num_correct).tolist(),
        "false_positive_rate": (errors / counts.num_wrong).tolist(),
        "precision": (successes / covered).tolist(),
    }


def failure_charts(found: dict[str, Any]) -> list[tuple[str, Markup]]:
    """Heading and picture of each curve; none where all images are right, or all wrong."""
    curves = found["curves"]
    if not curves:
        return []
    accuracy = found["accuracy"]
    lowest = min(min(curve["precision"]) for curve in curves)
    highest = max(max(curve["risk"]) for curve in curves)
    plans = (
        ("ROC", "false_positive_rate", "true_positive_rate", "wrong images above the threshold",
         "correct images above it", (0.0, 1.0), ([0, 1], [0, 1])),
        ("Precision and recall", "true_positive_rate", "precision", "correct images above the threshold",
         "correct among them", (max(0.0, lowest - 0.02), 1.0), ([0, 1], [accuracy, accuracy])),
        ("Risk and coverage", "coverage", "risk", "images kept, the most trusted first",
         "wrong among them", (0.0, highest * 1.05), ([0, 1], [1 - accuracy, 1 - accuracy])),
    )  # fmt: skip
    drawn = []
    for title, x, y, x_label, y_label, y_range, (chance_x, chance_y) in plans:
        chart = Chart(
            f"{title} of {', '.join(curve['title'] for curve in curves)}; dashed: chance",
            x_label, y_label, (0, 1), y_range, width=400, height=300,
            x_format=percent, y_format=percent,
        )  # fmt: skip
        chart.line(chance_x, chance_y, "rule")
        start = {"ROC": (0.0, 0.0)}.get(title)
        for style, curve in reversed(list(zip(STYLES, curves, strict=False))):
            xs, ys = list(curve[x]), list(curve[y])
            if start is not None:
                xs, ys = [start[0], *xs], [start[1], *ys]
            chart.line(xs, ys, style)
        drawn.append((title, chart.svg()))
    return drawn
