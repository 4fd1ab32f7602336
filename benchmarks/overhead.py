"""What a call costs besides its kernels: Python and the dispatcher on the CPU, launches on a GPU."""

from __future__ import annotations

import time
from typing import Any, cast

import torch

import qscore_fast as qf

from .data import make_features
from .limits import native_core
from .operations import OPERATIONS
from .timing import Call, interleaved

EPS = 4.0


def cpu_overhead() -> dict[str, Any] | None:
    """Seconds of q_score at (1, 2048) without gradient, and of its native call with prepared addresses."""
    core = native_core()
    if core is None:
        return None
    h = make_features(1, 2048, torch.float32, torch.device("cpu"))
    q = core.q_score(h, None, EPS)
    native, arguments = (
        core._native.q_score_forward,
        (*core._matrix(h), 0, EPS, False, q.data_ptr(), 0),
    )
    calls: dict[str, Call] = {
        "q_score": lambda: qf.q_score(h),
        "native": lambda: native(*arguments),
    }
    with torch.no_grad():
        times = interleaved(calls, h.device, rounds=51)
    return {"rows": 1, "features": 2048, **{name: times[name].median for name in times}}


def gpu_overhead(device: torch.device) -> dict[str, Any]:
    """At (256, 2048): host seconds a call, kernel launches, and whether a CUDA graph captures the call."""
    h = make_features(256, 2048, torch.bfloat16, device)
    found: dict[str, Any] = {"rows": 256, "features": 2048, "calls": {}}
    for name in ("q_score forward", "q_score_loss forward", "q_score_loss forward + backward"):
        operation = OPERATIONS[name]
        call = operation.call(operation.ours, h)
        found["calls"][name] = {
            "host_seconds": _host_seconds(call),
            "launches": _launches(call),
            "captured": _captured(call),
        }
    return found


def _host_seconds(call: Call, calls: int = 100, rounds: int = 7) -> float:
    """Until the call returns, the GPU's queue never being full."""
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter() - begin) / calls)
    return best


def _launches(call: Call) -> int:
    from torch.profiler import ProfilerActivity, profile

    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        call()
        torch.cuda.synchronize()
    return sum(
        event.count
        for event in profiler.key_averages()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )


def _captured(call: Call) -> bool:
    """Whether replaying the captured call gives what the call gives."""
    expected = call()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            out = call()
    except RuntimeError:
        return False
    graph.replay()
    torch.cuda.synchronize()
    return isinstance(out, torch.Tensor) and torch.equal(out, cast(torch.Tensor, expected))
