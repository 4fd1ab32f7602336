"""Confidence scores of a probe: they use labels, so they bound what a label-free score can reach."""

from __future__ import annotations

import torch
from torch import Tensor

from qscore_fast.errors import SettingsError


def probe_scores(logits: Tensor, temperature: float = 1.0) -> dict[str, Tensor]:
    """Every score of :data:`RIVALS` that needs logits; higher means more trusted.

    Args:
        logits: (n, C) floating point, finite, C >= 2 classes.
        temperature: of the energy alone.

    Returns:
        msp, margin, max_logit, energy (T logsumexp(f / T)), entropy (negated): (n,) float32, float64 for
        float64 logits.

    Raises:
        SettingsError: another shape, a number that is not finite, or a temperature that is not positive.
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
        raise SettingsError(
            f"logits are {logits.dtype} of shape {tuple(logits.shape)}: give floating point (samples, "
            "classes) with two classes or more"
        )
    if not temperature > 0:
        raise SettingsError(f"temperature = {temperature:g}: give a positive number")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    bad = (~logits.isfinite()).any(-1).nonzero()
    if len(bad):
        raise SettingsError(
            f"logits hold NaN or infinity in {len(bad):,} rows, the first is row {int(bad[0])}: leave these "
            "samples out"
        )
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    top = p.topk(2).values
    return {
        "msp": top[:, 0],
        "margin": top[:, 0] - top[:, 1],
        "max_logit": logits.amax(-1),
        "energy": temperature * (logits / temperature).logsumexp(-1),
        "entropy": torch.xlogy(p, p).sum(-1),
    }
