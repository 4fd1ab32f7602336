"""How the forward, and the read that is its limit, scale with the number of threads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .limits import limit_calls
from .operations import OPERATIONS
from .timing import Call, interleaved


def thread_scaling(h: Tensor) -> list[dict[str, Any]]:
    """Seconds of q_score forward on ``h`` and of reading it, with 1, 2, 4, ... and all threads."""
    most = torch.get_num_threads()
    counts = sorted({min(2**i, most) for i in range(most.bit_length() + 1)})
    operation = OPERATIONS["q_score forward"]
    ours = operation.call(operation.ours, h)
    read = limit_calls(h, with_copy=False)["read"]

    def with_threads(count: int, call: Call) -> Call:
        def run() -> None:
            torch.set_num_threads(count)
            call()

        return run

    calls = {
        f"{name} {count}": with_threads(count, call)
        for count in counts
        for name, call in (("ours", ours), ("read", read))
    }
    try:
        times = interleaved(calls, h.device)
    finally:
        torch.set_num_threads(most)
    return [
        {
            "threads": count,
            "rows": h.shape[0],
            "features": h.shape[1],
            "dtype": str(h.dtype).removeprefix("torch."),
            "seconds": times[f"ours {count}"].median,
            "read_seconds": times[f"read {count}"].median,
        }
        for count in counts
    ]
