"""Multinomial logistic regression on cached features: preconditioned L-BFGS, many probes in one read."""

from qscore_fast.evaluation.logistic.choice import C_of_ridge, chosen_C, grid_of_C, ridge_of
from qscore_fast.evaluation.logistic.fit import LogisticFit, fit_logistic
from qscore_fast.evaluation.logistic.softmax_problem import SoftmaxProblem

__all__ = [
    "C_of_ridge",
    "LogisticFit",
    "SoftmaxProblem",
    "chosen_C",
    "fit_logistic",
    "grid_of_C",
    "ridge_of",
]
