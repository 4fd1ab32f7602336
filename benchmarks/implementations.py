"""The implementations of an operation as calls to time, checked against the equations in float64."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from .correctness import SAMPLE_ROWS, agrees
from .operations import Function, Operation, Phase
from .timing import Call


class WrongResult(Exception):
    """An implementation differs from the float64 reference."""


def compile_mode(device: torch.device) -> str:
    """The mode of ``torch.compile`` that is fastest here: on the CPU autotuning knows only products."""
    return "max-autotune-no-cudagraphs" if device.type == "cuda" else "default"


def our_call(operation: Operation, h: Tensor) -> Call:
    """Ours on ``h``. Raises WrongResult if the first rows differ from the equations in float64."""
    _check(operation, operation.ours, h, "qscore_fast")
    return operation.call(operation.ours, h)


def eager_call(operation: Operation, h: Tensor) -> Call:
    """The plain formula as PyTorch runs it."""
    return operation.call(operation.plain, h)


def numpy_call(operation: Operation, h: Tensor) -> Call | None:
    """NumPy, where it has the dtype and needs no gradient."""
    function = operation.numpy
    if function is None or h.device.type != "cpu" or h.dtype != torch.float32:
        return None
    _check(operation, lambda sample: function(sample.numpy()), h, "NumPy")
    array = h.numpy()
    return lambda: function(array)


def compiled_call(operation: Operation, h: Tensor) -> Call:
    """``torch.compile`` of the plain formula for this very shape, compiled before it returns."""
    torch._dynamo.reset()
    function = torch.compile(operation.plain, dynamic=False, mode=compile_mode(h.device))
    with _graph_usable_again():
        call = operation.call(function, h)
        result = call()
    if operation.phase is Phase.FORWARD and not agrees(
        result, operation.call(operation.ours, h)(), h.shape[-1]
    ):
        raise WrongResult("torch.compile: the result differs from the others")
    return call


@contextlib.contextmanager
def _graph_usable_again() -> Any:
    """Compile a backward that may run repeatedly on one forward."""
    import torch._functorch.config as config

    with config.patch(donated_buffer=False):
        yield


def _check(operation: Operation, function: Function, h: Tensor, name: str) -> None:
    sample = h[:SAMPLE_ROWS].clone()
    actual = operation.call(function, sample)()
    expected = operation.call(operation.plain, sample.double())()
    if not agrees(actual, expected, h.shape[-1]):
        raise WrongResult(f"{name}: the result differs from the float64 reference")
