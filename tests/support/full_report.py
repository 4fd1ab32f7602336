"""A report with everything in it, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.evaluation.compression.curve import CompressionCurve, CurvePoint
from qscore_fast.report import WrittenReport
from qscore_fast.scoring import ScoreRun


@dataclass(frozen=True)
class FullReport:
    """What the report was made from, and the report."""

    images: Path
    checkpoint: Path
    run: ScoreRun
    other: ScoreRun
    probe: Path
    written: WrittenReport


def save_probe(run: ScoreRun, folder: Path) -> Path:
    """A probe that is right more often where the score is high, with a confidence of its own."""
    folder.mkdir()
    scores = run.scores()
    q = scores["q_score"].to_numpy()
    generator = np.random.default_rng(0)
    chance = 0.3 + 0.6 * np.argsort(np.argsort(q)) / len(q)
    correct = generator.random(len(q)) < chance
    table = pa.table({"sample_id": scores["sample_id"], "correct": pa.array(correct)})
    pq.write_table(table, folder / "probe.parquet")
    logits = generator.normal(size=(len(q), 3)).astype(np.float32)
    np.save(folder / "logits.npy", logits)
    return folder


def save_curve(folder: Path) -> None:
    """A compression curve of two strategies."""
    points = [
        CurvePoint(name, share, int(256 * share), (full - 0.1 * (1 - share), full - 0.12))
        for name, full in (("discriminative", 0.8), ("random", 0.75))
        for share in (0.8, 0.5, 0.2)
    ]
    CompressionCurve(0.81, 256, 300, 150, 10, tuple(points), "logistic regression").write(folder)
