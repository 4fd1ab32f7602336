"""The eight systems on images of 28 x 28: a small ResNet, small heads, averages that move in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qscore_fast.encoders import Encoder
from qscore_fast.finetuning import untrained_encoder

from ..science.fashion_mnist import PREPROCESS

# Official heads are made for ResNet-50 and for hundreds of epochs: on a CPU and in a few hundred steps
# they would take most of the time, their averages would stay where they began, and DINO's last layer
# and SwAV's prototypes would never be freed. Everything that is not here is official.
OBJECTIVES: Mapping[str, Mapping[str, Any]] = {
    "simclr": {"temperature": 0.2},
    "swav": {"hidden": 512, "prototypes": 300, "queue_length": 0, "freeze_prototypes_steps": 20},
    "moco_v2": {"queue_length": 2048, "momentum": 0.99},
    "byol": {"hidden": 512, "momentum": 0.98},
    "dino": {"hidden": 512, "out_dim": 1024, "momentum": 0.98, "freeze_last_layer_epochs": 0},
    "simsiam": {},
    "vicreg": {"hidden": 512, "out": 512},
    "barlow_twins": {"hidden": 512, "out": 512},
}

SYSTEMS = tuple(OBJECTIVES)


def small_encoder(system: str, seed: int = 0) -> Encoder:
    """A bottleneck ResNet of 14 layers with random weights, a quarter as wide as usual: r = 512."""
    return untrained_encoder(system, PREPROCESS, layers=(1, 1, 1, 1), width=16, seed=seed)
