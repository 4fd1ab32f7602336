"""Multinomial logistic regression on cached features: preconditioned L-BFGS, many probes in one read."""

from qscore_fast.evaluation.logistic.choice import chosen_C, grid_of_C
from qscore_fast.evaluation.logistic.fit import LogisticFit, fit_logistic
from qscore_fast.evaluation.logistic.softmax_problem import SoftmaxProblem

__all__ = [
    "LogisticFit",
    "SoftmaxProblem",
    "chosen_C",
    "fit_logistic",
    "grid_of_C",
]
