"""Failure prediction: is a score high where a probe is right? Metrics, intervals, and the score's rivals."""

from qscore_fast.evaluation.failure.correctness import Correctness
from qscore_fast.evaluation.failure.failure_table import Estimate, FailureTable
from qscore_fast.evaluation.failure.fitted_probe import FittedProbe, fitted_probe
from qscore_fast.evaluation.failure.gaussian import Gaussian
from qscore_fast.evaluation.failure.metrics import (
    Metric,
    augrc,
    auprc_error,
    auprc_success,
    aurc,
    auroc,
    coverage_at_risk,
    default_metrics,
    e_aurc,
    fpr_at_tpr,
    selective_accuracy,
)
from qscore_fast.evaluation.failure.neighbours import neighbour_scores
from qscore_fast.evaluation.failure.paper_table import paper_table
from qscore_fast.evaluation.failure.probe_scores import probe_scores
from qscore_fast.evaluation.failure.ranking import Ranking
from qscore_fast.evaluation.failure.resampling import Interval, bootstrap, percentile_interval
from qscore_fast.evaluation.failure.risk_coverage_curve import (
    RiskCoverageCurve,
    risk_coverage_curve,
)
from qscore_fast.evaluation.failure.rivals import RIVALS, Rival
from qscore_fast.evaluation.failure.row_scores import row_scores
from qscore_fast.evaluation.failure.run_evaluation import RunEvaluation, evaluate_run
from qscore_fast.evaluation.failure.run_scores import RivalSettings, RunScores, scores_of_run
from qscore_fast.evaluation.failure.score_evaluation import evaluate
from qscore_fast.evaluation.failure.undefined import UndefinedMetricError
from qscore_fast.evaluation.failure.view_consistency import consistency

__all__ = [
    "evaluate",
    "evaluate_run",
    "FailureTable",
    "Estimate",
    "FittedProbe",
    "fitted_probe",
    "RunEvaluation",
    "paper_table",
    "Metric",
    "default_metrics",
    "auroc",
    "auprc_success",
    "auprc_error",
    "fpr_at_tpr",
    "aurc",
    "e_aurc",
    "augrc",
    "selective_accuracy",
    "coverage_at_risk",
    "Ranking",
    "RiskCoverageCurve",
    "risk_coverage_curve",
    "UndefinedMetricError",
    "bootstrap",
    "percentile_interval",
    "Interval",
    "RIVALS",
    "Rival",
    "RivalSettings",
    "RunScores",
    "scores_of_run",
    "row_scores",
    "neighbour_scores",
    "Gaussian",
    "consistency",
    "probe_scores",
    "Correctness",
]
