"""Reading any published checkpoint file into plain data; nothing in a file is ever executed."""

from qscore_fast.encoders.containers.container import Container, read_container
from qscore_fast.encoders.containers.stub import Stub

__all__ = ["Container", "Stub", "read_container"]
