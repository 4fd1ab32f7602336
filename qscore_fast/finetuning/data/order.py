"""ShuffledImages: a new random order of single images every epoch, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qscore_fast.finetuning.data.requests import BatchRequest, Position, Request, generator_of

_ORDER = 1
"""Tells the numbers that draw the order from those that draw augmentations."""


@dataclass(frozen=True)
class ShuffledImages:
    """Batches of numbers from 0 to ``count`` - 1.

    Every epoch is one permutation, cut into global batches, each cut into parts and these into the batches
    of the processes; so what a step sees does not depend on how many processes there are. What does not
    fill a global batch is left out of the epoch, other images each time.

    Args:
        count: images. batch_size: of one process and one part. parts: batches a step and process.
        seed: of the order. rank, world: of this process.
    """

    count: int
    batch_size: int
    parts: int = 1
    seed: int = 0
    rank: int = 0
    world: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.count // (self.batch_size * self.parts * self.world)

    def batches(self, position: Position | None = None) -> Iterator[BatchRequest]:
        """The batches from a position on, without end."""
        number = 0 if position is None else int(position["batch"])
        per_epoch = self.steps_per_epoch * self.parts
        together = self.batch_size * self.world
        epoch, order = -1, np.empty(0, np.int64)
        while True:
            if number // per_epoch != epoch:
                epoch = number // per_epoch
                order = generator_of(_ORDER, self.seed, epoch).permutation(self.count)
            start = number % per_epoch * together + self.rank * self.batch_size
            chosen = order[start : start + self.batch_size].tolist()
            number += 1
            items = tuple(Request((epoch, index), index) for index in chosen)
            yield BatchRequest(items, {"batch": number})
