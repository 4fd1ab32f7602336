"""fit_sgd: linear probes by SGD, all rates and sets of features in one reading of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.sgd.batches import Batches
from qscore_fast.evaluation.sgd.protocol import SGDProtocol

LARC_EPS = 1e-8


@dataclass(frozen=True, eq=False)
class SGDFit:
    """A trained probe: logits are ``h @ weight.T + bias``.

    Attributes:
        weight: (C, r) float32, zero at features that it does not see. bias: (C,) float32.
        rate: learning rate at the start, as the protocol writes it.
        protocol: how it was trained.
        losses: (epochs,) float64, mean cross-entropy of the rows as they were met in each epoch.
    """

    weight: Tensor
    bias: Tensor
    rate: float
    protocol: SGDProtocol
    losses: np.ndarray

    @property
    def finite(self) -> bool:
        """Whether training went well; false where the rate was far too large."""
        return bool(torch.isfinite(self.weight).all() and torch.isfinite(self.bias).all())

    def logits(self, h: Tensor) -> Tensor:
        """(n, C) float32 for rows (n, r)."""
        return torch.addmm(self.bias, h.to(self.weight), self.weight.T)


def fit_sgd(
    rows: FeatureRows,
    targets: np.ndarray,
    num_classes: int,
    protocol: SGDProtocol,
    *,
    subsets: Sequence[np.ndarray] | None = None,
    chosen: np.ndarray | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    resident: int | None = None,
) -> list[SGDFit]:
    """Train a probe for every set of features and learning rate of a protocol.

    The weights are one matrix (G C, r), so that a batch is read once and multiplied once for all G probes.
    They do not touch one another: each is what it would be alone, to rounding, and all begin at the same
    weights and see the same batches. The same seed gives the same bits on the same device. Products and
    states are float32; between batches nothing waits for the device.

    Args:
        rows: (N, r). targets: (N,) int64, 0 to C - 1. num_classes: C.
        subsets: sets of features, int64; each is trained at each rate. None: all features.
        chosen: train on these rows alone, (n,) int64.
        seed: of the start and the order of the rows.
        device: where to train; see :class:`Batches` for where the rows stay.
        resident: see :class:`Batches`.

    Returns:
        For each set of features in turn, the probes of all rates.

    Raises:
        SettingsError: lengths differ, a class outside 0 to C - 1, features that are not there, NaN or Inf.
    """
    if len(rows) != len(targets):
        raise SettingsError(
            f"{len(rows):,} representations and {len(targets):,} labels: give one label for each"
        )
    if targets.dtype != np.int64 or not 0 <= targets.min() <= targets.max() < num_classes:
        raise SettingsError(f"targets are no int64 classes from 0 to {num_classes - 1}")
    batches = Batches(
        rows, targets, protocol.batch_size,
        seed=seed, chosen=chosen, device=device, resident=resident,
    )  # fmt: skip
    mask = None if subsets is None else _mask(subsets, rows.num_features).to(batches.device)
    num_sets = 1 if mask is None else len(mask)
    state = _State(protocol, num_sets, num_classes, rows.num_features, seed, mask, batches.device)
    steps = len(batches)
    factors = [protocol.factor(step, steps) for step in range(protocol.epochs * steps)]
    # All rates of all steps are on the device before training starts.
    rates = torch.tensor(protocol.used_rates * num_sets, dtype=torch.float64)
    table = (torch.tensor(factors, dtype=torch.float64)[:, None] * rates).float()
    table = table.to(batches.device)
    losses = torch.zeros(protocol.epochs, len(rates), device=batches.device)
    with torch.no_grad():
        for epoch in range(protocol.epochs):
            for number, (x, y) in enumerate(batches.epoch(epoch)):
                state.step(x, y, table[epoch * steps + number], losses[epoch])
    count = len(rows) if chosen is None else len(chosen)
    curves = (losses.double() / count).cpu().numpy()
    return [
        SGDFit(weight, bias, rate, protocol, curves[:, number])
        for number, (weight, bias, rate) in enumerate(
            zip(state.weight, state.bias, protocol.rates * num_sets, strict=True)
        )
    ]


class _State:
    """Weights (G, C, r), biases (G, C) and their velocities."""

    def __init__(
        self,
        protocol: SGDProtocol,
        num_sets: int,
        num_classes: int,
        num_features: int,
        seed: int,
        mask: Tensor | None,
        device: torch.device,
    ) -> None:
        self.protocol = protocol
        self.probes, self.classes = num_sets * len(protocol.rates), num_classes
        weight, bias = _start(protocol, num_classes, num_features, seed)
        self.mask = None if mask is None else mask.repeat_interleave(len(protocol.rates), 0)
        self.weight = weight.to(device).repeat(self.probes, 1, 1)
        self.bias = bias.to(device).repeat(self.probes, 1)
        if self.mask is not None:
            self.weight *= self.mask[:, None]
        self.velocity = torch.zeros_like(self.weight)
        self.bias_velocity = torch.zeros_like(self.bias)

    def step(self, x: Tensor, y: Tensor, rates: Tensor, losses: Tensor) -> None:
        """One batch: (b, r), (b,), and (G,) each of rates and of sums that the losses are added to."""
        joint = self.weight.flatten(0, 1)
        logits = torch.addmm(self.bias.flatten(), x, joint.T).view(len(x), self.probes, -1)
        p = logits.log_softmax(-1)
        wanted = y[:, None, None].expand(-1, self.probes, 1)
        losses -= p.gather(-1, wanted)[..., 0].sum(0)
        p.exp_().scatter_add_(-1, wanted, p.new_full((), -1.0).expand_as(wanted))
        p /= len(x)
        gradient = (p.flatten(1).T @ x).view_as(self.weight)
        if self.mask is not None:
            gradient *= self.mask[:, None]
        self._move(self.weight, gradient, self.velocity, rates[:, None, None])
        self._move(self.bias, p.sum(0), self.bias_velocity, rates[:, None])

    def _move(self, value: Tensor, gradient: Tensor, velocity: Tensor, rates: Tensor) -> None:
        protocol = self.protocol
        trust = None if protocol.trust is None else _trust(value, gradient, protocol)
        if protocol.weight_decay:
            gradient.add_(value, alpha=protocol.weight_decay)
        if trust is not None:
            gradient *= trust.view(rates.shape)
        torch.add(gradient, velocity, alpha=protocol.momentum, out=velocity)
        step = gradient.add_(velocity, alpha=protocol.momentum) if protocol.nesterov else velocity
        value.addcmul_(step, rates, value=-1)


def _trust(value: Tensor, gradient: Tensor, protocol: SGDProtocol) -> Tensor:
    """LARC's factor of each probe; 1 where a norm is 0."""
    norm = torch.linalg.vector_norm(value.flatten(1), dim=1)
    slope = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    factor = protocol.trust * norm / (slope + norm * protocol.weight_decay + LARC_EPS)
    return torch.where((norm > 0) & (slope > 0), factor, torch.ones_like(factor))


def _start(protocol: SGDProtocol, classes: int, r: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.zeros(classes, r), torch.zeros(classes)
    if protocol.start == "normal":
        weight.normal_(0, 0.01, generator=generator)
    elif protocol.start == "uniform-by-fan-in":
        weight.uniform_(-(r**-0.5), r**-0.5, generator=generator)
        bias.uniform_(-(r**-0.5), r**-0.5, generator=generator)
    elif protocol.start == "truncated-normal-by-fan-in":
        spread = r**-0.5
        torch.nn.init.trunc_normal_(weight, 0, spread, -2 * spread, 2 * spread, generator=generator)
    return weight, bias


def _mask(subsets: Sequence[np.ndarray], r: int) -> Tensor:
    mask = torch.zeros(len(subsets), r)
    for row, columns in zip(mask, subsets, strict=True):
        if columns.ndim != 1 or not len(columns) or not 0 <= columns.min() <= columns.max() < r:
            raise SettingsError(f"a subset holds no feature, or one outside 0 to {r - 1}")
        row[torch.from_numpy(np.asarray(columns, np.int64))] = 1
    return mask
