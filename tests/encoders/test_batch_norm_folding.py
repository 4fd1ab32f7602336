"""Folding changes nothing but rounding, and is left undone wherever it would change more."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from small_networks import resnet18, with_statistics
from torch import Tensor, nn

from qscore_fast.encoders.batch_norm_folding import fold_batch_norm
from qscore_fast.encoders.networks import build_network


def norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


def difference(module: nn.Module) -> tuple[int, str | None, float]:
    """Folded in a copy: how many, the reason, the largest relative difference in float64."""
    module = with_statistics(module).double()
    folded = copy.deepcopy(module)
    count, reason = fold_batch_norm(folded)
    assert norms(module) - norms(folded) == count
    images = torch.randn(3, 3, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        expected, found = module(images), folded(images)
    return count, reason, ((found - expected).abs().max() / expected.abs().max()).item()


def conv(*shape: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(*shape, **options)  # type: ignore[arg-type]


def test_a_resnet() -> None:
    module = resnet18().double()
    folded = copy.deepcopy(module)
    assert fold_batch_norm(folded) == (20, None)
    assert norms(folded) == 0
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), module(images), rtol=1e-12, atol=1e-12)


def test_selective_kernels() -> None:
    arguments = {"layers": [1, 2, 1, 1], "width": 8}
    module = build_network({"name": "simclr_v2_resnet", "arguments": arguments})
    module = module.to_empty(device="cpu")
    torch.manual_seed(0)
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.2)
    count, reason, error = difference(module)
    assert (count, reason) == (norms(module), None)
    assert error < 1e-12


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(conv(3, 4, 3, bias=True), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(conv(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)),
        lambda: nn.Sequential(conv(3, 6, 3, stride=2, groups=3), nn.BatchNorm2d(6, eps=0.1)),
        lambda: nn.Sequential(conv(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4)),
    ],
)
def test_kinds_of_convolutions(build: Callable[[], nn.Module]) -> None:
    count, reason, error = difference(build())
    assert (count, reason) == (1, None)
    assert error < 1e-12


def test_same_padding_that_depends_on_the_size() -> None:
    from qscore_fast.encoders.networks.same_padding import SameConv2d

    count, _, error = difference(
        nn.Sequential(SameConv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4))
    )
    assert count == 1
    assert error < 1e-12


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class ConvTwice(ReadTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(self.conv(x)))


class NormTwice(ReadTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.norm(self.conv(x)))


class WeightRead(ReadTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * self.conv.weight.mean()


class NormReadsWeight(ReadTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.norm.bias.mean()


class ReluBetween(ReadTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).relu())


class DependsOnValues(ReadTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else x


class Functional(ReadTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.conv2d(x, self.conv.weight))


class OtherConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).abs()


def unknown_subclass() -> nn.Module:
    return nn.Sequential(OtherConv(3, 3, 1), nn.BatchNorm2d(3))


def hooked() -> nn.Module:
    module = nn.Sequential(conv(3, 3, 1), nn.BatchNorm2d(3))
    module[0].register_forward_hook(lambda layer, inputs, output: output.abs())
    return module


def one_weight_in_two_layers() -> nn.Module:
    module = nn.Sequential(conv(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), conv(3, 3, 1))
    module[3].weight = module[0].weight
    return module


def parametrised() -> nn.Module:
    module = nn.Sequential(conv(3, 3, 1), nn.BatchNorm2d(3))
    nn.utils.parametrizations.weight_norm(module[0])
    return module


def batch_statistics() -> nn.Module:
    return nn.Sequential(conv(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))


@pytest.mark.parametrize(
    "build",
    [
        ReadTwice, ConvTwice, NormTwice, WeightRead, NormReadsWeight, ReluBetween, DependsOnValues,
        Functional, unknown_subclass, hooked, one_weight_in_two_layers, parametrised,
        batch_statistics,
    ],
)  # fmt: skip
def test_left_alone(build: Callable[[], nn.Module]) -> None:
    count, reason, error = difference(build())
    assert count == 0
    assert reason is not None
    assert "not folded" in reason
    assert error == 0


def test_nothing_to_fold() -> None:
    assert fold_batch_norm(nn.Sequential(conv(3, 3, 1)).eval()) == (
        0,
        "there is no batch norm to fold",
    )
