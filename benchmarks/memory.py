"""How much memory a call adds at its peak."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from qscore_fast.allocator import give_back_freed_memory

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def _kibibytes(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.M)
    if match is None:
        raise RuntimeError(f"{_STATUS} has no {field}")
    return int(match[1])


class PeakMemory:
    """Context manager: ``bytes`` is the growth at the peak of the block, None where nobody can tell.

    On a GPU what PyTorch's allocator counts; on the CPU the high-water mark of the resident set, which
    Linux resets on request.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None
        self._before: int | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            return self
        give_back_freed_memory()  # what was freed but kept would hide as much of the growth
        try:
            _CLEAR.write_text("5")
            self._before = _kibibytes("VmRSS") * 1024
        except OSError:
            self._before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            return
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = _kibibytes("VmHWM") * 1024
        self.bytes = max(0, peak - self._before)
