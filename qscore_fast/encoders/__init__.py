"""Encoders: a checkpoint, a timm or torchvision name, or a module, as one frozen thing to call."""

from qscore_fast.encoders.encoder import Encoder
from qscore_fast.encoders.fingerprint import fingerprint_of_module
from qscore_fast.encoders.load import load_encoder

__all__ = ["Encoder", "fingerprint_of_module", "load_encoder"]
