"""linear_probe: what a linear probe, trained on one run, says of every image of another."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.logistic import (
    LogisticFit,
    SoftmaxProblem,
    chosen_C,
    fit_logistic,
)
from qscore_fast.evaluation.probes.probe_data import ProbeData
from qscore_fast.evaluation.run_pair import Run
from qscore_fast.evaluation.sample_file import ID
from qscore_fast.evaluation.sgd import PROTOCOLS, ProtocolFit, SGDProtocol, fit_protocol
from qscore_fast.scoring.atomic import made_folder, replacing, write_text
from qscore_fast.scoring.run_folder import ANSWERS


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A trained probe, and its answers.

    Attributes:
        fit: the probe, and how it was trained.
        protocol: "logistic", or a name of ``PROTOCOLS``.
        classes: the C names, in the order of the logits.
        fingerprint: of the encoder; None where it is not known.
        sample_ids: (n,) of the test images. targets: (n,) int64.
        logits: (n, C) float32.
        notes: what a user should know, one sentence each.
    """

    fit: LogisticFit | ProtocolFit
    protocol: str
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
            **self.fit.to_json(),
            "protocol": self.protocol,
            "fingerprint": self.fingerprint,
            "notes": list(self.notes),
            "accuracy_by_class": self.accuracy_by_class(),
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        found = [
            f"top-1 {100 * float(self.correct.mean()):.2f} %, top-5 {100 * self.top(5):.2f} % of "
            f"{len(self.targets):,} images, {len(self.classes):,} classes",
            ("" if self.protocol == "logistic" else f"protocol {self.protocol}: ")
            + self.fit.line(),
        ]
        return [*found, *(f"note: {note}" for note in self.notes)]

    def write_answers(self, folder: str | os.PathLike[str]) -> Path:
        """Write probe.parquet alone; the file.

        Raises:
            StoreError: the folder is not there or cannot be written.
        """
        names = pa.array(self.classes, pa.string())
        confidence = torch.from_numpy(self.logits).double().softmax(1).amax(1).numpy()
        columns = {
            ID: self.sample_ids,
            "label": names.take(pa.array(self.targets)),
            "prediction": names.take(pa.array(self.prediction)),
            "correct": self.correct,
            "confidence": confidence,
        }
        path = Path(folder) / ANSWERS
        with replacing(path) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd")
        return path

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write probe.parquet, logits.npy, probe.json and probe.npz.

        probe.parquet has sample_id, label, prediction, correct and confidence (the largest probability), as
        ``qscore evaluate --correct`` reads it; logits.npy has a float32 row for each of its rows; probe.npz
        the weight (C, r), bias and classes.

        Raises:
            StoreError: the folder cannot be made or written.
        """
        folder = made_folder(folder)
        paths = [folder / name for name in (ANSWERS, "logits.npy", "probe.npz", "probe.json")]
        self.write_answers(folder)
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
    protocol: str = "logistic",
    epochs: int | None = None,
    rates: Sequence[float] | None = None,
    C: float | None = None,
    seed: int = 0,
    labels: str | os.PathLike[str] | None = None,
    test_labels: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    finite_only: bool = False,
) -> LinearProbe:
    """Train a linear probe on a run's embeddings and ask it about another run's.

    Args:
        train, test: finished runs with embeddings of one encoder, or their folders.
        protocol: ``logistic``, multinomial logistic regression by L-BFGS, or one of ``PROTOCOLS``: SGD as a
            system's authors do it, but on cached features, so without their augmentation of the images.
        epochs, rates: of SGD, instead of the protocol's; of several rates the best on a held-out tenth.
        C: of logistic regression, inverse regularisation as in scikit-learn; None chooses it on a held-out
            tenth of the training images.
        seed: of what is held out, and of SGD's start and order.
        labels, test_labels: files with sample_id and label, where a run has no labels of its own.
        finite_only: leave images with NaN or Inf out instead of refusing their run.

    Raises:
        SettingsError: an unknown protocol, or settings of another one; other encoders, one class only,
            labels that are missing or unknown to the training images, NaN or Inf, C not above 0.
        StoreError: a run is not complete, or has no embeddings.
    """
    chosen = _protocol(protocol, epochs, rates, C)
    data = ProbeData.of_runs(train, test, labels, test_labels, finite_only=finite_only)
    classes = data.num_classes
    fit: LogisticFit | ProtocolFit
    if chosen is not None:
        fit = fit_protocol(data.rows, data.targets, classes, chosen, seed=seed, device=device)
    else:
        if C is None:
            C = chosen_C(data.rows, data.targets, classes, seed=seed, device=device)
        problem = SoftmaxProblem(data.rows, data.targets, classes, device=device)
        fit = fit_logistic(problem, [C])[0]
    logits = data.test_logits(fit.logits, device)
    notes = list(data.notes)
    if isinstance(fit, LogisticFit) and not fit.converged:
        notes.append("the optimiser used up its steps: the accuracy may still change a little")
    elif isinstance(fit, ProtocolFit):
        notes += fit.notes
    return LinearProbe(
        fit,
        protocol,
        data.classes,
        data.fingerprint,
        data.sample_ids,
        data.test_targets,
        logits,
        tuple(notes),
    )


def _protocol(
    name: str, epochs: int | None, rates: Sequence[float] | None, C: float | None
) -> SGDProtocol | None:
    """That of a name with these changes; None for logistic regression."""
    if name == "logistic":
        if epochs is not None or rates is not None:
            raise SettingsError(
                "epochs and learning rates are settings of SGD: give a protocol other than logistic"
            )
        return None
    if name not in PROTOCOLS:
        raise SettingsError(f"protocol is {name!r}: give one of logistic, {', '.join(PROTOCOLS)}")
    if C is not None:
        raise SettingsError(f"C is a setting of logistic regression, not of the protocol {name}")
    found = PROTOCOLS[name]
    if epochs is not None:
        found = replace(found, epochs=epochs)
    return found if rates is None else replace(found, rates=tuple(rates))
