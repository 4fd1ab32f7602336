"""Dataset-level measures of representations: no labels, streamed, mergeable; see docs/measures.md."""

from qscore_fast.evaluation.measures.accumulators import (
    AlphaReQ,
    Anisotropy,
    CorrectedParticipationRatio,
    EffectiveRank,
    MomentMeasure,
    NESum,
    NormalisedStd,
    ParticipationRatio,
    PseudoCondition,
    RankMe,
    SelfClustering,
    SparsityL0,
    SparsityL1,
    StableRank,
)
from qscore_fast.evaluation.measures.alignment import Alignment
from qscore_fast.evaluation.measures.cluster_learnability import (
    clid_measures,
    cluster_learnability,
)
from qscore_fast.evaluation.measures.coherence import Coherence
from qscore_fast.evaluation.measures.directional import (
    normalised_std,
    self_clustering,
    sparsity_l0,
    sparsity_l1,
)
from qscore_fast.evaluation.measures.lidar import LiDAR
from qscore_fast.evaluation.measures.measure_report import MeasureReport
from qscore_fast.evaluation.measures.measure_run import measure_run
from qscore_fast.evaluation.measures.measured import Measured
from qscore_fast.evaluation.measures.moments import RepresentationMoments
from qscore_fast.evaluation.measures.row_sample import RowSample
from qscore_fast.evaluation.measures.spectral import (
    alpha_req,
    anisotropy,
    effective_rank,
    nesum,
    participation_ratio,
    participation_ratio_corrected,
    power_law_exponent,
    pseudo_condition,
    rank_me,
    stable_rank,
)
from qscore_fast.evaluation.measures.two_nn import two_nn
from qscore_fast.evaluation.measures.uniformity import Uniformity, uniformity

__all__ = [
    "Alignment",
    "AlphaReQ",
    "Anisotropy",
    "Coherence",
    "CorrectedParticipationRatio",
    "EffectiveRank",
    "LiDAR",
    "MeasureReport",
    "Measured",
    "MomentMeasure",
    "NESum",
    "NormalisedStd",
    "ParticipationRatio",
    "PseudoCondition",
    "RankMe",
    "RepresentationMoments",
    "RowSample",
    "SelfClustering",
    "SparsityL0",
    "SparsityL1",
    "StableRank",
    "Uniformity",
    "alpha_req",
    "anisotropy",
    "clid_measures",
    "cluster_learnability",
    "effective_rank",
    "measure_run",
    "nesum",
    "normalised_std",
    "participation_ratio",
    "participation_ratio_corrected",
    "power_law_exponent",
    "pseudo_condition",
    "rank_me",
    "self_clustering",
    "sparsity_l0",
    "sparsity_l1",
    "stable_rank",
    "two_nn",
    "uniformity",
]
