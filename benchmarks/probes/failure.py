"""Failure prediction: the bootstrap of all metrics, against resampling with scikit-learn's AUROC."""

from __future__ import annotations

from typing import Any

import numpy as np

from .turns import in_turns

RESAMPLES, PLAIN_RESAMPLES = 10_000, 50


def measure(samples: int, num_scores: int, rounds: int) -> dict[str, Any]:
    """``num_scores`` scores of ``samples`` images, every metric, 10,000 resamples; and the plain loop."""
    from sklearn.metrics import roc_auc_score

    from qscore_fast.evaluation.failure import evaluate
    from qscore_fast.evaluation.failure.metrics import default_metrics

    rng = np.random.default_rng(0)
    correct = rng.random(samples) < 0.7
    scores = {f"score {n}": rng.normal(size=samples) + 0.5 * correct for n in range(num_scores)}
    first = next(iter(scores.values()))

    def ours() -> Any:
        return evaluate(scores, correct, num_resamples=RESAMPLES)

    def plain() -> list[float]:
        generator = np.random.default_rng(0)
        drawn = (generator.integers(0, samples, samples) for _ in range(PLAIN_RESAMPLES))
        return [roc_auc_score(correct[rows], first[rows]) for rows in drawn]

    times = in_turns({"ours": ours, "scikit-learn": plain}, "cpu", rounds)
    metrics = len(default_metrics())
    # The table has a constant and a shuffled score, too.
    ours_each = times["ours"].median / (RESAMPLES * (num_scores + 2) * metrics)
    theirs_each = times["scikit-learn"].median / PLAIN_RESAMPLES
    return {
        "samples": samples,
        "scores": num_scores + 2,
        "metrics": metrics,
        "resamples": RESAMPLES,
        "seconds": times["ours"].to_json(),
        "microseconds_a_resample_score_and_metric": 1e6 * ours_each,
        "scikit_learn_auroc": {
            "resamples": PLAIN_RESAMPLES,
            "seconds": times["scikit-learn"].to_json(),
            "microseconds_a_resample": 1e6 * theirs_each,
        },
    }
