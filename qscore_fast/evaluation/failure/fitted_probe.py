"""fitted_probe: a probe trained here and now, and which images of a run it gets right."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.failure.correctness import PROBE_COLUMN, Correctness
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.finite_rows import FiniteRows
from qscore_fast.evaluation.fit_for_probes import check_two_classes
from qscore_fast.evaluation.knn import nearest, votes
from qscore_fast.evaluation.logistic import SoftmaxProblem, chosen_C, fit_logistic
from qscore_fast.evaluation.probes import knn_probe, linear_probe
from qscore_fast.evaluation.run_pair import Run, listed_images
from qscore_fast.evaluation.sample_file import ID
from qscore_fast.scoring import ScoreRun

ProbeName = Literal["logistic", "knn"]
NEIGHBOURS = 20
FOLDS = 5
WORDS = {
    "logistic": "logistic regression, trained on",
    "knn": f"the vote of the {NEIGHBOURS} nearest neighbours among",
}


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """The answers of a probe.

    Attributes:
        correctness: of every scored image of the run, or of the finite ones; for ``knn`` with the column
            confidence.
        logits: (n, C) float32 of the same images; None for ``knn``.
        notes: how it was trained, and what a reader should know.
    """

    correctness: Correctness
    logits: np.ndarray | None
    notes: tuple[str, ...]


def fitted_probe(
    run: Run,
    labels: str | os.PathLike[str] | None = None,
    *,
    probe: ProbeName = "logistic",
    train: Run | None = None,
    train_labels: str | os.PathLike[str] | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    device: str | torch.device = "cpu",
    finite_only: bool = False,
) -> FittedProbe:
    """Train a probe and ask it about every scored image of a run; never one that it has seen.

    Args:
        run: a finished run with embeddings, or its folder.
        labels: a file with sample_id and label; by default the labels of the run itself.
        probe: ``logistic``, multinomial logistic regression with C chosen on held-out training images;
            ``knn``, the weighted vote of the 20 nearest neighbours (T = 0.07).
        train: the run to train on. None cross-fits on ``run``: logistic regression in ``folds`` parts, each
            asked about by a probe trained on the others; neighbours without the image itself.
        train_labels: as ``labels``, of the training run.
        folds: of cross-fitting.
        seed: of what is held out and of the folds.
        device: where it is trained.
        finite_only: leave images with NaN or Inf out instead of refusing their run.

    Raises:
        SettingsError: an unknown probe, labels that are missing or of one class only, NaN or Inf, runs of
            different encoders, the run's own images as training run, or too few images to cross-fit.
        StoreError: a run is not complete, or has no embeddings.
    """
    if probe not in get_args(ProbeName):
        raise SettingsError(f"probe is {probe!r}: give one of {', '.join(get_args(ProbeName))}")
    run = run if isinstance(run, ScoreRun) else ScoreRun(run)
    if train is None:
        if train_labels is not None:
            raise SettingsError("train_labels are those of a training run: give train as well")
        return _cross_fitted(run, labels, probe, folds, seed, device, finite_only)
    train = train if isinstance(train, ScoreRun) else ScoreRun(train)
    if listed_images(train) == listed_images(run):
        raise SettingsError(
            f"{train.path} is of the images to ask about: give other images as training run, or leave it out "
            "to cross-fit"
        )
    about = f"{len(train.scores()):,} images of {train.path}"
    if probe == "knn":
        voted = knn_probe(
            train, run, ks=[NEIGHBOURS], labels=train_labels, test_labels=labels, device=device,
            finite_only=finite_only,
        )  # fmt: skip
        right = voted.prediction == voted.targets
        return _found(
            run, voted.sample_ids, right, None, voted.confidence, probe, f"the {about}",
            voted.notes,
        )  # fmt: skip
    linear = linear_probe(
        train, run, labels=train_labels, test_labels=labels, seed=seed, device=device,
        finite_only=finite_only,
    )  # fmt: skip
    return _found(
        run, linear.sample_ids, linear.correct, linear.logits, None, probe, f"the {about}",
        linear.notes,
    )  # fmt: skip


def _cross_fitted(
    run: ScoreRun,
    labels: str | os.PathLike[str] | None,
    probe: ProbeName,
    folds: int,
    seed: int,
    device: str | torch.device,
    finite_only: bool,
) -> FittedProbe:
    finite = FiniteRows.of(run, finite_only=finite_only)
    known = finite.labels(ClassLabels.of_run(run, labels))
    check_two_classes(known)
    if folds < 2 or len(known) < 2 * folds:
        raise SettingsError(
            f"{len(known):,} images in {folds} folds: cross-fitting takes 2 folds or more, and two images a "
            "fold; give a training run (--train) instead"
        )
    rows, targets = finite.rows, known.targets
    notes = list(finite.notes)
    alone = int((np.bincount(targets) == 1).sum())
    if alone:
        notes.append(
            f"{alone:,} classes have one image: no probe has seen another of them, so these images count as "
            "wrong"
        )
    ids = finite.take(run.scores()[ID].combine_chunks())
    if probe == "knn":
        k = min(NEIGHBOURS, len(rows) - 1)
        found = nearest(rows, rows, k, itself=True, device=device)
        shares = votes(found, targets, known.num_classes, k)
        right = shares.argmax(1) == targets
        how = f"the other images of {run.path}"
        return _found(run, ids, right, None, shares.max(1), probe, how, notes)
    logits = np.empty((len(rows), known.num_classes), np.float32)
    fold = stratified_folds(targets, folds, seed)
    for number in range(folds):
        held, kept = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        part = FeatureRows((rows.gather(kept),))
        own = targets[kept]
        C = chosen_C(part, own, known.num_classes, seed=seed, device=device)
        fit = fit_logistic(SoftmaxProblem(part, own, known.num_classes, device=device), [C])[0]
        asked = torch.from_numpy(rows.gather(held)).to(device).float()
        logits[held] = fit.logits(asked).cpu().numpy()
    if len(rows) * (folds - 1) < rows.num_features * folds:
        notes.append(
            f"each fold has fewer training images than the {rows.num_features:,} features: correctness says "
            "more about the regularisation than about the encoder"
        )
    how = f"{run.path} itself, cross-fitted in {folds} folds: no image is judged by a probe that saw it"
    return _found(run, ids, logits.argmax(1) == targets, logits, None, probe, how, notes)


def stratified_folds(targets: np.ndarray, folds: int, seed: int = 0) -> np.ndarray:
    """(n,) int64 from 0 to folds - 1: every class dealt out evenly, by chance; so are the rests."""
    order = np.random.default_rng(seed).permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    found = np.empty(len(targets), np.int64)
    found[order] = np.arange(len(targets)) % folds
    return found


def _found(
    run: ScoreRun,
    ids: pa.Array,
    correct: np.ndarray,
    logits: np.ndarray | None,
    confidence: np.ndarray | None,
    probe: ProbeName,
    how: str,
    notes: tuple[str, ...] | list[str] = (),
) -> FittedProbe:
    columns = {} if confidence is None else {PROBE_COLUMN: confidence}
    outcome = Correctness(
        Path(run.path), ids, np.asarray(correct), None, columns, frozenset(columns)
    )
    return FittedProbe(outcome, logits, (f"correct by {WORDS[probe]} {how}", *notes))
