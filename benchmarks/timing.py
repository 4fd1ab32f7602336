"""Medians of several calls, taken in turn so that a drift of the machine meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Call = Callable[[], object]


class _Timer:
    """Times one call; on a GPU by events, with the L2 cache flushed before each."""

    def __init__(self, device: torch.device) -> None:
        self.gpu = device.type == "cuda"
        if self.gpu:
            size = 4 * torch.cuda.get_device_properties(device).L2_cache_size
            self.flush = torch.empty(size, dtype=torch.uint8, device=device)

    def seconds(self, call: Call) -> float:
        if not self.gpu:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        self.flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3


def medians(calls: Mapping[str, Call], device: torch.device, rounds: int = 7) -> dict[str, float]:
    """Seconds a call, median over ``rounds``; the order rotates from round to round."""
    timer = _Timer(device)
    for call in calls.values():
        call()
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            times[name].append(timer.seconds(calls[name]))
    return {name: statistics.median(values) for name, values in times.items()}
