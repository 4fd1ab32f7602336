"""Choosing C on rows that were held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.logistic.fit import fit_logistic
from qscore_fast.evaluation.logistic.softmax_problem import SoftmaxProblem

HELD_OUT = 0.1
MOST_ROWS = 100_000
# Ridge of the mean loss, as a part of the features' mean variance.
RIDGES = tuple(10.0**power for power in range(0, -8, -1))


def grid_of_C(problem: SoftmaxProblem, ridges: Sequence[float] = RIDGES) -> list[float]:
    """Values of C on the scale of the rows' own variance; eight, ascending, ten times apart.

    Args:
        ridges: of the mean loss, as parts of the mean variance; one for each C.

    Raises:
        SettingsError: all rows are equal.
    """
    variance = float(problem.covariance.diagonal().mean())
    if not variance > 0:
        raise SettingsError("all representations are equal: no probe can tell classes by them")
    return [1 / (ridge * variance * problem.num_rows) for ridge in ridges]


def chosen_C(
    rows: FeatureRows,
    targets: np.ndarray,
    num_classes: int,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> float:
    """The C of the grid with the best accuracy on a held-out tenth of the rows; the smallest of equal ones.

    Of more than 100,000 rows a sample is taken: C weighs the sum of the losses, so that its best value
    hardly depends on how many rows there are.

    Args:
        rows: (N, r). targets: (N,) int64. seed: of the sample and the split.

    Raises:
        SettingsError: fewer than two rows, or what :class:`SoftmaxProblem` refuses.
    """
    if len(rows) < 2:
        raise SettingsError(f"{len(rows)} representation: give two or more to choose C by")
    order = np.random.default_rng(seed).permutation(len(rows))[:MOST_ROWS]
    count = max(1, round(HELD_OUT * len(order)))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    training = FeatureRows((rows.gather(kept),))
    problem = SoftmaxProblem(training, targets[kept], num_classes, device=device)
    values = grid_of_C(problem)
    fits = fit_logistic(problem, values, tolerance=1e-5)
    h = torch.from_numpy(rows.gather(held)).to(device).float()
    wanted = torch.from_numpy(targets[held]).to(device)
    right = torch.stack([(fit.logits(h).argmax(1) == wanted).sum() for fit in fits])
    return values[int(np.argmax(right.cpu().numpy()))]


def ridge_of(C: float, rows: FeatureRows) -> float:
    """The ridge of the mean loss that C is, as a part of the mean variance of rows (N, r): see ``RIDGES``.

    It means the same for the features of another encoder, however large they are; C does not.
    """
    return 1 / (C * _mean_variance(rows) * len(rows))


def C_of_ridge(ridge: float, rows: FeatureRows) -> float:
    """The C of such a ridge for rows (N, r).

    Raises:
        SettingsError: all rows are equal.
    """
    return 1 / (ridge * _mean_variance(rows) * len(rows))


def _mean_variance(rows: FeatureRows) -> float:
    count = len(rows)
    mean = sum(block.sum(0, dtype=np.float64) for block in rows.blocks(8192)) / count
    squares = sum(float(((block - mean) ** 2).sum()) for block in rows.blocks(8192))
    variance = squares / (count * len(mean))
    if not variance > 0:
        raise SettingsError("all representations are equal: no probe can tell classes by them")
    return variance
