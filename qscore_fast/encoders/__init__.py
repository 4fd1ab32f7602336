"""Encoders: a checkpoint, a timm or torchvision name, or a module, as one frozen thing to call."""

from qscore_fast.encoders.encoder import Encoder
from qscore_fast.encoders.fingerprint import fingerprint_of_module
from qscore_fast.encoders.inspection import Inspection, inspect_checkpoint
from qscore_fast.encoders.load import load_encoder
from qscore_fast.encoders.throughput import Throughput, encoder_throughput
from qscore_fast.encoders.training_state import TrainingState

__all__ = [
    "Encoder",
    "Inspection",
    "Throughput",
    "TrainingState",
    "encoder_throughput",
    "fingerprint_of_module",
    "inspect_checkpoint",
    "load_encoder",
]
