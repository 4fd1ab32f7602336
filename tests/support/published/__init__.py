"""Writes a checkpoint file in each published layout, with a plain forward over its own tensors.

Written from the sources that made the files, named in each module, and not from the package's loader: a
test compares the two. `ROWS` has one row per kind of file.
"""

from __future__ import annotations

from . import (
    byol,
    dino,
    later_dino,
    lightly,
    moco,
    openmmlab,
    siamese,
    simclr,
    sololearn,
    vissl,
    xcit,
)
from .row import Published, Row, Tower

ROWS: tuple[Row, ...] = (
    simclr.ROWS
    + siamese.ROWS
    + moco.ROWS
    + byol.ROWS
    + dino.ROWS
    + xcit.ROWS
    + later_dino.ROWS
    + vissl.ROWS
    + openmmlab.ROWS
    + sololearn.ROWS
    + lightly.ROWS
)

__all__ = ["ROWS", "Published", "Row", "Tower"]
