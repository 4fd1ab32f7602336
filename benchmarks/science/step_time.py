"""How long a training will take: a few of its steps, timed here and now."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from qscore_fast.encoders import Encoder
from qscore_fast.finetuning import Settings, finetune
from qscore_fast.finetuning.planning import count_images, make_plan
from qscore_fast.finetuning.starting import starting
from qscore_fast.images import Source

# The first steps make allocations and workers, take what was read ahead: the rate of the later ones counts.
MEASURED, FIRST = 6, 2
ON_GPU = 120, 40  # of milliseconds each


def step_seconds(encoder: Encoder, images: Source, settings: Settings, device: str) -> float:
    """Seconds a step of the loop, measured without a regulariser, which adds little."""
    measured, first = ON_GPU if torch.device(device).type == "cuda" else (MEASURED, FIRST)
    short = replace(
        settings, regulariser="none", steps=measured, epochs=None, warm_up_heads=0, log_every=first,
        monitor_every=1000, save_every=1000, keep=0, warmup_epochs=0, tensorboard=False,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        log = finetune(encoder, images, None, work, short, device=device).log()
    batch = starting(encoder, encoder.system, settings).batch_size
    return statistics.fmean(batch / line["images_per_second"] for line in log[1:])


def num_steps(encoder: Encoder, images: Source, settings: Settings, work: Path) -> int:
    """Of one training."""
    count = count_images(images, settings, work, lambda _: None)
    return make_plan(settings, starting(encoder, encoder.system, settings), count).all_steps
