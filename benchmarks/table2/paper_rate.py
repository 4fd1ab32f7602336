"""How far a training moves the weights at the paper's own rate, and at the experiment's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

import qscore_fast as qf
from qscore_fast.encoders import Encoder
from qscore_fast.finetuning import Settings, finetune, open_run
from qscore_fast.images import Source


def moved_at_both_rates(
    encoder: Encoder, images: Source, settings: Settings, work: Path, device: str
) -> dict[str, float]:
    """Relative change of the backbone's weights by Q-Score arms: ``paper`` and ``here``.

    Args:
        settings: of the experiment; the same training is done at the paper's rate and with its optimiser.
        work: the folder of the system, where its arms are.
    """
    features = qf.DiscriminativeFeatures.load(work / "discovery" / "features.npz")
    seed = min(
        int(path.name.rpartition("seed")[2]) for path in (work / "arms").glob("qscore-seed*")
    )
    wanted = replace(settings, optimiser=None, lr=None, seed=seed)
    run = finetune(encoder, images, features, work / "paper-rate", wanted, device=device)
    arm = open_run(work / "arms" / f"qscore-seed{seed}", encoder)
    return {"paper": _distance(encoder, run.encoder()), "here": _distance(encoder, arm.encoder())}


def _distance(start: Encoder, end: Encoder) -> float:
    """Of the weights alone: batch norm's statistics move without any rate."""
    ours = dict(end.module.named_parameters())
    with torch.no_grad():
        pairs = [
            (p.cpu().double(), ours[n].cpu().double()) for n, p in start.module.named_parameters()
        ]
        apart = sum(float((a - b).square().sum()) for a, b in pairs)
        whole = sum(float(a.square().sum()) for a, _ in pairs)
    return (apart / whole) ** 0.5
