"""L-BFGS as a generator: it asks for the loss and gradient at a point, and is sent them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MEMORY = 12
PLACES = MEMORY + 1
ARMIJO = 1e-4
SHORTEST_STEP = 1e-8


@dataclass(frozen=True)
class Minimum:
    """Where it ended.

    Attributes:
        point: (n,) float64.
        loss: there.
        iterations: steps taken. evaluations: of loss and gradient.
        converged: whether the gradient became small enough, rather than the steps used up.
    """

    point: Tensor
    loss: float
    iterations: int
    evaluations: int
    converged: bool


Ask = Generator[Tensor, tuple[float, Tensor], Minimum]


def lbfgs(start: Tensor, tolerance: float, max_iterations: int) -> Ask:
    """Minimise a smooth convex function whose Hessian is near the identity (Nocedal and Wright, ch. 7).

    Yields points (n,) float64; is sent (loss, gradient (n,)) of each; returns the :class:`Minimum`.

    Args:
        start: (n,).
        tolerance: stop where ``||gradient||^2 <= tolerance * |loss|``. For a Hessian of the identity, half
            of the left side is how far the loss is above the minimum.
        max_iterations: steps at most.
    """
    x = start
    loss, gradient = yield x
    evaluations, iterations = 1, 0
    pairs = _Pairs(start)
    while True:
        direction, slope, squared = pairs.direction(gradient)
        if squared <= tolerance * abs(loss):
            return Minimum(x, loss, iterations, evaluations, True)
        if iterations == max_iterations:
            return Minimum(x, loss, iterations, evaluations, False)
        step = 1.0
        while True:
            candidate = x + step * direction
            new_loss, new_gradient = yield candidate
            evaluations += 1
            # The second: near the minimum the loss is rounding, the slope is not.
            if new_loss <= loss + ARMIJO * step * slope or (
                new_loss <= loss + 1e-7 * abs(loss)
                and abs(float(new_gradient @ direction)) <= abs(slope)
            ):
                break
            # The minimum of the parabola through both losses and the slope, kept off its ends.
            step = float(
                min(
                    max(-slope * step**2 / (2 * (new_loss - loss - slope * step)), 0.1 * step),
                    0.5 * step,
                )
            )
            if step < SHORTEST_STEP:
                return Minimum(x, loss, iterations, evaluations, False)
        pairs.add(candidate - x, new_gradient - gradient)
        x, loss, gradient = candidate, new_loss, new_gradient
        iterations += 1


class _Pairs:
    """The last ``MEMORY`` pairs (a step, and the gradient's change over it), and the direction they give.

    The products between vectors are made together and fetched at once; what the two loops of L-BFGS do
    happens to coefficients, on the host (Chen, Wang and Zhou, NeurIPS 2014). A GPU is waited for once an
    iteration; loops over the vectors would wait thirty times.

    Args:
        like: (n,), of whose dtype and device the vectors are.
    """

    def __init__(self, like: Tensor) -> None:
        # Steps, then changes, then the gradient; one place for a pair that may not be kept.
        self._rows = like.new_zeros(2 * PLACES + 1, len(like))
        self._products = np.zeros((2 * PLACES + 1, 2 * PLACES + 1))
        self._order: list[int] = []  # the places of the pairs, oldest first

    def add(self, step: Tensor, change: Tensor) -> None:
        """Offer a pair."""
        place = min(set(range(PLACES)) - set(self._order))
        self._rows[place] = step
        self._rows[PLACES + place] = change
        self._order.append(place)

    def direction(self, gradient: Tensor) -> tuple[Tensor, float, float]:
        """(n,) downhill from a point with this gradient, the slope along it, and the gradient's square."""
        self._rows[-1] = gradient
        # Of the newest step only the products with these two are ever asked for.
        new = [-1] + ([PLACES + self._order[-1]] if self._order else [])
        found = torch.stack([self._rows @ self._rows[row] for row in new], 1).cpu().numpy()
        self._products[:, new] = found
        self._products[new] = found.T
        squared = float(self._products[-1, -1])
        self._keep_or_drop()
        factors = self._factors()
        slope = float(factors @ self._products[-1])
        if slope >= 0:  # rounding spoilt the pairs
            self._order.clear()
            return -gradient, -squared, squared
        return self._rows.T @ torch.from_numpy(factors).to(gradient), slope, squared

    def _keep_or_drop(self) -> None:
        """Drop the newest pair if the gradient hardly changed, and the oldest beyond ``MEMORY``."""
        if self._order:
            step, change = self._order[-1], PLACES + self._order[-1]
            if not self._products[step, change] > 1e-12 * self._products[change, change]:
                self._order.pop()
        del self._order[:-MEMORY]

    def _factors(self) -> np.ndarray:
        """The direction as a combination of the rows: minus the inverse Hessian times the gradient."""
        factors = np.zeros(len(self._products))
        factors[-1] = -1.0
        alphas = {}
        for step in reversed(self._order):
            change = PLACES + step
            alphas[step] = factors @ self._products[step] / self._products[step, change]
            factors[change] -= alphas[step]
        if self._order:
            step, change = self._order[-1], PLACES + self._order[-1]
            factors *= self._products[step, change] / self._products[change, change]
        for step in self._order:
            change = PLACES + step
            beta = factors @ self._products[change] / self._products[step, change]
            factors[step] += alphas[step] - beta
        return factors
