"""A file as memory: pages are read when they are needed, and bounds are checked on every access."""

from __future__ import annotations

import mmap
from pathlib import Path

import torch
from torch import Tensor

from qscore_fast.errors import EncoderError


class FileMap:
    """A private mapping: writing to a tensor of it changes the memory, never the file."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.size = len(self._map)
        self.name = path.name

    def view(self) -> memoryview:
        return memoryview(self._map)

    def bytes(self, start: int, size: int) -> bytes:
        """Raises EncoderError beyond the file's end."""
        self._check(start, size)
        return self._map[start : start + size]

    def tensor(self, dtype: torch.dtype, start: int, numel: int) -> Tensor:
        """``numel`` numbers at byte ``start``: a view, or a copy where they are not aligned.

        Raises:
            EncoderError: they go beyond the file's end.
        """
        size = numel * dtype.itemsize
        self._check(start, size)
        if numel == 0:
            return torch.empty(0, dtype=dtype)
        if dtype == torch.bool:
            flags = torch.frombuffer(self._map, dtype=torch.uint8, count=numel, offset=start)
            return flags != 0
        if start % dtype.itemsize == 0:
            return torch.frombuffer(self._map, dtype=dtype, count=numel, offset=start)
        raw = torch.frombuffer(self._map, dtype=torch.uint8, count=size, offset=start)
        return raw.clone().view(dtype)

    def _check(self, start: int, size: int) -> None:
        if start < 0 or size < 0 or start + size > self.size:
            raise EncoderError(
                f"{self.name} is truncated: it needs {start + size:,} bytes, but has {self.size:,}"
            )
