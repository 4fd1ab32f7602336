"""fit_logistic: multinomial logistic regression by preconditioned L-BFGS, one probe or many at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.logistic.lbfgs import MEMORY, Ask, Minimum, lbfgs
from qscore_fast.evaluation.logistic.softmax_problem import SoftmaxProblem

TOLERANCE = 1e-6
MAX_ITERATIONS = 500
STATE_BYTES = 4 << 30
ROUNDING = 1e-5  # of float32 products summed over rows, beside the variances
MOST_LIFTS = 3


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """A trained probe: logits are ``h[:, columns] @ weight.T + bias``.

    Attributes:
        weight: (C, k) float64. bias: (C,) float64.
        columns: (k,) int64, the features that it sees.
        C: inverse regularisation.
        loss: ``0.5 ||weight||^2 + C * sum of cross-entropies``, as scikit-learn counts.
        iterations: of L-BFGS. converged: whether its gradient became small.
    """

    weight: Tensor
    bias: Tensor
    columns: np.ndarray
    C: float
    loss: float
    iterations: int
    converged: bool

    def to_json(self) -> dict[str, Any]:
        """How it was trained, in plain values."""
        return {
            "protocol": "logistic",
            "C": self.C,
            "loss": self.loss,
            "iterations": self.iterations,
            "converged": self.converged,
        }

    def line(self) -> str:
        """For a terminal."""
        end = "" if self.converged else ", not converged"
        return f"logistic regression, C = {self.C:.4g}, {self.iterations} iterations{end}"

    def logits(self, h: Tensor) -> Tensor:
        """(n, C) float32 for rows (n, r)."""
        if len(self.columns) < h.shape[1]:
            h = h[:, torch.from_numpy(self.columns).to(h.device)]
        h = h.to(self.weight.device).float()
        return torch.addmm(self.bias.float(), h, self.weight.float().T)


def fit_logistic(
    problem: SoftmaxProblem,
    C: Sequence[float],
    subsets: Sequence[np.ndarray] | None = None,
    *,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
    start: Sequence[LogisticFit] | None = None,
) -> list[LogisticFit]:
    """Fit ``len(C)`` probes on the same rows, each with its own C and features, in one reading.

    Minimises ``0.5 ||W||^2 + C * sum of cross-entropies`` with a free bias, the objective of scikit-learn's
    LogisticRegression. The variables are turned by the Cholesky factor of ``covariance / classes + ridge``,
    which is the Hessian where all classes are equally likely; so few steps are needed however unequal the
    features' scales are, and a step of 1 nearly always does.

    Args:
        C: inverse regularisation of each probe, above 0.
        subsets: the features of each, int64 ascending; all for None.
        tolerance: of the squared gradient in the turned variables, against the loss.
        start: fits of the same features to start from, such as those of a smaller C.

    Raises:
        SettingsError: C not above 0, or features that are not there.
    """
    wrong = [value for value in C if not (value > 0 and math.isfinite(value))]
    if wrong or not C:
        raise SettingsError(f"C is {wrong[0] if wrong else 'missing'}: give finite numbers above 0")
    everything = np.arange(problem.num_features)
    chosen = [everything] * len(C) if subsets is None else list(subsets)
    if len(chosen) != len(C):
        raise SettingsError(f"{len(chosen)} subsets and {len(C)} values of C: give one for each")
    state = 8 * problem.num_features * problem.num_classes * (2 * MEMORY + 9)
    together = max(1, STATE_BYTES // state)
    fits: list[LogisticFit] = []
    for first in range(0, len(C), together):
        part = slice(first, first + together)
        begun = start[part] if start is not None else None
        fits += _fit_together(problem, C[part], chosen[part], tolerance, max_iterations, begun)
    return fits


class _Probe:
    """One probe in training: where it is, and the axes in which its optimiser sees it."""

    def __init__(
        self, problem: SoftmaxProblem, C: float, columns: np.ndarray, start: LogisticFit | None
    ) -> None:
        r = problem.num_features
        if columns.ndim != 1 or not len(columns) or not 0 <= columns.min() <= columns.max() < r:
            raise SettingsError(f"a subset holds no feature, or one outside 0 to {r - 1}")
        self.C, self.chosen, self.shape = C, columns, (problem.num_classes, len(columns))
        self.columns = torch.from_numpy(np.asarray(columns, np.int64)).to(problem.device)
        self.ridge = 1 / (C * problem.num_rows)
        mean = problem.mean[self.columns]
        if start is None:
            self.weight = mean.new_zeros(self.shape)
            self.bias = mean.new_zeros(problem.num_classes)
        else:
            self.weight = start.weight.to(mean)
            self.bias = start.bias.to(mean) + self.weight @ mean

    def begin(self, curvature: Tensor, tolerance: float, max_iterations: int) -> None:
        """Turn the axes by a curvature (r, r) and start an optimiser where the probe is."""
        block = curvature[self.columns][:, self.columns]
        # Features that never change have no curvature but the ridge's, which may be below rounding.
        floor = max(self.ridge, 1e-9 * float(block.diagonal().mean()), 1e-300)
        # The covariance is exact to float32: what is smaller beside a feature's own variance is noise.
        lower = _cholesky(block, floor + ROUNDING * block.diagonal())
        # Any turn is as good as another, if points and gradients see the same one: products with an inverse
        # that was rounded once are several times faster than solving twice a step.
        identity = torch.eye(len(block), dtype=block.dtype, device=block.device)
        self.turn = torch.linalg.solve_triangular(lower, identity, upper=False).float()
        self.scale = math.sqrt(self.shape[0])
        point = torch.cat([(self.weight @ lower).reshape(-1), self.bias / self.scale])
        self.ask: Ask = lbfgs(point, tolerance, max_iterations)
        self.move(next(self.ask))

    def move(self, point: Tensor) -> None:
        """To a point of the optimiser."""
        turned = point[: -self.shape[0]].view(self.shape)
        self.weight = (turned.float() @ self.turn).double()
        self.bias = point[-self.shape[0] :] * self.scale

    def full_weight(self, num_features: int) -> Tensor:
        """(C, r), zero outside the columns."""
        full = self.weight.new_zeros(self.shape[0], num_features)
        full[:, self.columns] = self.weight
        return full

    def penalty(self) -> Tensor:
        """What the ridge adds to the mean loss."""
        return 0.5 * self.ridge * self.weight.square().sum()

    def answer(self, loss: float, gradient: Tensor, bias_gradient: Tensor) -> Minimum | None:
        """Tell the optimiser the loss with its penalty, and gradients without; the minimum, if it ends."""
        gradient = gradient[:, self.columns] + self.ridge * self.weight
        turned = (gradient.float() @ self.turn.mT).double().reshape(-1)
        sent = torch.cat([turned, bias_gradient * self.scale])
        try:
            self.move(self.ask.send((loss, sent)))
        except StopIteration as stop:
            self.move(stop.value.point)
            return stop.value
        return None


def _cholesky(matrix: Tensor, lift: Tensor) -> Tensor:
    """Lower factor of matrix + diag(lift); where rounding left that indefinite, of more lift."""
    for _ in range(MOST_LIFTS):
        lower, failed = torch.linalg.cholesky_ex(matrix + torch.diag(lift))
        if not int(failed):
            return lower
        lift = 10 * lift
    raise SettingsError(
        "the covariance of the representations is no positive matrix, even with a hundred times its rounding "
        "added: they are too large for float32; scale them down"
    )


def _fit_together(
    problem: SoftmaxProblem,
    C: Sequence[float],
    subsets: Sequence[np.ndarray],
    tolerance: float,
    max_iterations: int,
    start: Sequence[LogisticFit] | None,
) -> list[LogisticFit]:
    begun = [None] * len(C) if start is None else list(start)
    probes = [_Probe(problem, *each) for each in zip(C, subsets, begun, strict=True)]
    for probe in probes:
        probe.begin(problem.covariance / problem.num_classes, tolerance, max_iterations)
    minima: dict[int, Minimum] = {}
    while active := [k for k in range(len(probes)) if k not in minima]:
        weights = [probes[k].full_weight(problem.num_features) for k in active]
        # The rows are read once for all that still run.
        losses, *gradients = problem.evaluate(weights, [probes[k].bias for k in active])
        losses = losses + torch.stack([probes[k].penalty() for k in active])
        for k, loss, *of_probe in zip(active, losses.tolist(), *gradients, strict=True):
            found = probes[k].answer(loss, *of_probe)
            if found is not None:
                minima[k] = found
    return [
        LogisticFit(
            probe.weight,
            probe.bias - probe.weight @ problem.mean[probe.columns],
            probe.chosen,
            probe.C,
            minima[k].loss * probe.C * problem.num_rows,
            minima[k].iterations,
            minima[k].converged,
        )
        for k, probe in enumerate(probes)
    ]
