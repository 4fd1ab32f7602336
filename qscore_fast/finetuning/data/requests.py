"""What a decoding worker is asked for, and the random numbers that belong to it."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qscore_fast.images import Sample

Position = dict[str, Any]
"""Where in the stream of images the next batch begins, in plain values."""


@dataclass(frozen=True)
class Request:
    """One image of a batch.

    Attributes:
        key: what its augmentation is drawn by, beside the seed: epoch and place in the source.
        index: of an image in a source of single images.
        sample: the image itself, where the source is read in order.
    """

    key: tuple[int, ...]
    index: int = -1
    sample: Sample | None = None


@dataclass(frozen=True)
class BatchRequest:
    """A batch of one process.

    Attributes:
        items: its images.
        position: where the batch after it begins.
        spares: images that take the place of bad ones, where the source is read in order.
        bad: sample ids and reasons of those that could not even be read.
    """

    items: tuple[Request, ...]
    position: Position
    spares: tuple[Request, ...] = ()
    bad: tuple[tuple[str, str], ...] = field(default=())


def seed_of(*key: int) -> int:
    """A seed of 63 bits for whole numbers, the same on every machine."""
    digest = hashlib.blake2b(struct.pack(f"<{len(key)}q", *key), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_of(*key: int) -> np.random.Generator:
    """NumPy's generator for these numbers."""
    return np.random.default_rng(seed_of(*key))
