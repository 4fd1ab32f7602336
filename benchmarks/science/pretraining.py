"""A network trained from random weights, as a checkpoint in its system's official layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qscore_fast.encoders import Encoder
from qscore_fast.finetuning import Settings, finetune
from qscore_fast.finetuning.export import export
from qscore_fast.images import Source


def pretrain(
    start: Encoder, images: Source, settings: Settings, work: Path, checkpoint: Path, device: str
) -> dict[str, Any]:
    """Train, or go on with a training in ``work``, and write the checkpoint; what it was, in plain values."""
    run = finetune(start, images, None, work, settings, device=device)
    export(run.objective, start, checkpoint)
    lines = run.log()
    return {
        "architecture": start.architecture,
        "steps": lines[-1]["step"],
        "images_seen": lines[-1]["step"] * (settings.batch_size or 0),
        "first_ssl": lines[0]["ssl"],
        "last_ssl": lines[-1]["ssl"],
        "checkpoint_bytes": checkpoint.stat().st_size,
    }
