"""Layouts: the names that published checkpoints use, and what they mean."""

from qscore_fast.encoders.layouts.recognise import LAYOUTS, Recognised, recognise
from qscore_fast.encoders.layouts.systems import SYSTEMS, System, members

__all__ = ["LAYOUTS", "SYSTEMS", "Recognised", "System", "members", "recognise"]
