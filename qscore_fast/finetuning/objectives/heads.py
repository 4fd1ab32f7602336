"""Fresh heads, in the layers' names that heads from a checkpoint have."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from qscore_fast.encoders.training_state import Prototypes

# Hidden layers are as wide as the official ones from this length of the representation on.
OFFICIAL_FEATURES = 2048

LastNorm = Literal["none", "fixed", "scale"]


def mlp_head(
    widths: Sequence[int],
    *,
    bias: bool = False,
    last_bias: bool = False,
    norm: bool = True,
    last_norm: LastNorm = "none",
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """``linear1, norm1, activation1, linear2, ...`` with PyTorch's initialisation.

    Args:
        widths: of the input and of the output of every layer.
        bias, last_bias: whether the linear layers before the last one, and the last one, have a bias.
        norm: whether a batch norm follows every layer but the last.
        last_norm: the batch norm behind the last layer: none, one without weight and bias ("fixed"), or
            one with a weight only ("scale").
        activation: between the layers.
    """
    layers: dict[str, nn.Module] = {}
    count = len(widths) - 1
    for index, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        last = index == count
        layers[f"linear{index}"] = nn.Linear(inputs, outputs, bias=last_bias if last else bias)
        if last and last_norm != "none":
            layers[f"norm{index}"] = nn.BatchNorm1d(outputs, affine=last_norm == "scale")
        if not last:
            if norm:
                layers[f"norm{index}"] = nn.BatchNorm1d(outputs)
            layers[f"activation{index}"] = activation()
    if last_norm == "scale":
        freeze_zero_offset(layers[f"norm{count}"])
    return nn.Sequential(OrderedDict(layers))


def prototypes_head(inputs: int, outputs: int, *, weight_normalised: bool = False) -> Prototypes:
    """Prototypes without bias, with a linear layer's initialisation; lengths 1 where they are apart."""
    weight = nn.Linear(inputs, outputs, bias=False).weight.detach()
    if not weight_normalised:
        return Prototypes({"weight": weight})
    return Prototypes({"weight_v": weight, "weight_g": torch.ones(outputs, 1)})


def hidden_width(official: int, num_features: int) -> int:
    """The official width of a hidden layer, in proportion for representations below 2,048 entries."""
    return max(16, official * min(num_features, OFFICIAL_FEATURES) // OFFICIAL_FEATURES)


def layers_of(head: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    """The layers of one kind, in order."""
    return [layer for layer in head.modules() if isinstance(layer, kind)]


def widths_of(head: nn.Module) -> tuple[int, int]:
    """Length of a head's inputs and of its outputs."""
    if isinstance(head, Prototypes):
        return head.weight_v.shape[1], head.weight_v.shape[0]
    linear = [layer for layer in layers_of(head, nn.Linear) if isinstance(layer, nn.Linear)]
    return linear[0].in_features, linear[-1].out_features


def freeze_zero_offset(norm: nn.Module) -> None:
    """Train no bias of a batch norm that has none but for its zeros, as TensorFlow's ``center=False``."""
    bias = norm.bias
    if isinstance(bias, Tensor) and not bias.any():
        bias.requires_grad_(False)
