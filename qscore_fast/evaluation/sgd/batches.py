"""Batches: rows of cached features in a new random order each epoch, on a device."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.device_memory import room_for_rows
from qscore_fast.evaluation.feature_rows import FeatureRows

# Rows that are read from the parts, and copied to a device, at a time.
BLOCK_BYTES = 64 << 20


class Batches:
    """Batches of rows and their classes, in an order that depends on the seed and the epoch alone.

    Rows stay on the device, in their own dtype, where they take at most half of its free memory (8 GiB on
    the CPU). Otherwise the rows of several batches are read from the parts by a thread, into pinned memory,
    while others are in use. What a batch holds is the same either way.

    Args:
        rows: (N, r). targets: (N,) int64.
        chosen: rows to take, (n,) int64; all for None.
        device: of the batches.
        resident: bytes that may stay; None decides as above, 0 reads always.

    Raises:
        SettingsError: NaN or Inf in the chosen rows.
    """

    def __init__(
        self,
        rows: FeatureRows,
        targets: np.ndarray,
        batch_size: int,
        *,
        seed: int = 0,
        chosen: np.ndarray | None = None,
        device: str | torch.device = "cpu",
        resident: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.batch_size, self.seed = batch_size, seed
        self._rows = rows
        self._chosen = np.arange(len(rows)) if chosen is None else chosen
        self._targets = torch.from_numpy(targets[self._chosen]).to(self.device)
        self._together = max(1, BLOCK_BYTES // (rows.row_bytes * batch_size)) * batch_size
        size = len(self._chosen) * rows.row_bytes
        self._kept: Tensor | None = None
        if size <= (room_for_rows(self.device) if resident is None else resident):
            self._kept = torch.empty(
                (len(self._chosen), rows.num_features),
                dtype=getattr(torch, rows.dtype.name),
                device=self.device,
            )
        for start in range(0, len(self._chosen), self._together):
            block = torch.from_numpy(rows.gather(self._chosen[start : start + self._together]))
            if not bool(torch.isfinite(block).all()):
                raise SettingsError(
                    "the representations hold NaN or Inf: leave such rows out (they have no score either)"
                )
            if self._kept is not None:
                self._kept[start : start + len(block)].copy_(block)

    def __len__(self) -> int:
        """Batches an epoch; the last may be smaller."""
        return -(-len(self._chosen) // self.batch_size)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(b, r) float32 rows and (b,) int64 classes, batch by batch."""
        order = np.random.default_rng((self.seed, number)).permutation(len(self._chosen))
        on_device = torch.from_numpy(order).to(self.device)
        for start, block in self._ordered(order, on_device):
            for first in range(0, len(block), self.batch_size):
                part = block[first : first + self.batch_size]
                at = on_device[start + first : start + first + len(part)]
                yield part.float(), self._targets.index_select(0, at)

    def _ordered(self, order: np.ndarray, on_device: Tensor) -> Iterator[tuple[int, Tensor]]:
        if self._kept is not None:
            for start in range(0, len(order), self._together):
                chosen = on_device[start : start + self._together]
                yield start, self._kept.index_select(0, chosen)
            return
        starts = range(0, len(order), self._together)
        with ThreadPoolExecutor(1) as reader:
            wanted = (order[start : start + self._together] for start in starts)
            coming = reader.submit(self._read, next(wanted))
            for start in starts:
                block = coming.result()
                following = next(wanted, None)
                if following is not None:
                    coming = reader.submit(self._read, following)
                yield start, block.to(self.device, non_blocking=True)

    def _read(self, order: np.ndarray) -> Tensor:
        # Ascending rows are read in the order of the disk.
        where = self._chosen[order]
        ascending = np.argsort(where)
        block = np.empty((len(order), self._rows.num_features), self._rows.dtype)
        block[ascending] = self._rows.gather(where[ascending])
        found = torch.from_numpy(block)
        return found.pin_memory() if self.device.type == "cuda" else found
