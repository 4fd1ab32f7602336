"""SoftmaxProblem: mean cross-entropy of many linear probes on the same rows, one read of them for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from qscore_fast.backends import native_kernels
from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.device_memory import room_for_rows
from qscore_fast.evaluation.feature_rows import FeatureRows, as_tensor
from qscore_fast.evaluation.scatter import Scatter

# Rows of a block, and logits of it. The gradient, as large as the weights, is read and written once a block,
# which is nothing beside a product over so many rows; on a GPU few kernels do much.
BLOCK_ROWS, BLOCK_LOGITS, FEWEST_ROWS = 4096, 1 << 22, 256
GPU_NUMBERS, GPU_LOGITS, CHUNK_ROWS = 1 << 29, 1 << 26, 2048
# Up to so many logits a row the native kernel, which reads the rows once, is faster than two products and all
# that lies between them. It keeps a gradient in float64 for every thread.
NATIVE_OUTPUTS = 128
WIDENED_NUMBERS = 1 << 24  # of float64, at a time


class SoftmaxProblem:
    """Rows, centred on their mean, and their classes.

    Products are float32, sums of them over blocks, and all that an optimiser sees, float64. Rows are widened
    to float32 once where all of them fit in ``in_memory`` bytes, else at each read, part by part.

    Args:
        rows: (N, r) representations.
        targets: (N,) int64 classes, 0 to C - 1.
        num_classes: C.
        device: where to compute.
        in_memory: bytes; by default half of what is free on a GPU, 8 GiB on the CPU.

    Attributes:
        mean: (r,) float64 of the rows.
        covariance: (r, r) float64, divided by N; its products have float32's digits.

    Raises:
        SettingsError: lengths differ, NaN or Inf in the rows, or a class outside 0 to C - 1.
    """

    def __init__(
        self,
        rows: FeatureRows,
        targets: np.ndarray,
        num_classes: int,
        *,
        device: str | torch.device = "cpu",
        in_memory: int | None = None,
    ) -> None:
        if len(rows) != len(targets):
            raise SettingsError(
                f"{len(rows):,} representations and {len(targets):,} labels: give one label for each"
            )
        if targets.dtype != np.int64 or not 0 <= targets.min() <= targets.max() < num_classes:
            raise SettingsError(f"targets are no int64 classes from 0 to {num_classes - 1}")
        self.num_rows, self.num_features = len(rows), rows.num_features
        self.num_classes = num_classes
        self.device = torch.device(device)
        self._rows = rows
        self._targets = torch.from_numpy(targets).to(self.device)
        room = room_for_rows(self.device) if in_memory is None else in_memory
        keeps = self.num_rows * self.num_features * 4 <= room
        kept = torch.empty(self.num_rows if keeps else 0, self.num_features, device=self.device)
        total = torch.zeros(rows.num_features, dtype=torch.float64, device=self.device)
        for start, block in self._blocks_of_parts():
            total += block.double().sum(0)
            if keeps:
                kept[start : start + len(block)] = block
        self.mean = total / self.num_rows
        if not bool(torch.isfinite(self.mean).all()):
            raise SettingsError(
                "the representations hold NaN or Inf: leave such rows out (they have no score either)"
            )
        scatter = Scatter(self.num_features, self.device)
        # Float32 holds rows of up to 32 bits as they are; of others the digits below their mean count.
        whole = keeps and rows.dtype.itemsize <= 4
        for start, centred in self._centred(kept if whole else None):
            # Products of a GPU have fewer digits than a CPU's, and the curvature needs them.
            on_gpu = self.device.type == "cuda"
            scatter.add_deviations(centred.double() if on_gpu else centred)
            if keeps:
                kept[start : start + len(centred)] = centred
        self.covariance = scatter.centred / self.num_rows
        self._kept = kept if keeps else None

    @property
    def _widened_rows(self) -> int:
        return max(1, WIDENED_NUMBERS // self.num_features)

    def _blocks_of_parts(self) -> Iterator[tuple[int, Tensor]]:
        """First row and (b, r) of every block as it is, on the device."""
        start = 0
        for block in self._rows.blocks(self._widened_rows):
            yield start, as_tensor(block).to(self.device)
            start += len(block)

    def _centred(self, kept: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """First row and (b, r) float32 less the mean of every block; of ``kept``, or from the parts."""
        size = self._widened_rows
        blocks = (
            self._blocks_of_parts()
            if kept is None
            else ((at, kept[at : at + size]) for at in range(0, len(kept), size))
        )
        for start, block in blocks:
            yield start, (block.double() - self.mean).float()

    def _read(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """First row and (b, r) centred float32 of every block."""
        widened = [(0, self._kept)] if self._kept is not None else self._centred(None)
        for first, rows in widened:
            for start in range(0, len(rows), size):
                yield first + start, rows[start : start + size]

    def evaluate(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss, and its gradients, of every probe.

        Args:
            weights: (C, r) float64 each, of the centred rows. biases: (C,) float64 each.

        Returns:
            losses (probes,), gradients (probes, C, r) and (probes, C), float64, on the device.
        """
        few = len(weights) * self.num_classes <= NATIVE_OUTPUTS
        kernels = native_kernels() if few and self.device.type == "cpu" else None
        given = weights, biases
        sums = self._fused(kernels, *given) if kernels else self._products(*given)
        losses, gradients, bias_gradients = (total / self.num_rows for total in sums)
        return losses, gradients, bias_gradients

    def _fused(
        self, kernels: ModuleType, weights: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> list[Tensor]:
        """Losses (probes,), gradients (probes, C, r) and (probes, C) of all rows: by the native kernel."""
        shape = len(weights), self.num_classes
        weight, bias = _joined(weights).view(*shape, -1), _joined(biases).view(shape)
        sums: list[Tensor] = []
        for start, rows in self._read(self.num_rows):
            found = kernels.softmax_regression(
                rows, self._targets[start : start + len(rows)], weight, bias
            )
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else list(found)
        return sums

    def _products(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> list[Tensor]:
        """The same, by the library of the device: where products take most of the time."""
        probes, c = len(weights), self.num_classes
        # Classes first: products with a few classes are several times faster in this layout.
        joint, bias = _joined(weights), _joined(biases)
        losses = torch.zeros(probes, dtype=torch.float64, device=self.device)
        gradient = torch.zeros_like(joint, dtype=torch.float64)
        bias_gradient = torch.zeros(probes * c, dtype=torch.float64, device=self.device)
        partial = torch.zeros_like(joint)
        for number, (start, block) in enumerate(self._blocks(probes)):
            p = torch.addmm(bias, block, joint.T).view(-1, probes, c)
            classes = self._targets[start : start + len(block)]
            wanted = classes[:, None, None].expand(-1, probes, 1)
            p -= p.amax(-1, keepdim=True)
            hit = p.gather(-1, wanted)[..., 0]
            total = p.exp_().sum(-1, keepdim=True)
            losses += (total[..., 0].log() - hit).sum(0, dtype=torch.float64)
            p /= total
            p.scatter_add_(-1, wanted, torch.full_like(hit, -1)[..., None])
            flat = p.view(len(block), -1)
            bias_gradient += flat.sum(0, dtype=torch.float64)
            if self.device.type == "cuda":
                _add_products(gradient, flat, block)
                continue
            partial.addmm_(flat.T, block)
            if number % 16 == 15:  # float32 sums over blocks stay short
                gradient += partial
                partial.zero_()
        gradient += partial
        return [losses, gradient.view(probes, c, -1), bias_gradient.view(probes, c)]

    def _blocks(self, probes: int) -> Iterator[tuple[int, Tensor]]:
        if self.device.type == "cuda":
            most, logits = GPU_NUMBERS // self.num_features, GPU_LOGITS
        else:
            most, logits = BLOCK_ROWS, BLOCK_LOGITS
        return self._read(max(FEWEST_ROWS, min(most, logits // (probes * self.num_classes))))


def _add_products(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left.T @ right`` of (b, c) and (b, r) to (c, r) float64.

    By chunks that a GPU computes side by side, and whose float32 sums are short.
    """
    whole = len(left) // CHUNK_ROWS * CHUNK_ROWS
    if whole:
        pair = (part[:whole].view(-1, CHUNK_ROWS, part.shape[1]) for part in (left, right))
        total += torch.bmm(next(pair).mT, next(pair)).sum(0, dtype=torch.float64)
    if whole < len(left):
        total += left[whole:].T @ right[whole:]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.float() for part in parts])
