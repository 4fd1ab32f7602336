"""measures_of_norms: what the norms in a run's scores say, where it kept no embeddings."""

from __future__ import annotations

import numpy as np

from qscore_fast.evaluation.measures.measure_report import MeasureReport
from qscore_fast.evaluation.measures.measured import Measured
from qscore_fast.scoring import ScoreRun

NEED_EMBEDDINGS = (
    "rankme", "effective_rank", "alpha_req", "nesum", "stable_rank", "participation_ratio",
    "participation_ratio_corrected", "anisotropy", "pseudo_condition", "coherence", "self_clustering",
    "uniformity", "normalised_std", "sparsity_l0",
)  # fmt: skip


def measures_of_norms(run: ScoreRun) -> MeasureReport:
    """``sparsity_l1`` from L1 and L2 of every scored image; all other measures undefined, with the reason.

    Raises:
        StoreError: a damaged run.
    """
    table, r = run.scores(), run.features.num_features
    l1, l2 = (table[name].to_numpy().astype(np.float64) for name in ("l1", "l2"))
    nonzero = l2 > 0
    missing = Measured.undefined("it takes embeddings, which the run did not keep")
    measures = dict.fromkeys(NEED_EMBEDDINGS, missing)
    if nonzero.any():
        ratio = np.square(l1[nonzero] / l2[nonzero]).mean() / r
        measures["sparsity_l1"] = Measured.of(ratio, rows=int(nonzero.sum()))
    else:
        measures["sparsity_l1"] = Measured.undefined(
            "every row is zero" if len(l2) else "there are no samples"
        )
    notes = [
        f"the run in {run.path} kept no embeddings: sparsity_l1 is made from the norms in scores.parquet, "
        "all else needs them (qscore score --embeddings npy)"
    ]
    return MeasureReport(
        num_samples=len(l2),
        num_features=r,
        num_zero=int((~nonzero).sum()),
        num_invalid=0,
        measures=measures,
        passes=0,
        notes=notes,
    )
