"""Losses in float32 at least, whatever autocast does around them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_HALF = (torch.float16, torch.bfloat16)


def in_full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast off; float16 and bfloat16 tensors among its arguments become float32."""

    @wraps(loss)
    def widened(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(_tensors(args)).device.type
        with torch.autocast(device, enabled=False):
            return loss(*map(_wide, args), **kwargs)  # type: ignore[arg-type]

    return widened


def _tensors(values: Any) -> Any:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _wide(value: object) -> object:
    if isinstance(value, list | tuple):
        return type(value)(map(_wide, value))
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALF else value
