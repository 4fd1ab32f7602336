"""Random weights that leave no part of a network idle: batch norms and layer scales included."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qscore_fast.encoders.networks import build_network


def random_tensor(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    noise = torch.randn(shape, generator=generator)
    if name.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=generator)
    if len(shape) > 1 and name.endswith("weight"):
        return noise * math.sqrt(2.0 / math.prod(shape[1:]))
    if name.endswith(("weight", "gamma", "gamma1", "gamma2", "gamma3", "temperature")):
        return 0.5 + torch.rand(shape, generator=generator)
    return 0.3 * noise


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: random_tensor(name, shape, generator) for name, shape in shapes.items()}


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def network_with(architecture: dict, state: Mapping[str, Tensor]) -> nn.Module:
    network = build_network(architecture)
    network.load_state_dict(dict(state), assign=True)
    return network.eval().requires_grad_(False)


def random_network(name: str, seed: int = 0, **arguments: object) -> tuple[nn.Module, dict]:
    """The network with random weights, and its state dict."""
    architecture = {"name": name, "arguments": arguments}
    state = random_state(shapes_of(build_network(architecture)), seed)
    return network_with(architecture, state), state


def random_images(*size: int, seed: int = 1) -> Tensor:
    return torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(seed))


def assert_same_features(actual: Tensor, expected: Tensor) -> None:
    scale = expected.abs().max().item()
    assert scale > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * scale)


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether two sets of features differ by far more than rounding."""
    return bool((a - b).abs().max() > 1e-3 * b.abs().max())
