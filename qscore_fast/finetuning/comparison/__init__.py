"""Trainings that differ in the regulariser alone, probed: what Q-Score adds to further training by itself."""

from qscore_fast.finetuning.comparison.arms import ARMS, compare
from qscore_fast.finetuning.comparison.intervals import Interval, mean_interval, paired_interval
from qscore_fast.finetuning.comparison.result import Comparison, Probed
from qscore_fast.finetuning.comparison.table import arms_table, table_two

__all__ = [
    "ARMS",
    "Comparison",
    "Interval",
    "Probed",
    "arms_table",
    "compare",
    "mean_interval",
    "paired_interval",
    "table_two",
]
