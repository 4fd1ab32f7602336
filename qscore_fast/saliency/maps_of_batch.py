"""MapsOfBatch: the heat maps of one batch, before they are put together."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class MapsOfBatch(NamedTuple):
    """The fields of ``HeatMaps`` for one batch."""

    maps: Tensor
    h: Tensor
    q_score: Tensor
    members: Tensor
    layer: str
