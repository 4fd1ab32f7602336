"""Random weights under given names, and the plain layers that read them back by these names."""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

State = MutableMapping[str, Tensor]
EPS = 1e-5


class Weights:
    """Draws tensors that keep activations near unit scale, and no two alike."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=self.generator) * std

    def uniform(self, *shape: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def conv(self, out: int, into: int, kernel: int) -> Tensor:
        return self.normal(out, into, kernel, kernel, std=math.sqrt(2 / (into * kernel * kernel)))

    def linear(self, out: int, into: int) -> Tensor:
        return self.normal(out, into, std=math.sqrt(1 / into))

    def batch_norm(
        self, state: State, name: str, width: int, affine: bool = True, tracked: bool = True,
        gain: float = 1.0,
    ) -> None:  # fmt: skip
        if affine:
            state[f"{name}.weight"] = gain * self.uniform(width, low=0.7, high=1.3)
            state[f"{name}.bias"] = self.normal(width, std=0.2)
        state[f"{name}.running_mean"] = self.normal(width, std=0.2)
        state[f"{name}.running_var"] = self.uniform(width, low=0.6, high=1.6)
        if tracked:
            state[f"{name}.num_batches_tracked"] = torch.tensor(1000)

    def layer_norm(self, state: State, name: str, width: int) -> None:
        state[f"{name}.weight"] = self.uniform(width, low=0.7, high=1.3)
        state[f"{name}.bias"] = self.normal(width, std=0.2)


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    """Frozen batch normalisation with the statistics and, if there, the affine part under `name`."""
    return F.batch_norm(
        x,
        state[f"{name}.running_mean"],
        state[f"{name}.running_var"],
        state.get(f"{name}.weight"),
        state.get(f"{name}.bias"),
        eps=EPS,
    )


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


@dataclass(frozen=True)
class Linear:
    name: str
    into: int
    out: int
    bias: bool = True

    def write(self, weights: Weights, state: State, prefix: str) -> None:
        state[f"{prefix}{self.name}.weight"] = weights.linear(self.out, self.into)
        if self.bias:
            state[f"{prefix}{self.name}.bias"] = weights.normal(self.out, std=0.2)

    def run(self, state: State, prefix: str, x: Tensor) -> Tensor:
        return linear(state, prefix + self.name, x)


@dataclass(frozen=True)
class BatchNorm:
    name: str
    width: int
    affine: bool = True

    def write(self, weights: Weights, state: State, prefix: str) -> None:
        weights.batch_norm(state, prefix + self.name, self.width, self.affine)

    def run(self, state: State, prefix: str, x: Tensor) -> Tensor:
        return batch_norm(state, prefix + self.name, x)


@dataclass(frozen=True)
class Activation:
    function: Callable[[Tensor], Tensor]

    def write(self, weights: Weights, state: State, prefix: str) -> None:
        pass

    def run(self, state: State, prefix: str, x: Tensor) -> Tensor:
        return self.function(x)


RELU, GELU = Activation(F.relu), Activation(F.gelu)
Layer = Linear | BatchNorm | Activation


def mlp(weights: Weights, state: State, prefix: str, *layers: Layer) -> Callable[[Tensor], Tensor]:
    """Write a head under `prefix` and return its forward."""
    for layer in layers:
        layer.write(weights, state, prefix)

    def run(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer.run(state, prefix, x)
        return x

    return run


def weight_normed(weight_g: Tensor, weight_v: Tensor) -> Tensor:
    """The effective weight of a weight-normed Linear, one norm per output row."""
    return weight_g * weight_v / weight_v.norm(dim=1, keepdim=True)
