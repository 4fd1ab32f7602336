"""A training's folder, opened again: its encoder, and the checkpoint in the official layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import SettingsError, StoreError
from qscore_fast.finetuning import record
from qscore_fast.finetuning.checkpoint import CheckpointFolder
from qscore_fast.finetuning.export import export
from qscore_fast.finetuning.fine_tune_run import CHECKPOINTS, FineTuneRun
from qscore_fast.finetuning.settings import Settings
from qscore_fast.finetuning.starting import starting


def open_run(
    path: str | os.PathLike[str], encoder: Encoder | str | os.PathLike[str] | None = None
) -> FineTuneRun:
    """A training as its last checkpoint left it, finished or not.

    Args:
        path: the folder of ``finetune``.
        encoder: what it began with; by default loaded from where it lay then.

    Raises:
        StoreError: no training there, or one without a checkpoint.
        SettingsError: another encoder than it began with.
        EncoderError: it cannot be loaded.
    """
    folder = Path(path)
    found = record.read(folder)
    if found is None:
        raise StoreError(f"{folder} holds no training of qscore finetune (no {record.NAME})")
    checkpoint = CheckpointFolder(folder / CHECKPOINTS).latest()
    if checkpoint is None:
        raise StoreError(f"{folder} holds no checkpoint yet: train on (the same qscore finetune)")
    asked: dict[str, Any] = found["asked"]
    if not isinstance(encoder, Encoder):
        encoder = load_encoder(encoder or found["encoder_name"], asked["system"], device="cpu")
    if encoder.fingerprint != asked["encoder"]["fingerprint"]:
        raise SettingsError(
            f"the training in {folder} began with another encoder than {encoder.name} (fingerprint "
            f"{asked['encoder']['fingerprint']:.12}..., this one is {encoder.fingerprint:.12}...): give that "
            "one (--checkpoint)"
        )
    begun = starting(encoder, asked["system"], Settings(**asked["settings"]))
    begun.objective.load_state_dict(checkpoint.objective)
    return FineTuneRun(folder, encoder, begun.objective)


def export_run(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    encoder: Encoder | str | os.PathLike[str] | None = None,
) -> Path:
    """Write what a training made in the layout of its system's official code; see ``export``.

    Raises:
        QScoreError: see ``open_run`` and ``export``.
    """
    run = open_run(path, encoder)
    return export(run.objective, run.start, out)
