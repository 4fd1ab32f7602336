"""linear_probe: what a linear probe, trained on one run, says of every image of another."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.logistic.choice import chosen_C
from qscore_fast.evaluation.logistic.fit import LogisticFit, fit_logistic
from qscore_fast.evaluation.logistic.softmax_problem import SoftmaxProblem
from qscore_fast.evaluation.run_pair import Run, run_pair
from qscore_fast.evaluation.sample_file import ID
from qscore_fast.scoring.atomic import made_folder, replacing, write_text

BLOCK = 8192


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A trained probe, and its answers.

    Attributes:
        fit: the probe.
        classes: the C names, in the order of the logits.
        fingerprint: of the encoder; None where it is not known.
        sample_ids: (n,) of the test images. targets: (n,) int64.
        logits: (n, C) float32.
        notes: what a user should know, one sentence each.
    """

    fit: LogisticFit
    classes: tuple[str, ...]
    fingerprint: str | None
    sample_ids: pa.Array
    targets: np.ndarray
    logits: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def prediction(self) -> np.ndarray:
        """(n,) int64: the class of the largest logit."""
        return self.logits.argmax(1)

    @property
    def correct(self) -> np.ndarray:
        """(n,) bool."""
        return self.prediction == self.targets

    def top(self, k: int) -> float:
        """Share of the test images whose class is among the k largest logits, from 0 to 1."""
        k = min(k, len(self.classes))
        best = np.argpartition(-self.logits, k - 1, axis=1)[:, :k]
        return float((best == self.targets[:, None]).any(1).mean())

    def accuracy_by_class(self) -> dict[str, float | None]:
        """Top-1 of the test images of each class; None for a class without any."""
        total = np.bincount(self.targets, minlength=len(self.classes))
        right = np.bincount(self.targets[self.correct], minlength=len(self.classes))
        return {
            name: float(hits / count) if count else None
            for name, hits, count in zip(self.classes, right, total, strict=True)
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "top1": float(self.correct.mean()),
            "top5": self.top(5),
            "num_test": len(self.targets),
            "num_classes": len(self.classes),
            "C": self.fit.C,
            "loss": self.fit.loss,
            "iterations": self.fit.iterations,
            "converged": self.fit.converged,
            "fingerprint": self.fingerprint,
            "notes": list(self.notes),
            "accuracy_by_class": self.accuracy_by_class(),
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        found = [
            f"top-1 {100 * float(self.correct.mean()):.2f} %, top-5 {100 * self.top(5):.2f} % of "
            f"{len(self.targets):,} images, {len(self.classes):,} classes",
            f"logistic regression, C = {self.fit.C:.4g}, {self.fit.iterations} iterations"
            + ("" if self.fit.converged else ", not converged"),
        ]
        return [*found, *(f"note: {note}" for note in self.notes)]

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write probe.parquet, logits.npy, probe.json and probe.npz.

        probe.parquet has sample_id, label, prediction, correct and confidence (the largest probability), as
        ``qscore evaluate --correct`` reads it; logits.npy has a float32 row for each of its rows; probe.npz
        the weight (C, r), bias and classes.

        Raises:
            StoreError: the folder cannot be made or written.
        """
        folder = made_folder(folder)
        paths = [
            folder / name for name in ("probe.parquet", "logits.npy", "probe.npz", "probe.json")
        ]
        names = pa.array(self.classes, pa.string())
        confidence = torch.from_numpy(self.logits).double().softmax(1).amax(1).numpy()
        columns = {
            ID: self.sample_ids,
            "label": names.take(pa.array(self.targets)),
            "prediction": names.take(pa.array(self.prediction)),
            "correct": self.correct,
            "confidence": confidence,
        }
        with replacing(paths[0]) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd")
        with replacing(paths[1]) as temporary, temporary.open("wb") as file:
            np.save(file, self.logits)
        with replacing(paths[2]) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                weight=self.fit.weight.cpu().numpy(),
                bias=self.fit.bias.cpu().numpy(),
                classes=np.array(self.classes),
                fingerprint=np.array(self.fingerprint or ""),
            )
        write_text(paths[3], json.dumps(self.to_json(), indent=1) + "\n")
        return paths


def linear_probe(
    train: Run,
    test: Run,
    *,
    labels: str | os.PathLike[str] | None = None,
    test_labels: str | os.PathLike[str] | None = None,
    C: float | None = None,
    device: str | torch.device = "cpu",
) -> LinearProbe:
    """Train multinomial logistic regression on a run's embeddings and ask it about another run's.

    Args:
        train, test: finished runs with embeddings of one encoder, or their folders.
        labels, test_labels: files with sample_id and label, where a run has no labels of its own.
        C: inverse regularisation, as in scikit-learn; None chooses it on a held-out tenth of the training
            images.

    Raises:
        SettingsError: other encoders, one class only, labels that are missing or unknown to the training
            images, NaN or Inf, C not above 0.
        StoreError: a run is not complete, or has no embeddings.
    """
    train, test = run_pair(train, test)
    known = ClassLabels.of_run(train, labels)
    if known.num_classes < 2:
        raise SettingsError(f"all samples are of class {known.classes[0]!r}: a probe needs two")
    wanted = ClassLabels.of_run(test, test_labels, known.classes)
    rows, asked = FeatureRows.of(train), FeatureRows.of(test)
    if C is None:
        C = chosen_C(rows, known.targets, known.num_classes, device=device)
    problem = SoftmaxProblem(rows, known.targets, known.num_classes, device=device)
    fit = fit_logistic(problem, [C])[0]
    blocks = (torch.from_numpy(np.array(block, np.float32)) for block in asked.blocks(BLOCK))
    logits = torch.cat([fit.logits(block.to(device)).cpu() for block in blocks]).numpy()
    if not np.isfinite(logits).all():
        raise SettingsError(f"the representations in {test.path} hold NaN or Inf")
    notes = []
    if len(rows) < rows.num_features:
        notes.append(
            f"{len(rows):,} training images are fewer than the {rows.num_features:,} features: the accuracy "
            "says more about the regularisation than about the encoder"
        )
    if not fit.converged:
        notes.append("the optimiser used up its steps: the accuracy may still change a little")
    return LinearProbe(
        fit,
        known.classes,
        train.features.fingerprint,
        test.scores()[ID].combine_chunks(),
        wanted.targets,
        logits,
        tuple(notes),
    )
