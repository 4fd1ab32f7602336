"""What a run's parts say about its features: how stable D is, their classes, their top images."""

from qscore_fast.evaluation.discovery.activation_figure import save_activation_figure
from qscore_fast.evaluation.discovery.activity import FeatureActivity, feature_activity
from qscore_fast.evaluation.discovery.report import DiscoveryReport, discovery_report

__all__ = [
    "DiscoveryReport",
    "FeatureActivity",
    "discovery_report",
    "feature_activity",
    "save_activation_figure",
]
