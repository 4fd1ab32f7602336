"""Probes on runs: linear ones and nearest neighbours, trained on one run and asked about another."""

from qscore_fast.evaluation.probes.graph_file import check_graph, save_graph
from qscore_fast.evaluation.probes.knn_probe import KNNProbe, knn_probe
from qscore_fast.evaluation.probes.linear_probe import LinearProbe, linear_probe
from qscore_fast.evaluation.probes.logistic_path import LogisticPath, PathPoint, logistic_path

__all__ = [
    "KNNProbe",
    "LinearProbe",
    "LogisticPath",
    "PathPoint",
    "check_graph",
    "knn_probe",
    "linear_probe",
    "logistic_path",
    "save_graph",
]
