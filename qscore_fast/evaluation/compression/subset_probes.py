"""The curve of two runs: linear probes on subsets of the features, all of them trained together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.compression.curve import CompressionCurve, points_of
from qscore_fast.evaluation.compression.principal_axes import principal_axes, turned
from qscore_fast.evaluation.compression.selection import (
    STRATEGIES,
    Strategy,
    column_variances,
    kept_indices,
    num_kept,
)
from qscore_fast.evaluation.feature_rows import FeatureRows, as_tensor
from qscore_fast.evaluation.finite_rows import FiniteRows
from qscore_fast.evaluation.fit_for_probes import check_two_classes, few_rows_notes
from qscore_fast.evaluation.logistic import SoftmaxProblem, chosen_C, fit_logistic
from qscore_fast.evaluation.run_pair import Run, run_pair

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
PCA = "pca"
# Of the loss, 1e-4: far below what changes an accuracy, for half of the steps.
TOLERANCE = 1e-5
Key = tuple[str, float, int]


def compression_curve_of_runs(
    train: Run,
    test: Run,
    *,
    labels: str | os.PathLike[str] | None = None,
    test_labels: str | os.PathLike[str] | None = None,
    shares: Sequence[float] = SHARES,
    num_seeds: int = 4,
    C: float | None = None,
    device: str | torch.device = "cpu",
    finite_only: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> CompressionCurve:
    """:func:`compression_curve` of two runs of one encoder; features are ordered by the training run's A_j.

    Args:
        train, test: finished runs with embeddings, or their folders.
        labels, test_labels: files with sample_id and label, where a run has no labels of its own.
        finite_only: leave images with NaN or Inf out instead of refusing their run.

    Raises:
        SettingsError: other encoders or preprocessing, labels that are missing, NaN or Inf, no feature that
            is ever active, or a setting out of range.
        StoreError: a run is not complete, or has no embeddings.
    """
    train, test = run_pair(train, test)
    known = ClassLabels.of_run(train, labels)
    wanted = ClassLabels.of_run(test, test_labels, known.classes)
    found, asked = (FiniteRows.of(run, finite_only=finite_only) for run in (train, test))
    curve = compression_curve(
        found.rows,
        found.labels(known),
        asked.rows,
        asked.labels(wanted),
        train.features.counts.numpy(),
        shares=shares,
        num_seeds=num_seeds,
        C=C,
        device=device,
        progress=progress,
    )
    return replace(curve, notes=(*curve.notes, *found.notes, *asked.notes))


def compression_curve(
    train: FeatureRows,
    labels: ClassLabels,
    test: FeatureRows,
    test_labels: ClassLabels,
    counts: np.ndarray,
    *,
    shares: Sequence[float] = SHARES,
    strategies: Sequence[Strategy] = STRATEGIES,
    pca: bool = True,
    num_seeds: int = 4,
    C: float | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[str], None] = lambda _: None,
) -> CompressionCurve:
    """Accuracy of linear probes on every strategy's features at every share (the paper's Fig. 2).

    All probes that see raw features are trained together, and so are those on principal components; each is
    the optimum of the same objective, with one C, chosen on held-out training rows for all features.

    Args:
        train, test: (N, r) and (n, r) representations; labels, test_labels: of the same classes.
        counts: (r,) samples in which each feature is in L, by which features are ordered.
        pca: add the principal components of the training rows.
        num_seeds: subsets of ``random`` at each share.
        C: inverse regularisation, as in scikit-learn; None chooses it.
        progress: hears what is being done.

    Raises:
        SettingsError: one class only, a share outside 0 to 1, no feature that is ever active, or sizes that
            do not fit.
    """
    check_two_classes(labels)
    if train.num_features != test.num_features or len(counts) != train.num_features:
        raise SettingsError(
            f"r is {train.num_features} in training, {test.num_features} in the test and {len(counts)} in "
            "the census: give runs of one encoder"
        )
    if num_seeds < 1:
        raise SettingsError(f"num_seeds is {num_seeds}: give 1 or more")
    variances = column_variances(train) if "variance" in strategies else None
    subsets: dict[Key, np.ndarray] = {("all", 1.0, 0): np.arange(train.num_features)}
    for strategy in strategies:
        for share in shares:
            for seed in range(num_seeds if strategy == "random" else 1):
                subsets[strategy, share, seed] = kept_indices(
                    strategy, share, counts, variances=variances, seed=seed
                )
    if C is None:
        C = chosen_C(train, labels.targets, labels.num_classes, device=device)
        progress(f"C = {C:.3g}, chosen on a held-out tenth of the training images")
    progress(f"training {len(subsets)} probes on raw features together")
    answers = _correct(train, labels, test, test_labels, subsets, C, device)
    full, full_converged = answers.pop(("all", 1.0, 0))
    sizes = {key[:2]: len(found) for key, found in subsets.items() if key[0] != "all"}
    dead = {
        key[:2]: int((counts[found] == 0).sum())
        for key, found in subsets.items()
        if key[0] != "random"
    }
    if pca:
        axes = {(PCA, s, 0): np.arange(num_kept(train.num_features, s)) for s in shares}
        progress(f"training {len(axes)} probes on principal components together")
        with tempfile.TemporaryDirectory(prefix="qscore-pca-") as folder:
            mean, basis = principal_axes(train, device)
            sides = [
                turned(rows, mean, basis, Path(folder) / f"{number}.npy")
                for number, rows in enumerate((train, test))
            ]
            answers |= _correct(sides[0], labels, sides[1], test_labels, axes, C, device)
        sizes |= {key[:2]: len(found) for key, found in axes.items()}
    return CompressionCurve(
        float(full.mean()),
        train.num_features,
        len(train),
        len(test),
        labels.num_classes,
        points_of(
            [*strategies, *([PCA] if pca else [])],
            shares,
            sizes,
            {key: right for key, (right, _) in answers.items()},
            {key: ended for key, (_, ended) in answers.items()},
            dead,
        ),
        f"multinomial logistic regression, L-BFGS, C = {C:.4g}",
        full_converged,
        tuple(few_rows_notes(train)),
        {("all", 1.0, 0): full, **{key: right for key, (right, _) in answers.items()}},
    )


def _correct(
    train: FeatureRows,
    labels: ClassLabels,
    test: FeatureRows,
    test_labels: ClassLabels,
    subsets: dict[Key, np.ndarray],
    C: float,
    device: str | torch.device,
) -> dict[Key, tuple[np.ndarray, bool]]:
    """Which test rows each probe gets right, (n,) bool; and whether its optimiser ended at a minimum."""
    problem = SoftmaxProblem(train, labels.targets, labels.num_classes, device=device)
    fits = fit_logistic(problem, [C] * len(subsets), list(subsets.values()), tolerance=TOLERANCE)
    found: list[list[np.ndarray]] = [[] for _ in fits]
    start = 0
    for block in test.blocks(8192):
        h = as_tensor(block).to(device).float()
        wanted = torch.from_numpy(test_labels.targets[start : start + len(block)]).to(device)
        for own, fit in zip(found, fits, strict=True):
            own.append((fit.logits(h).argmax(1) == wanted).cpu().numpy())
        start += len(block)
    return {
        key: (np.concatenate(own), fit.converged)
        for key, own, fit in zip(subsets, found, fits, strict=True)
    }
