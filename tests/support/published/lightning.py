"""What PyTorch Lightning puts around a state_dict (lightning-ai/pytorch-lightning:
checkpoint_connector.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .parts import State
from .saving import save, sgd_state


def save_lightning(
    state: State, path: Path, version: str, hyper_parameters: dict[str, Any]
) -> None:
    monitor = {"monitor": None, "best_model_score": None, "last_model_path": "", "dirpath": "out"}
    content = {
        "epoch": 399,
        "global_step": 197200,
        "pytorch-lightning_version": version,
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 400}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": monitor},
        "optimizer_states": [sgd_state(state)],
        "lr_schedulers": [{"last_epoch": 399, "_step_count": 400}],
        "hparams_name": "kwargs",
        "hyper_parameters": hyper_parameters,
    }
    save(content, path)
