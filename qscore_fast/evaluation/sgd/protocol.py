"""SGDProtocol: everything that decides how a linear probe is trained by SGD."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from qscore_fast.errors import SettingsError

Schedule = Literal["constant", "steps", "cosine-by-epoch", "cosine-by-step"]
Start = Literal["zero", "normal", "uniform-by-fan-in", "truncated-normal-by-fan-in"]


@dataclass(frozen=True)
class SGDProtocol:
    """How a linear probe is trained by stochastic gradient descent.

    Attributes:
        rates: learning rates to try; each trains a probe of its own.
        epochs: passes over the rows. batch_size: rows a step.
        scaled: the rates are those of 256 rows a step: what is used is rate * batch_size / 256.
        momentum: of SGD. nesterov: its variant.
        weight_decay: added to the gradient as ``weight_decay * parameter``, of the bias, too.
        schedule: ``steps`` divides the rate by ten at each share of the epochs in ``drops``; the cosine goes
            to 0 at the end, in steps of an epoch or of a batch.
        start: of the weight: 0; N(0, 0.01); U(-1, 1) / sqrt(r), of the bias, too, PyTorch's default; a
            normal of spread 1 / sqrt(r) cut at two spreads, Haiku's. The bias is 0 otherwise.
        trust: of LARC (You et al. 2017, as in NVIDIA's apex without clipping); None for plain SGD.
        source: whose it is.
    """

    rates: tuple[float, ...]
    epochs: int = 100
    batch_size: int = 256
    scaled: bool = False
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Schedule = "cosine-by-epoch"
    drops: tuple[float, ...] = ()
    start: Start = "normal"
    trust: float | None = None
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.rates or not all(rate > 0 and math.isfinite(rate) for rate in self.rates):
            raise SettingsError(
                f"learning rates are {list(self.rates)}: give finite numbers above 0"
            )
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}: give a number from 1 on")
        if not 0 <= self.momentum < 1:
            raise SettingsError(f"momentum is {self.momentum:g}: give a number from 0 to below 1")

    @property
    def used_rates(self) -> tuple[float, ...]:
        """The rates at the start of training, at this batch size."""
        factor = self.batch_size / 256 if self.scaled else 1.0
        return tuple(rate * factor for rate in self.rates)

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """What multiplies the rate at a step, both from 0 on."""
        epoch = step // steps_per_epoch
        if self.schedule == "cosine-by-epoch":
            return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        if self.schedule == "cosine-by-step":
            return 0.5 * (1 + math.cos(math.pi * step / (self.epochs * steps_per_epoch)))
        if self.schedule == "steps":
            return 0.1 ** sum(epoch >= round(share * self.epochs) for share in self.drops)
        return 1.0
