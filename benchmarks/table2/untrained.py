"""What a system's network says before it was trained at all."""

from __future__ import annotations

from pathlib import Path

from qscore_fast.finetuning.comparison.arms import probed
from qscore_fast.images import Source

from .small_systems import small_encoder


def untrained(
    system: str, labelled: dict[str, Source], work: Path, device: str
) -> dict[str, float]:
    """Its probes."""
    sources = [labelled["train"], labelled["test"]]
    found = probed("untrained", None, small_encoder(system), work, sources, None, device)
    return {"linear": found.linear, "knn": found.knn}
