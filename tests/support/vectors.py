"""The published test vectors of the method."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


def one_hot(r: int) -> Tensor:
    return torch.eye(r, dtype=torch.float64)[:1]


def three_four() -> Tensor:
    h = torch.zeros(1, 64, dtype=torch.float64)
    h[0, :2] = torch.tensor([3.0, 4.0])
    return h


def peaks() -> Tensor:
    h = torch.full((1, 64), 0.1, dtype=torch.float64)
    h[0, [3, 7, 11]] = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    return h


def only(r: int, *members: int) -> Tensor:
    mask = torch.zeros(r, dtype=torch.bool)
    mask[list(members)] = True
    return mask


# (h, D, eps, L, Q); the published sigmas divide by r, ours by r - 1, which moves no entry across.
VECTORS = [
    pytest.param(one_hot(32), None, 4, [0], 0.96875, id="one-hot-32"),
    pytest.param(three_four(), None, 4, [0, 1], 0.678125, id="3-4-all"),
    pytest.param(three_four(), only(64, 1), 4, [0, 1], 0.778125, id="3-4-second"),
    pytest.param(three_four(), only(64, 0), 4, [0, 1], 0.578125, id="3-4-first"),
    pytest.param(three_four(), only(64), 4, [0, 1], 0.0, id="3-4-empty"),
    pytest.param(peaks(), None, 4, [3], 0.7642279559, id="peaks-4"),
    pytest.param(peaks(), None, 2.5, [3, 7], 0.5576798597, id="peaks-2.5"),
    pytest.param(one_hot(17), None, 4, [], 0.0, id="one-hot-17"),
    pytest.param(one_hot(18), None, 4, [0], 17 / 18, id="one-hot-18"),
]
