"""Small batches, ours and eager: what a training step or a single request pays."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ..data import make_features
from ..implementations import eager_call, our_call
from ..operations import OPERATIONS

SHAPES = ((1, 2048), (32, 2048), (256, 2048), (256, 512))
IMPLEMENTATIONS = {"ours": our_call, "eager": eager_call}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_call(benchmark: Any, operation: str, shape: tuple[int, int], implementation: str) -> None:
    h = make_features(*shape, torch.float32, torch.device("cpu"))
    benchmark.group = f"{operation}, {shape[0]} x {shape[1]}"
    benchmark(IMPLEMENTATIONS[implementation](OPERATIONS[operation], h))
