"""LARS, as the official code of each self-supervised system has it.

They agree on the idea, a step of every weight in proportion to its norm, and differ in three details, which
change the numbers:

* VICReg, Barlow Twins, BYOL, MoCo v3: the rate times trust |w| / |g + d w|, applied to the momentum;
* SimCLR: the same, but applied to the gradient, so that the momentum adds up steps;
* SwAV, by apex's LARC without clipping: the rate times trust |w| / (|g| + d |w|), applied to the momentum;
* solo-learn with ``clip_lr``: as SwAV, and never more than the plain rate.

w is a parameter, g its gradient, d the weight decay. Which parameters are exempt from decay and adaptation
is the business of the groups: see ``parameter_groups``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from qscore_fast.errors import SettingsError

_NORM_EPS = 1e-8

LARS_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "simclr": {"rate_in_momentum": True},
    "swav": {"separate_norms": True},
    "moco_v3": {},
    "byol": {},
    "vicreg": {},
    "barlow_twins": {},
    "solo_learn": {"separate_norms": True, "clip": True, "trust_coefficient": 0.02},
}
"""Arguments of ``LARS`` by whose code it is; solo-learn's are those of its ImageNet-100 BYOL."""


class LARS(torch.optim.Optimizer):
    """Layer-wise adapted rates with momentum.

    Args:
        params: parameters, or groups of them. A group may have any argument below, and ``adapts``: whether
            its rates are adapted, True unless given.
        lr: rate, 0 or more; the adapted rate of a parameter is ``lr`` times its trust ratio.
        momentum: from 0 to below 1.
        weight_decay: 0 or more, added to the gradient before the adaptation.
        trust_coefficient: above 0.
        clip: the adapted rate is at most ``lr``, that is LARC's clipping.
        separate_norms: divide by |g| + d |w| + 1e-8 in place of |g + d w|. A parameter whose norm or whose
            gradient's norm is 0 is then neither decayed nor adapted; otherwise it is only not adapted.
        rate_in_momentum: the momentum adds up steps, in place of directions to which the rate of the day
            is applied; the same as long as the rate is constant.

    Norms are float32 (float64 of float64), everything else has the dtype of the parameter. The tensors of
    a group are handled together (foreach), and nothing waits for the device.

    Raises:
        SettingsError: a number outside its range. RuntimeError: a sparse gradient.

    Source: You et al. 2017, https://arxiv.org/abs/1708.03888, and the code above.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        *,
        clip: bool = False,
        separate_norms: bool = False,
        rate_in_momentum: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "clip": clip,
            "separate_norms": separate_norms,
            "rate_in_momentum": rate_in_momentum,
            "adapts": True,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with what differs for them from the arguments of the optimiser."""
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; ``closure`` computes the loss anew and is returned. Parameters without gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    if parameter.grad.is_sparse:
                        raise RuntimeError(
                            "LARS cannot use a sparse gradient; use a dense embedding"
                        )
                    alike[parameter.device, parameter.dtype].append(parameter)
            for parameters in alike.values():
                self._step(parameters, group)
        return loss

    def _step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if group["adapts"]:
            updates = _adapted(parameters, gradients, group)
        else:
            updates = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        if group["rate_in_momentum"]:
            torch._foreach_mul_(updates, group["lr"])
        momenta = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            momenta.append(state["momentum_buffer"])
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, updates)
        rate = 1.0 if group["rate_in_momentum"] else group["lr"]
        torch._foreach_add_(parameters, momenta, alpha=-rate)


def _adapted(
    parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]
) -> list[Tensor]:
    """The gradients with weight decay, each times its trust ratio."""
    decay = group["weight_decay"]
    updates = list(torch._foreach_add(gradients, parameters, alpha=decay))
    weight = _norms(parameters)
    if group["separate_norms"]:
        gradient = _norms(gradients)
        applies = (weight > 0) & (gradient > 0)
        divisor = gradient + decay * weight + _NORM_EPS
        # A gradient of zeros, decayed, would be a step; what is left of the update is the gradient, 0.
        torch._foreach_mul_(updates, list((gradient > 0).to(updates[0].dtype).unbind()))
    else:
        divisor = _norms(updates)
        applies = (weight > 0) & (divisor > 0)
    ratio = group["trust_coefficient"] * weight / divisor
    if group["clip"]:
        ratio = (ratio / group["lr"]).clamp(max=1) if group["lr"] else torch.ones_like(ratio)
    ratio = torch.where(applies, ratio, 1)
    torch._foreach_mul_(updates, list(ratio.to(updates[0].dtype).unbind()))
    return updates


def _norms(tensors: list[Tensor]) -> Tensor:
    dtype = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    return torch.stack(torch._foreach_norm(tensors, 2, dtype))


def _check(group: Mapping[str, Any]) -> None:
    numbers = (
        ("lr", 0 <= group["lr"] < math.inf, "0 or more"),
        ("momentum", 0 <= group["momentum"] < 1, "from 0 to below 1"),
        ("weight_decay", 0 <= group["weight_decay"] < math.inf, "0 or more"),
        ("trust_coefficient", 0 < group["trust_coefficient"] < math.inf, "above 0"),
    )
    for name, fits, range_ in numbers:
        if not fits:
            raise SettingsError(f"LARS: {name} is {group[name]}; it must be {range_}")
