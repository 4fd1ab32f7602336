"""L-BFGS as a generator: it asks for the loss and gradient at a point, and is sent them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor

MEMORY = 12
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
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=MEMORY)
    while True:
        if float(gradient @ gradient) <= tolerance * abs(loss):
            return Minimum(x, loss, iterations, evaluations, True)
        if iterations == max_iterations:
            return Minimum(x, loss, iterations, evaluations, False)
        direction = -_inverse_hessian_times(gradient, pairs)
        slope = float(direction @ gradient)
        if slope >= 0:  # rounding spoilt the pairs
            pairs.clear()
            direction, slope = -gradient, -float(gradient @ gradient)
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
        moved, turned = candidate - x, new_gradient - gradient
        curvature = float(moved @ turned)
        if curvature > 1e-12 * float(turned @ turned):
            pairs.append((moved, turned, curvature))
        x, loss, gradient = candidate, new_loss, new_gradient
        iterations += 1


def _inverse_hessian_times(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    result = gradient.clone()
    factors = []
    for moved, turned, curvature in reversed(pairs):
        factor = float(moved @ result) / curvature
        factors.append(factor)
        result.sub_(turned, alpha=factor)
    if pairs:
        _, turned, curvature = pairs[-1]
        result *= curvature / float(turned @ turned)
    for (moved, turned, curvature), factor in zip(pairs, reversed(factors), strict=True):
        result.add_(moved, alpha=factor - float(turned @ result) / curvature)
    return result
