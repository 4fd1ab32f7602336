"""LARS against step-by-step float64 transcriptions of the official optimisers, and its resumption."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from qscore_fast.errors import SettingsError
from qscore_fast.finetuning.lars import LARS, LARS_OPTIONS
from qscore_fast.finetuning.parameter_groups import parameter_groups

Arrays = list[np.ndarray]
STEPS = 6
DECAY, MOMENTUM, TRUST = 0.3, 0.9, 1e-3


def rates(step: int) -> float:
    """0 at first, as a warm-up begins, then of different sizes."""
    return [0.0, 0.8, 2.0, 0.5, 0.01, 1.5][step]


def network(dtype: torch.dtype) -> nn.Module:
    """Weights and vectors, among them a weight of zeros."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3, bias=False))
    nn.init.zeros_(net[2].weight)
    return net.to(dtype)


def gradients(shapes: list[tuple[int, ...]], step: int) -> Arrays:
    """Of any size; those of the first weight are zeros in one step."""
    random = np.random.default_rng(step)
    result = [random.standard_normal(shape) * 10.0 ** random.integers(-2, 2) for shape in shapes]
    if step == 2:
        result[0][:] = 0
    return result


def vicreg(w: Arrays, g: Arrays, v: Arrays, lr: float) -> None:
    """VICReg's, Barlow Twins' and MoCo v3's: excluded vectors, rate outside the momentum."""
    for i in range(len(w)):
        d = g[i].copy()
        if w[i].ndim > 1:
            d = d + DECAY * w[i]
            weight, update = math.sqrt((w[i] ** 2).sum()), math.sqrt((d**2).sum())
            d = d * (TRUST * weight / update if weight > 0 and update > 0 else 1.0)
        v[i] = MOMENTUM * v[i] + d
        w[i] = w[i] - lr * v[i]


def simclr(w: Arrays, g: Arrays, v: Arrays, lr: float) -> None:
    """LARSOptimizer with classic momentum: the adapted rate is inside it."""
    for i in range(len(w)):
        d, scaled = g[i].copy(), lr
        if w[i].ndim > 1:
            d = d + DECAY * w[i]
            weight, update = math.sqrt((w[i] ** 2).sum()), math.sqrt((d**2).sum())
            scaled = lr * (TRUST * weight / update if weight > 0 and update > 0 else 1.0)
        v[i] = MOMENTUM * v[i] + scaled * d
        w[i] = w[i] - v[i]


def larc(
    w: Arrays, g: Arrays, v: Arrays, lr: float, trust: float, clip: bool, exempt: bool
) -> None:
    """apex's LARC around SGD, or solo-learn's LARS, which exempts vectors."""
    for i in range(len(w)):
        d = g[i].copy()
        weight, gradient = math.sqrt((w[i] ** 2).sum()), math.sqrt((d**2).sum())
        if not (exempt and w[i].ndim == 1) and weight != 0 and gradient != 0:
            adapted = trust * weight / (gradient + weight * DECAY + 1e-8)
            if clip:
                adapted = min(adapted / lr, 1) if lr else 1
            d = (d + DECAY * w[i]) * adapted
        v[i] = MOMENTUM * v[i] + d
        w[i] = w[i] - lr * v[i]


def swav(w: Arrays, g: Arrays, v: Arrays, lr: float) -> None:
    larc(w, g, v, lr, TRUST, clip=False, exempt=False)


def solo_learn(w: Arrays, g: Arrays, v: Arrays, lr: float) -> None:
    larc(w, g, v, lr, 0.02, clip=True, exempt=True)


TRANSCRIPTIONS: dict[str, Callable[[Arrays, Arrays, Arrays, float], None]] = {
    "simclr": simclr,
    "swav": swav,
    "moco_v3": vicreg,
    "byol": vicreg,
    "vicreg": vicreg,
    "solo_learn": solo_learn,
}


def optimiser(system: str, net: nn.Module) -> LARS:
    groups = parameter_groups(net, system)
    return LARS(groups, 1.0, weight_decay=DECAY, **LARS_OPTIONS[system])


def take_steps(net: nn.Module, lars: LARS, steps: range) -> None:
    parameters = list(net.parameters())
    for step in steps:
        for parameter, gradient in zip(
            parameters, gradients([tuple(p.shape) for p in parameters], step), strict=True
        ):
            parameter.grad = torch.from_numpy(gradient).to(parameter)
        for group in lars.param_groups:
            group["lr"] = rates(step)
        lars.step()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("system", TRANSCRIPTIONS)
def test_equals_the_official_optimiser(system: str, dtype: torch.dtype) -> None:
    net = network(dtype)
    w = [p.detach().double().numpy().copy() for p in net.parameters()]
    v = [np.zeros_like(one) for one in w]
    for step in range(STEPS):
        TRANSCRIPTIONS[system](w, gradients([one.shape for one in w], step), v, rates(step))
    lars = optimiser(system, net)
    take_steps(net, lars, range(STEPS))
    close = (
        {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    )
    for parameter, expected, momentum in zip(net.parameters(), w, v, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, **close)
        buffer = lars.state[parameter]["momentum_buffer"]
        np.testing.assert_allclose(buffer.numpy(), momentum, **close)


def test_barlow_twins_gives_vectors_a_rate_of_their_own() -> None:
    """0.2 for weights and 0.0048 for biases, of which the loop sees one rate and a share."""
    net = network(torch.float64)
    start = [p.detach().clone() for p in net.parameters()]
    lars = LARS(parameter_groups(net, "barlow_twins"), 1.0, weight_decay=DECAY)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    for group in lars.param_groups:
        group["lr"] = 0.2 * group["share"]
    lars.step()
    for before, parameter in zip(start, net.parameters(), strict=True):
        if parameter.ndim == 1:
            torch.testing.assert_close(before - parameter, torch.full_like(before, 0.0048))


def test_without_adaptation_it_is_sgd() -> None:
    nets = [network(torch.float64), network(torch.float64)]
    lars = LARS([{"params": nets[0].parameters(), "adapts": False}], 0.1, weight_decay=0.2)
    sgd = torch.optim.SGD(nets[1].parameters(), 0.1, 0.9, weight_decay=0.2)
    for net, steps in zip(nets, (lars, sgd), strict=True):
        take_steps(net, steps, range(STEPS))
    for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("system", ["simclr", "solo_learn"])
def test_resumes_to_the_bit(system: str) -> None:
    whole = network(torch.float32)
    lars = optimiser(system, whole)
    take_steps(whole, lars, range(3))
    stopped = copy.deepcopy((whole.state_dict(), lars.state_dict()))
    take_steps(whole, lars, range(3, STEPS))

    resumed = network(torch.float32)
    resumed.load_state_dict(stopped[0])
    lars = optimiser(system, resumed)
    lars.load_state_dict(stopped[1])
    take_steps(resumed, lars, range(3, STEPS))
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_what_has_no_gradient_stays() -> None:
    net = network(torch.float32)
    lars = optimiser("vicreg", net)
    before = copy.deepcopy(net.state_dict())
    net[0].weight.grad = torch.ones_like(net[0].weight)
    assert lars.step(lambda: 2.5) == 2.5
    changed = [k for k, v in net.state_dict().items() if not torch.equal(v, before[k])]
    assert changed == ["0.weight"]
    assert len(lars.state) == 1


def test_bfloat16_steps_by_a_share_of_the_norm() -> None:
    """A step is as long as the trust coefficient times the weight, whatever the gradient's size."""
    weight = torch.full((4, 4), 2.0, dtype=torch.bfloat16, requires_grad=True)
    weight.grad = torch.full_like(weight, 1e15)
    LARS([weight], 1.0, trust_coefficient=0.25).step()
    torch.testing.assert_close(weight.detach(), torch.full_like(weight, 1.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, "lr is -1.0.*0 or more"),
        ({"lr": 1.0, "momentum": 1.0}, "momentum is 1.0.*below 1"),
        ({"lr": 1.0, "weight_decay": math.nan}, "weight_decay is nan"),
        ({"lr": 1.0, "trust_coefficient": 0.0}, "trust_coefficient is 0.0.*above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        LARS([torch.zeros(1, requires_grad=True)], **arguments)
    if "lr" not in arguments or arguments["lr"] >= 0:
        lars = LARS([torch.zeros(1, requires_grad=True)], 1.0)
        with pytest.raises(SettingsError, match=message):
            lars.add_param_group({"params": [torch.zeros(1, requires_grad=True)], **arguments})


def test_a_sparse_gradient_is_refused() -> None:
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        LARS(embedding.parameters(), 0.1).step()
