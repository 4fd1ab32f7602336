"""Logistic regression against scikit-learn's: the same problem, its loss and accuracy, and the time."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.logistic import LogisticFit, SoftmaxProblem, fit_logistic

from .features import Problem
from .turns import in_turns

# Ridge of the mean loss, as a part of the features' mean variance: the middle of the grid of C.
RIDGE = 1e-3
TOLERANCES = (1e-4, 1e-5, 1e-6)  # of scikit-learn; the first is its default


def measure(problem: Problem, device: str, rounds: int) -> dict[str, Any]:
    """Both from the same float16 rows in memory to a finished probe."""
    from sklearn.linear_model import LogisticRegression

    rows = FeatureRows.of(problem.x)
    variance = float(problem.x[:: max(1, len(problem.x) // 4096)].astype(np.float64).var(0).mean())
    C = 1 / (RIDGE * variance * len(problem.x))

    def ours() -> LogisticFit:
        made = SoftmaxProblem(rows, problem.y, problem.num_classes, device=device)
        return fit_logistic(made, [C])[0]

    def theirs(tolerance: float) -> Any:
        # float32 is the faster dtype of its solver; 1,000 iterations so that it converges.
        model = LogisticRegression(C=C, tol=tolerance, max_iter=1000)
        return model.fit(problem.x.astype(np.float32), problem.y)

    # The first use of a GPU's libraries is no part of a probe.
    warm = SoftmaxProblem(
        FeatureRows.of(problem.x[:4096]), problem.y[:4096], problem.num_classes, device=device
    )
    fit_logistic(warm, [C], max_iterations=3)
    rivals = {f"scikit-learn, tol {tolerance:g}": tolerance for tolerance in TOLERANCES}
    calls = {name: partial(theirs, tolerance) for name, tolerance in rivals.items()}
    times = in_turns({"ours": ours, **calls}, device, rounds)
    fit = times["ours"].result
    weight, bias = fit.weight.cpu().numpy(), fit.bias.cpu().numpy()
    found = {"ours": _quality(problem, C, weight, bias, fit.iterations)}
    for name in rivals:
        model = times[name].result
        iterations = int(np.max(model.n_iter_))
        found[name] = _quality(problem, C, model.coef_, model.intercept_, iterations)
    for name, timed in times.items():
        found[name]["seconds"] = timed.to_json()
    # Against the one with the loosest tolerance whose loss is ours, to 1e-4; of none, the tightest.
    same = [n for n in rivals if found[n]["loss"] <= (1 + 1e-4) * found["ours"]["loss"]]
    rival = (same or list(rivals))[0 if same else -1]
    return {
        **problem.describe(),
        "C": C,
        "contenders": found,
        "against": rival,
        "loss_of_ours_above": found["ours"]["loss"] / found[rival]["loss"] - 1,
        "accuracy_of_ours_above": found["ours"]["accuracy"] - found[rival]["accuracy"],
        "times_faster": times[rival].median / times["ours"].median,
    }


def _quality(
    problem: Problem, C: float, weight: np.ndarray, bias: np.ndarray, iterations: int
) -> dict[str, Any]:
    """The objective of scikit-learn's documentation in float64, and the test accuracy."""
    total = 0.5 * float((weight.astype(np.float64) ** 2).sum())
    w, b = torch.from_numpy(weight).double(), torch.from_numpy(bias).double()
    for start in range(0, len(problem.x), 8192):
        x = torch.from_numpy(problem.x[start : start + 8192]).double()
        y = torch.from_numpy(problem.y[start : start + 8192])
        total += C * float(torch.nn.functional.cross_entropy(x @ w.T + b, y, reduction="sum"))
    logits = torch.from_numpy(problem.test_x).double() @ w.T + b
    right = logits.argmax(1).numpy() == problem.test_y
    return {"loss": total, "accuracy": float(right.mean()), "iterations": int(iterations)}
