"""An encoder of every system, pre-trained from random weights, as a checkpoint in its official layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qscore_fast.finetuning import Settings, finetune
from qscore_fast.finetuning.comparison.arms import probed
from qscore_fast.finetuning.export import export
from qscore_fast.images import Source

from .small_systems import small_encoder


def pretrain(
    system: str, images: Source, settings: Settings, work: Path, checkpoint: Path, device: str
) -> dict[str, Any]:
    """Train, or go on with a training in ``work``, and write the checkpoint; what it was, in plain values."""
    start = small_encoder(system)
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


def untrained(
    system: str, labelled: dict[str, Source], work: Path, device: str
) -> dict[str, float]:
    """What probes say of the network before it was trained at all."""
    sources = [labelled["train"], labelled["test"]]
    found = probed("untrained", None, small_encoder(system), work, sources, None, device)
    return {"linear": found.linear, "knn": found.knn}
