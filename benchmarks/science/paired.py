"""Paired comparisons along the compression curve: what the same test images say of two sets of features."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qscore_fast.evaluation.compression import CompressionCurve
from qscore_fast.evaluation.compression.curve import Z95

OWN = "discriminative"
ALL = ("all", 1.0, 0)


def paired_comparisons(curve: CompressionCurve) -> dict[str, Any]:
    """What the claims about compression are judged by; accuracies from 0 to 1.

    Every interval is a 95 % normal one of a mean over the test images, of what both probes make of the same
    image; for these subsets and this training set.

    Returns:
        ``loss``: by share (as text) all features less the discriminative ones. ``less``: by strategy the
        discriminative ones less it: ``by_share``, and ``mean`` over all shares. Each a list: difference, low,
        high.
    """
    right = {}
    for strategy, share in dict.fromkeys(key[:2] for key in curve.right):
        seeds = [found for key, found in curve.right.items() if key[:2] == (strategy, share)]
        right[strategy, share] = np.mean(seeds, axis=0)
    everything = curve.right[ALL].astype(np.float64)
    shares = sorted({share for name, share in right if name == OWN}, reverse=True)
    others = dict.fromkeys(name for name, _ in right if name not in (OWN, ALL[0]))
    less = {}
    for name in others:
        each = {share: right[OWN, share] - right[name, share] for share in shares}
        less[name] = {
            "by_share": {f"{share:g}": interval(each[share]) for share in shares},
            "mean": interval(np.mean(list(each.values()), axis=0)),
        }
    loss = {f"{share:g}": interval(everything - right[OWN, share]) for share in shares}
    return {"loss": loss, "less": less}


def interval(values: np.ndarray) -> list[float]:
    """Mean, and the 95 % normal interval of it: [mean, low, high]."""
    mean = float(values.mean())
    half = Z95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return [mean, mean - half, mean + half]
