"""The layers of a head, whatever a repository calls them, under one scheme."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from qscore_fast.errors import EncoderError

PROTOTYPES = re.compile(
    r"^(?:prototypes\d*\.|heads\.0\.|last_layer\.)?(weight|weight_g|weight_v|bias)$"
)
_RENAMED = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


def mlp_names(state: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """``linear1.weight``, ``norm1.running_mean``, ``linear2.weight``, ... in the order of the layers.

    Layers are told apart by their tensors (a matrix is a linear layer, running statistics are a batch
    norm) and ordered by the numbers in their names, at equal numbers the linear layer first.

    Raises:
        EncoderError: a layer is neither, or the first one is a norm.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer, _, field = name.rpartition(".")
        layers.setdefault(layer, {})[field] = tensor
    kinds = {layer: _kind(f"{what}.{layer}", fields) for layer, fields in layers.items()}
    named: dict[str, Tensor] = {}
    count = 0
    for layer in sorted(layers, key=lambda layer: (_numbers(layer), kinds[layer] == "norm", layer)):
        count += kinds[layer] == "linear"
        new = f"{kinds[layer]}{count}"
        if count == 0 or any(key.startswith(f"{new}.") for key in named):
            raise EncoderError(
                f"{what} is not a stack of linear layers with norms: {layer} is out of place"
            )
        named.update({f"{new}.{field}": tensor for field, tensor in layers[layer].items()})
    return named


def prototype_names(state: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """``weight`` or ``weight_g`` and ``weight_v``, and ``bias``, without what stands before them.

    Raises:
        EncoderError: several sets of prototypes, or other tensors.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        found = PROTOTYPES.match(_RENAMED.get(name, name))
        if found is None or found[1] in named:
            raise EncoderError(f"{what} is not one set of prototypes: {name} has no place")
        named[found[1]] = tensor
    return named


def _kind(what: str, fields: Mapping[str, Tensor]) -> str:
    weight = fields.get("weight")
    if weight is not None and weight.ndim == 2 and set(fields) <= {"weight", "bias"}:
        return "linear"
    if "running_mean" in fields and set(fields) <= {
        "weight", "bias", "running_mean", "running_var", "num_batches_tracked"
    }:  # fmt: skip
        return "norm"
    raise EncoderError(f"{what} is neither a linear layer nor a batch norm: {', '.join(fields)}")


def _numbers(layer: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,9}", layer)]
