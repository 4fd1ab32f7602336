"""Augmented views of any source: shuffled, divided among processes, and continued exactly."""

from qscore_fast.finetuning.data.loader import ViewBatch, ViewLoader
from qscore_fast.finetuning.data.order import ShuffledImages
from qscore_fast.finetuning.data.requests import BatchRequest, Request
from qscore_fast.finetuning.data.shards import ShuffledShards
from qscore_fast.finetuning.data.single_images import SingleImages

__all__ = [
    "BatchRequest",
    "Request",
    "ShuffledImages",
    "ShuffledShards",
    "SingleImages",
    "ViewBatch",
    "ViewLoader",
]
