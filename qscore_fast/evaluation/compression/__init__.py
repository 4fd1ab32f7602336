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

__all__ = [
    "CompressedRun",
    "CompressionCurve",
    "CurvePoint",
    "KeptFeatures",
    "STRATEGIES",
    "Strategy",
    "compress_run",
    "kept_indices",
    "num_kept",
]
