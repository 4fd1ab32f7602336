"""logistic_path: loss and accuracy of logistic regression along its regularisation."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qscore_fast.evaluation.logistic import LogisticFit, SoftmaxProblem, fit_logistic, grid_of_C
from qscore_fast.evaluation.probes.path_figure import save_path
from qscore_fast.evaluation.probes.probe_data import ProbeData
from qscore_fast.evaluation.run_pair import Run
from qscore_fast.scoring.atomic import made_folder, write_text

# Ridges of the mean loss, as parts of the features' mean variance: two a decade.
RIDGES = tuple(10.0 ** (-power / 2) for power in range(15))


@dataclass(frozen=True)
class PathPoint:
    """One value of C.

    Attributes:
        C: inverse regularisation.
        loss: ``0.5 ||W||^2 + C * sum of cross-entropies`` of the training images.
        cross_entropy: mean of the training images. test_cross_entropy: of the test images.
        top1, top5: of the test images, from 0 to 1.
        iterations: of L-BFGS from the solution before. converged: whether the gradient became small.
    """

    C: float
    loss: float
    cross_entropy: float
    test_cross_entropy: float
    top1: float
    top5: float
    iterations: int
    converged: bool


@dataclass(frozen=True)
class LogisticPath:
    """The curve.

    Attributes:
        points: by ascending C.
        num_train, num_test, num_classes: of the images. notes: what a user should know.
    """

    points: tuple[PathPoint, ...]
    num_train: int
    num_test: int
    num_classes: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a terminal."""
        head = (
            f"{'C':>11}{'train loss':>12}{'test loss':>11}{'top-1 %':>9}{'top-5 %':>9}{'steps':>7}"
        )
        rows = [
            f"{p.C:>11.4g}{p.cross_entropy:>12.4f}{p.test_cross_entropy:>11.4f}{100 * p.top1:>9.2f}"
            f"{100 * p.top5:>9.2f}{p.iterations:>7}{'' if p.converged else '  not converged'}"
            for p in self.points
        ]
        return [head, *rows, *(f"note: {note}" for note in self.notes)]

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write path.csv (a row a C), path.json and path.svg.

        Raises:
            StoreError: the folder cannot be made or written.
        """
        folder = made_folder(folder)
        paths = [folder / f"path.{kind}" for kind in ("csv", "json", "svg")]
        text = io.StringIO()
        writer = csv.DictWriter(text, [*asdict(self.points[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(point) for point in self.points)
        write_text(paths[0], text.getvalue())
        write_text(paths[1], json.dumps(self.to_json(), indent=1) + "\n")
        save_path(self.points, paths[2])
        return paths


def logistic_path(
    train: Run,
    test: Run,
    *,
    C: Sequence[float] | None = None,
    labels: str | os.PathLike[str] | None = None,
    test_labels: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    finite_only: bool = False,
) -> LogisticPath:
    """Fit logistic regression for many C, each from the solution for the next smaller one.

    All training images are used and the test images are asked at every C, so the curve's best value is no
    choice of C: what chooses is ``linear_probe``, on a held-out tenth.

    Args:
        train, test: finished runs with embeddings of one encoder, or their folders.
        C: inverse regularisations; by default fifteen, two a decade, on the scale of the rows' variance.
        labels, test_labels: files with sample_id and label, where a run has no labels of its own.
        finite_only: leave images with NaN or Inf out instead of refusing their run.

    Raises:
        SettingsError, StoreError: as for ``linear_probe``.
    """
    data = ProbeData.of_runs(train, test, labels, test_labels, finite_only=finite_only)
    problem = SoftmaxProblem(data.rows, data.targets, data.num_classes, device=device)
    if C is None:
        C = grid_of_C(problem, RIDGES)
    points: list[PathPoint] = []
    before: list[LogisticFit] | None = None
    for value in sorted(set(C)):
        before = fit_logistic(problem, [value], start=before)
        points.append(_point(before[0], problem.num_rows, data, device))
    return LogisticPath(
        tuple(points),
        problem.num_rows,
        len(data.test_targets),
        data.num_classes,
        (*data.notes, "test images are asked at every C: the best of this curve is no choice of C"),
    )


def _point(
    fit: LogisticFit, num_rows: int, data: ProbeData, device: str | torch.device
) -> PathPoint:
    logits = torch.from_numpy(data.test_logits(fit.logits, device))
    wanted = torch.from_numpy(data.test_targets)
    best = logits.topk(min(5, data.num_classes), dim=1).indices == wanted[:, None]
    penalty = 0.5 * float(fit.weight.square().sum())
    return PathPoint(
        C=fit.C,
        loss=fit.loss,
        cross_entropy=(fit.loss - penalty) / (fit.C * num_rows),
        test_cross_entropy=float(torch.nn.functional.cross_entropy(logits.double(), wanted)),
        top1=float(np.mean(best[:, 0].numpy())),
        top5=float(np.mean(best.any(1).numpy())),
        iterations=fit.iterations,
        converged=fit.converged,
    )
