"""Dataset-level measures: all that follow from streamed moments, against one SVD of the whole matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .features import Problem
from .turns import in_turns

BLOCK = 8192


def measure(problem: Problem, device: str, rounds: int) -> dict[str, Any]:
    """Moments of all rows, then five spectral measures; and RankMe by ``svdvals`` in float64."""
    from qscore_fast.evaluation.measures import (
        RepresentationMoments,
        alpha_req,
        effective_rank,
        nesum,
        participation_ratio,
        rank_me,
    )

    functions = (rank_me, alpha_req, effective_rank, nesum, participation_ratio)

    def ours() -> dict[str, float]:
        moments = RepresentationMoments(problem.x.shape[1], device=device)
        for start in range(0, len(problem.x), BLOCK):
            moments.update(torch.from_numpy(problem.x[start : start + BLOCK]))
        return {function.__name__: function(moments).value for function in functions}

    def whole() -> float:
        h = torch.from_numpy(problem.x).to(device).double()
        values = torch.linalg.svdvals(h)
        p = values[values > 0] / values.sum()
        return float(torch.exp(-(p * p.log()).sum()))

    ours()
    times = in_turns({"ours": ours, "svd": whole}, device, rounds)
    return {
        **problem.describe(),
        "seconds": {name: timed.to_json() for name, timed in times.items()},
        "values": times["ours"].result,
        "rank_me_by_svd": times["svd"].result,
        "relative_difference": float(
            np.abs(times["ours"].result["rank_me"] / times["svd"].result - 1)
        ),
        "times_faster": times["svd"].median / times["ours"].median,
    }
