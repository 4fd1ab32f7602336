"""The probe of a protocol: of several learning rates, the one that is best on rows that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.sgd.fit import SGDFit, fit_sgd
from qscore_fast.evaluation.sgd.protocol import SGDProtocol

HELD_OUT = 0.1
BLOCK_LOGITS = 1 << 22


@dataclass(frozen=True)
class ProtocolFit:
    """The probe, and how its learning rate was found.

    Attributes:
        fit: trained on all rows.
        held_out: accuracy on the held-out rows by learning rate, of probes that were trained on the others;
            empty where there was one rate.
        num_rows: N, of the training rows.
    """

    fit: SGDFit
    held_out: dict[float, float]
    num_rows: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know, one sentence each."""
        size = self.fit.protocol.batch_size
        if self.num_rows >= size:
            return ()
        return (
            f"{self.num_rows:,} training images are fewer than the {size:,} of a step: every epoch is one "
            "step of all images, at the learning rate that the protocol has for a full one; more epochs, or "
            "another protocol, may suit them better",
        )

    @property
    def weight(self) -> Tensor:
        """(C, r) float32."""
        return self.fit.weight

    @property
    def bias(self) -> Tensor:
        """(C,) float32."""
        return self.fit.bias

    def logits(self, h: Tensor) -> Tensor:
        """(n, C) float32 for rows (n, r)."""
        return self.fit.logits(h)

    def to_json(self) -> dict[str, Any]:
        """How it was trained, in plain values."""
        return {
            **asdict(self.fit.protocol),
            "rates": [self.fit.rate],
            "held_out_accuracy": [
                {"rate": rate, "top1": top1} for rate, top1 in self.held_out.items()
            ],
            "loss_by_epoch": self.fit.losses.tolist(),
        }

    def line(self) -> str:
        """For a terminal."""
        protocol = self.fit.protocol
        of = f", the best of {len(self.held_out)} on held-out images" if self.held_out else ""
        return (
            f"SGD, {protocol.epochs} epochs of {protocol.batch_size} a step, learning rate "
            f"{protocol.used_rates[0]:.4g}{of}; loss in the last epoch {self.fit.losses[-1]:.4g}"
        )


def fit_protocol(
    rows: FeatureRows,
    targets: np.ndarray,
    num_classes: int,
    protocol: SGDProtocol,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> ProtocolFit:
    """Train a protocol's probe on cached features.

    Of several rates, all are trained at once on nine tenths of the rows; the best on the last tenth (the
    smallest of equal ones) is trained again on all. DINOv2 chooses on the test set itself.

    Raises:
        SettingsError: too few rows to hold some out, training that ends in NaN at every rate, and what
            :func:`fit_sgd` refuses.
    """
    held_out: dict[float, float] = {}
    if len(protocol.rates) > 1:
        if len(rows) < 2:
            raise SettingsError(
                f"{len(rows)} representation: give two or more to choose a learning rate by"
            )
        order = np.random.default_rng(seed).permutation(len(rows))
        count = max(1, round(HELD_OUT * len(order)))
        held, kept = np.sort(order[:count]), np.sort(order[count:])
        fits = fit_sgd(rows, targets, num_classes, protocol, chosen=kept, seed=seed, device=device)
        found = accuracies(fits, rows, targets, held)
        held_out = dict(zip(protocol.rates, found, strict=True))
        going = [rate for fit, rate in zip(fits, protocol.rates, strict=True) if fit.finite]
        _check(going, protocol)
        best = max(sorted(going), key=held_out.__getitem__)
        protocol = replace(protocol, rates=(best,))
    fit = fit_sgd(rows, targets, num_classes, protocol, seed=seed, device=device)[0]
    _check([fit.rate] if fit.finite else [], protocol)
    return ProtocolFit(fit, held_out, len(rows))


def accuracies(
    fits: Sequence[SGDFit], rows: FeatureRows, targets: np.ndarray, chosen: np.ndarray
) -> list[float]:
    """Top-1 of each probe on the chosen rows (n,) int64, from one reading of them."""
    weight = torch.cat([fit.weight for fit in fits])
    bias = torch.cat([fit.bias for fit in fits])
    size = max(1, BLOCK_LOGITS // len(bias))
    right = torch.zeros(len(fits), dtype=torch.int64, device=weight.device)
    for start in range(0, len(chosen), size):
        part = chosen[start : start + size]
        x = torch.from_numpy(rows.gather(part)).to(weight)
        wanted: Tensor = torch.from_numpy(targets[part]).to(weight.device)
        logits = torch.addmm(bias, x, weight.T).view(len(part), len(fits), -1)
        right += (logits.argmax(-1) == wanted[:, None]).sum(0)
    return (right.double() / len(chosen)).tolist()


def _check(going: Sequence[float], protocol: SGDProtocol) -> None:
    if not going:
        raise SettingsError(
            f"training ended in NaN at the learning rates {list(protocol.rates)}: the representations are "
            "large for them; give smaller ones"
        )
