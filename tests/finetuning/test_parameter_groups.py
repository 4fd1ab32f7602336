"""Which parameters each system exempts from decay, adaptation and the schedule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qscore_fast.errors import SettingsError
from qscore_fast.finetuning.parameter_groups import (
    GROUP_RULES,
    GroupRule,
    parameter_groups,
    set_rates,
)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.predictor = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.same = self.predictor


def names(system: str, key: str) -> set[str]:
    """Names of the parameters in groups where ``key`` is true."""
    net = Network()
    of = {parameter: name for name, parameter in net.named_parameters()}
    groups = parameter_groups(net, system)
    found = [of[p] for group in groups for p in group["params"]]
    assert (
        sorted(found) == sorted(set(found)) == sorted(n for n in of.values() if "frozen" not in n)
    )
    return {of[p] for group in groups if group[key] for p in group["params"]}


WEIGHTS = {"encoder.0.weight", "predictor.weight"}
VECTORS = {"encoder.0.bias", "encoder.1.weight", "encoder.1.bias", "predictor.bias"}


@pytest.mark.parametrize("system", GROUP_RULES)
def test_who_decays_and_adapts(system: str) -> None:
    exempt = system in {
        "simclr", "moco_v3", "byol", "dino", "vicreg", "barlow_twins", "solo_learn",
    }  # fmt: skip
    expected = WEIGHTS if exempt else WEIGHTS | VECTORS
    assert names(system, "decays") == names(system, "adapts") == expected
    fixed = {"predictor.weight", "predictor.bias"} if system == "simsiam" else set()
    assert names(system, "fixed") == fixed


def test_rates_reach_the_optimiser() -> None:
    net = Network()
    rule = GroupRule(vectors_decay=False, vector_share=0.024, fixed="predictor")
    optimizer = torch.optim.SGD(parameter_groups(net, rule), lr=1.0, weight_decay=7.0)
    assert {g["name"]: g["weight_decay"] for g in optimizer.param_groups} == {
        "weights": 7, "vectors": 0, "fixed weights": 7, "fixed vectors": 0,
    }  # fmt: skip
    set_rates(optimizer.param_groups, 0.2, 0.1, fixed_lr=2.0)
    assert {g["name"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups} == {
        "weights": (0.2, 0.1),
        "vectors": (pytest.approx(0.0048), 0),
        "fixed weights": (2.0, 0.1),
        "fixed vectors": (pytest.approx(0.048), 0),
    }


def test_what_cannot_be_grouped_is_refused() -> None:
    with pytest.raises(SettingsError, match="'moko'.*moco_v2"):
        parameter_groups(Network(), "moko")
    with pytest.raises(SettingsError, match="Linear has no submodule 'predictor'"):
        parameter_groups(nn.Linear(2, 2), "simsiam")
    with pytest.raises(SettingsError, match="Linear has no parameter that is trained"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), "byol")
