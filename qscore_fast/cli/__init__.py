"""The ``qscore`` command."""

import os

# Decoding threads and the encoder's share the cores: an OpenMP thread that waits must not spin on one.
# Read when torch is loaded, so it has to be said before that.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from qscore_fast.cli.main import main

__all__ = ["main"]
