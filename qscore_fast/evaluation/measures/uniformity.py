"""Uniformity: how evenly unit rows spread over the sphere, over all pairs or those of a sample."""

from __future__ import annotations

import math

import numpy as np
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.measures.measured import Measured
from qscore_fast.evaluation.measures.row_blocks import Array
from qscore_fast.evaluation.measures.row_sample import MAX_ROWS, RowSample

_BLOCK_ROWS = 1024


class Uniformity:
    """Uniformity loss (Wang and Isola 2020): ``log mean_{i<j} exp(-t |u_i - u_j|^2)`` of unit rows u.

    ``details["uniform"]`` for rows that are uniform on the sphere, to 0 (collapsed); a few rows that repel
    each other can lie below. Exact while the rows fit into
    ``max_rows``; of more rows a seeded uniform sample is used and ``details["exact"]`` is False. Zero rows
    and rows that are not finite are left out.

    Args:
        num_features: r.
        t: above 0; the paper's is 2.
        max_rows, seed: see :class:`RowSample`; accumulators to be merged need seeds of their own.
    """

    def __init__(
        self, num_features: int, t: float = 2.0, max_rows: int = MAX_ROWS, seed: int = 0
    ) -> None:
        self.t = _checked(t)
        self.sample = RowSample(num_features, max_rows, seed)

    def reset(self) -> None:
        """Forget all rows."""
        self.sample.reset()

    def update(self, h: Array) -> Uniformity:
        """Add the rows of ``h`` (..., r)."""
        self.sample.update(h)
        return self

    def merge(self, other: Uniformity) -> Uniformity:
        """Add the rows of another one with the same t."""
        if self.t != other.t:
            raise SettingsError(f"cannot merge uniformity with t = {other.t} into one of {self.t}")
        self.sample.merge(other.sample)
        return self

    def compute(self) -> Measured:
        """The value, with the number of rows that it was made from."""
        return uniformity(self.sample, self.t)


def uniformity(sample: RowSample, t: float = 2.0) -> Measured:
    """The uniformity of a sample's rows; see :class:`Uniformity`."""
    rows = sample.rows
    about = {"t": _checked(t), **sample.about(), "uniform": uniform_value(rows.shape[1], t)}
    if len(rows) < 2:
        return Measured.undefined(
            "a pair needs two rows that are finite and not zero, and there is "
            + ("one" if len(rows) else "none"),
            **about,
        )
    units = torch.from_numpy(rows).double()
    units = units / units.norm(dim=1, keepdim=True)
    total, n = 0.0, len(units)
    for start in range(0, n, _BLOCK_ROWS):
        block = units[start : start + _BLOCK_ROWS]
        # exp(-t d^2) with d^2 = 2 - 2 cos; each pair once: the blocks right of the diagonal, and above it.
        kernel = torch.exp((2 * t) * (block @ units[start:].mT - 1).clamp(max=0))
        total += float(kernel[:, len(block) :].sum())
        total += float(kernel[:, : len(block)].triu(1).sum())
    return Measured.of(math.log(total / (n * (n - 1) / 2)), **about)


def uniform_value(num_features: int, t: float = 2.0) -> float:
    """``-2t + log 0F1(; r/2; t^2)``: what uniform rows have on average."""
    term = total = 1.0
    k = 0
    while term > total * np.finfo(np.float64).eps:
        term *= t * t / ((num_features / 2 + k) * (k + 1))
        total += term
        k += 1
    return -2 * t + math.log(total)


def _checked(t: float) -> float:
    if not 0 < t <= 100:
        raise SettingsError(f"t is {t}; it must be above 0 and at most 100 (the paper's is 2)")
    return float(t)
