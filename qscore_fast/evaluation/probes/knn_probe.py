"""knn_probe: what the nearest training images say of every test image."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.finite_rows import FiniteRows
from qscore_fast.evaluation.knn import IndexName, Weighting, searched, votes
from qscore_fast.evaluation.run_pair import Run, run_pair
from qscore_fast.evaluation.sample_file import ID
from qscore_fast.scoring.atomic import made_folder, replacing, write_text

KS = (10, 20, 100, 200)
PRIMARY = 20


@dataclass(frozen=True, eq=False)
class KNNProbe:
    """Accuracies by k, and the answers of one k.

    Attributes:
        accuracies: (top-1, top-5) by k, from 0 to 1; top-5 takes min(5, k) classes, as DINO's does.
        k: of the answers: 20 if it was asked for, else the smallest.
        classes: the C names.
        sample_ids: (n,). targets, prediction: (n,) int64. confidence: (n,) the share of the votes.
        recall: of the index. settings: of the search and the vote. notes: what a user should know.
    """

    accuracies: dict[int, tuple[float, float]]
    k: int
    classes: tuple[str, ...]
    sample_ids: pa.Array
    targets: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray
    recall: float
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        right = self.prediction == self.targets
        total = np.bincount(self.targets, minlength=len(self.classes))
        hits = np.bincount(self.targets[right], minlength=len(self.classes))
        return {
            "accuracies": [
                {"k": k, "top1": top1, "top5": top5} for k, (top1, top5) in self.accuracies.items()
            ],
            "k": self.k,
            "num_test": len(self.targets),
            "num_classes": len(self.classes),
            "recall": self.recall,
            "settings": self.settings,
            "notes": list(self.notes),
            "accuracy_by_class": {
                name: float(hit / count) if count else None
                for name, hit, count in zip(self.classes, hits, total, strict=True)
            },
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        found = [
            f"k = {k}: top-1 {100 * top1:.2f} %, top-5 {100 * top5:.2f} %"
            for k, (top1, top5) in self.accuracies.items()
        ]
        found.append(f"{self.settings['index']}, recall {self.recall:.4f}")
        return [*found, *(f"note: {note}" for note in self.notes)]

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write knn.parquet (sample_id, label, prediction, correct, confidence at ``k``) and knn.json.

        Raises:
            StoreError: the folder cannot be made or written.
        """
        folder = made_folder(folder)
        names = pa.array(self.classes, pa.string())
        columns = {
            ID: self.sample_ids,
            "label": names.take(pa.array(self.targets)),
            "prediction": names.take(pa.array(self.prediction)),
            "correct": self.prediction == self.targets,
            "confidence": self.confidence,
        }
        paths = [folder / "knn.parquet", folder / "knn.json"]
        with replacing(paths[0]) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd")
        write_text(paths[1], json.dumps(self.to_json(), indent=1) + "\n")
        return paths


def knn_probe(
    train: Run,
    test: Run,
    *,
    ks: Sequence[int] = KS,
    temperature: float = 0.07,
    weighting: Weighting = "softmax",
    index: IndexName = "exact",
    labels: str | os.PathLike[str] | None = None,
    test_labels: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    finite_only: bool = False,
) -> KNNProbe:
    """Classify a run's images by the nearest ones of another run, for every k from one search.

    Defaults are DINO's protocol; ``ks=[200], temperature=0.1`` is InstDisc's.

    Args:
        train, test: finished runs with embeddings of one encoder, or their folders.
        ks: numbers of neighbours.
        index: see ``searched``.
        labels, test_labels: files with sample_id and label, where a run has no labels of its own.
        finite_only: leave images with NaN or Inf out instead of refusing their run.

    Raises:
        SettingsError: other encoders or preprocessing, labels that are missing or unknown to the training
            images, k or T out of range, NaN or Inf.
        StoreError: a run is not complete, or has no embeddings.
        MissingExtraError: FAISS was asked for and is not installed.
    """
    if not ks or min(ks) < 1:
        raise SettingsError(f"k is {list(ks)}: give one number from 1 on, or more")
    train, test = run_pair(train, test)
    known = ClassLabels.of_run(train, labels)
    wanted = ClassLabels.of_run(test, test_labels, known.classes)
    references, queries = (FiniteRows.of(run, finite_only=finite_only) for run in (train, test))
    known, wanted = references.labels(known), queries.labels(wanted)
    found = searched(queries.rows, references.rows, max(ks), index, device=device)
    primary = PRIMARY if PRIMARY in ks else min(ks)
    accuracies: dict[int, tuple[float, float]] = {}
    for k in sorted(set(ks)):
        shares = votes(
            found.neighbours, known.targets, known.num_classes, k,
            temperature=temperature, weighting=weighting,
        )  # fmt: skip
        # A stable sort: of equal classes the first.
        best = np.argsort(-shares, axis=1, kind="stable")[:, : min(5, k, known.num_classes)]
        right = best == wanted.targets[:, None]
        accuracies[k] = (float(right[:, 0].mean()), float(right.any(1).mean()))
        if k == primary:
            prediction, confidence = best[:, 0].astype(np.int64), shares.max(1)
    return KNNProbe(
        accuracies,
        primary,
        known.classes,
        queries.take(test.scores()[ID].combine_chunks()),
        wanted.targets,
        prediction,
        confidence,
        found.recall,
        {**found.settings, "temperature": temperature, "weighting": weighting},
        (*references.notes, *queries.notes),
    )
