"""Watching a training: its log, its health, its curves."""

from qscore_fast.finetuning.watching.curves import draw_curves
from qscore_fast.finetuning.watching.health import Health, TrainingStopped
from qscore_fast.finetuning.watching.log import TrainingLog, read_log

__all__ = ["Health", "TrainingLog", "TrainingStopped", "draw_curves", "read_log"]
