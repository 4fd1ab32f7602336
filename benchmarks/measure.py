"""Measures one case: every implementation and the limit, in turn, on one matrix."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qscore_fast.allocator import freed_memory_kept

from .implementations import WrongResult, compiled_call, eager_call, numpy_call, our_call
from .limits import floor, limit_calls
from .operations import OPERATIONS, Operation
from .plans import Case
from .timing import Call, interleaved

_BUILDERS: dict[str, Callable[[Operation, Tensor], Call | None]] = {
    "compiled": compiled_call,
    "eager": eager_call,
    "numpy": numpy_call,
}


def measure(
    case: Case, h: Tensor, against: tuple[str, ...], rounds: int = 15, seconds: float = 4.0
) -> dict[str, Any]:
    """The record of one case, as it stands in the results. A wrong result has an ``error`` and no time.

    ``rounds`` and ``seconds`` as ``interleaved``.
    """
    row: dict[str, Any] = {
        "operation": case.operation,
        "rows": case.rows,
        "features": case.features,
        "dtype": case.dtype,
        "keep_freed": case.keep_freed,
    }
    operation = OPERATIONS[case.operation]
    left_out = {name: "the time was up" for name in case.against if name not in against}
    with freed_memory_kept() if case.keep_freed else contextlib.nullcontext():
        try:
            calls = {"ours": our_call(operation, h)}
        except WrongResult as error:
            return {**row, "error": str(error)}
        calls |= _comparators(operation, h, against, left_out)
        calls |= limit_calls(h, bool(operation.writes))
        times = interleaved(calls, h.device, rounds, seconds)
        calls.clear()
    medians = {name: time.median for name, time in times.items()}
    limit = floor(operation.reads, operation.writes, medians, h.device)
    moved = (operation.reads + operation.writes) * h.numel() * h.element_size()
    return {
        **row,
        "seconds": medians,
        "quartiles": {name: time.quartiles for name, time in times.items()},
        "rounds": {name: time.rounds for name, time in times.items()},
        "peak_memory": {name: time.peak_memory for name, time in times.items()},
        "limit_seconds": limit,
        "gigabytes_per_second": moved / medians["ours"] / 1e9,
        "times_limit": medians["ours"] / limit,
        "left_out": left_out,
    }


def _comparators(
    operation: Operation, h: Tensor, names: tuple[str, ...], left_out: dict[str, str]
) -> dict[str, Call]:
    """The calls of the comparators; ``left_out`` gets the reason for each that cannot run."""
    calls = {}
    for name in names:
        try:
            call = _BUILDERS[name](operation, h)
        except (WrongResult, torch.OutOfMemoryError) as error:
            left_out[name] = str(error).partition("\n")[0]
            continue
        if call is not None:
            calls[name] = call
    return calls
