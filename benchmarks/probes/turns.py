"""Seconds and results of calls that take turns, so that a drift of the machine meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Timed:
    """Of one call: the median of its ``seconds``, all of them, and what it returned last."""

    median: float
    seconds: tuple[float, ...]
    result: Any

    def to_json(self) -> dict[str, Any]:
        return {"median": self.median, "rounds": list(self.seconds)}


def in_turns(
    calls: Mapping[str, Callable[[], Any]], device: str, rounds: int = 3, limit: float = 30.0
) -> dict[str, Timed]:
    """Run every call once a round; one that has taken ``limit`` seconds takes no part in further rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            if sum(seconds[name]) > limit:
                continue
            _wait(device)
            start = time.perf_counter()
            results[name] = call()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    return {
        name: Timed(statistics.median(taken), tuple(taken), results[name])
        for name, taken in seconds.items()
    }


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
