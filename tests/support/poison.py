"""Let every tensor that the kernels allocate hold NaN, or nonsense, until it is written."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

POISON = {torch.int32: -(2**30), torch.int64: -(2**60), torch.bool: True}


def poison_allocations(monkeypatch: pytest.MonkeyPatch, package: Callable[[], str]) -> None:
    """For allocations by modules of ``package``, which is asked at each of them."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def wrapper(*args: object, **kwargs: object) -> Tensor:
            tensor = allocate(*args, **kwargs)
            caller = sys._getframe(1).f_globals["__name__"]
            if caller.startswith(package()):
                tensor.fill_(POISON.get(tensor.dtype, float("nan")))
            return tensor

        return wrapper

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))
