"""Compression: fewer features, what they cost in accuracy, and the reduced representations as files."""

from qscore_fast.evaluation.compression.compress_run import CompressedRun, compress_run
from qscore_fast.evaluation.compression.curve import CompressionCurve, CurvePoint
from qscore_fast.evaluation.compression.kept_features import KeptFeatures
from qscore_fast.evaluation.compression.selection import (
    STRATEGIES,
    Strategy,
    kept_indices,
    num_kept,
)
from qscore_fast.evaluation.compression.subset_probes import (
    SHARES,
    compression_curve,
    compression_curve_of_runs,
)

__all__ = [
    "CompressedRun",
    "CompressionCurve",
    "CurvePoint",
    "KeptFeatures",
    "SHARES",
    "STRATEGIES",
    "Strategy",
    "compress_run",
    "compression_curve",
    "compression_curve_of_runs",
    "kept_indices",
    "num_kept",
]
