"""Times of several calls, taken in turn so that a drift of the machine meets all of them alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from .memory import PeakMemory

Call = Callable[[], object]

MINIMUM_ROUNDS = 3
WARM_ROUNDS = 2  # until caches, allocator and threads are as they will be
SAMPLE_SECONDS = 1e-2  # a CPU sample repeats shorter calls until it lasts about this long
SLOW_SECONDS = 1.0  # the first call of a slower implementation is a sample, not a warm-up
SHORT_SECONDS = 0.1  # of a first call; a longer one is never repeated in a sample
FLUSH_BYTES = 4 << 30


@dataclass(frozen=True)
class Times:
    """Seconds a call: median and quartiles over the rounds, and the bytes that one call adds at its peak."""

    median: float
    quartiles: tuple[float, float]
    rounds: int
    peak_memory: int | None


class _Clock:
    """Seconds of one call; on a GPU between two events, with the L2 cache flushed before."""

    def __init__(self, device: torch.device) -> None:
        self.gpu = device.type == "cuda"
        if self.gpu:
            # Far more than L2 holds: writing it also keeps the GPU busy while the call is being launched,
            # so that the events see no gap left by the host.
            free = torch.cuda.mem_get_info(device)[0]
            self.flush = torch.empty(min(FLUSH_BYTES, free // 8), dtype=torch.uint8, device=device)

    def seconds(self, call: Call, repeats: int = 1) -> float:
        if not self.gpu:
            begin = time.perf_counter()
            for _ in range(repeats):
                call()
            return (time.perf_counter() - begin) / repeats
        self.flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3


def interleaved(
    calls: Mapping[str, Call], device: torch.device, rounds: int = 15, seconds: float = 4.0
) -> dict[str, Times]:
    """Time every call, one sample each a round; the order rotates from round to round.

    A call takes part until it has ``rounds`` samples, or has spent ``seconds`` and has at least three.
    """
    clock, peak = _Clock(device), PeakMemory(device)
    samples: dict[str, list[float]] = {}
    repeats: dict[str, int] = {}
    memory: dict[str, int | None] = {}
    for name, call in calls.items():
        with peak:
            first = clock.seconds(call)
        memory[name] = peak.bytes
        samples[name] = [first] if first > SLOW_SECONDS else []
        repeats[name] = 1 if clock.gpu or first > SHORT_SECONDS else _repeats(clock.seconds(call))
    names = list(calls)
    for _ in range(WARM_ROUNDS):
        for name in names:
            if not samples[name]:
                calls[name]()
    for i in range(rounds):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            taken = samples[name]
            spent = sum(taken) * repeats[name]
            if len(taken) < MINIMUM_ROUNDS or (len(taken) < rounds and spent < seconds):
                taken.append(clock.seconds(calls[name], repeats[name]))
    return {name: _summary(samples[name], memory[name]) for name in names}


def _repeats(seconds: float) -> int:
    return max(1, math.ceil(SAMPLE_SECONDS / seconds))


def _summary(samples: list[float], peak_memory: int | None) -> Times:
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Times(statistics.median(samples), (low, high), len(samples), peak_memory)
