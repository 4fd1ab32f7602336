"""The backbones of the published checkpoints, and their inference from names and shapes."""

from qscore_fast.encoders.networks.build import build_network
from qscore_fast.encoders.networks.infer import infer_architecture
from qscore_fast.encoders.networks.tensorflow_order import (
    infer_tensorflow_architecture,
    tensorflow_order,
)
from qscore_fast.encoders.networks.timm_state import timm_state
from qscore_fast.encoders.networks.words import words

__all__ = [
    "build_network",
    "infer_architecture",
    "infer_tensorflow_architecture",
    "tensorflow_order",
    "timm_state",
    "words",
]
