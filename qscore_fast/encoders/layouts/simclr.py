"""SimCLR's TensorFlow variables and their copies in another project's PyTorch, under this project's names.

Both list convolutions and batch norms in the order in which the TensorFlow graph makes them; that order
is all that connects them with layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from qscore_fast.encoders.networks import infer_tensorflow_architecture, tensorflow_order
from qscore_fast.errors import EncoderError

_TOWER = r"(?P<ema>ema_model/)?"
_VARIABLE = re.compile(
    _TOWER + r"base_model/(?P<kind>conv2d|batch_normalization)(?:_(?P<n>\d{1,6}))?/(?P<field>\w+)$"
)
_HEAD = re.compile(
    _TOWER
    + r"head_contrastive/nl_(?P<n>\d{1,6})/(?P<kind>dense|batch_normalization)\w*/(?P<field>\w+)$"
)
_CLASSIFIER = re.compile(_TOWER + r"head_supervised/linear_layer/dense/(?P<field>kernel|bias)$")
_FIELDS = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
_OPTIMISER = ("Momentum", "LARSOptimizer", "ExponentialMovingAverage", "Adam")

Layer = dict[str, Tensor]


def is_simclr(content: object) -> bool:
    """Whether these are the variables of a SimCLR checkpoint."""
    return isinstance(content, Mapping) and any(_VARIABLE.match(str(name)) for name in content)


def tensorflow_tensors(variables: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """``online.backbone.conv1.weight`` and so on, and what was left out and why.

    Raises:
        EncoderError: the variables are not those of SimCLR's networks.
    """
    ignored: dict[str, str] = {}
    layers: dict[tuple[str, str], dict[int, Layer]] = {}
    tensors: dict[str, Tensor] = {}
    for name, value in zip(map(str, variables), variables.values(), strict=True):
        last = name.rpartition("/")[2]
        if not isinstance(value, Tensor) or name == "global_step" or last.startswith(_OPTIMISER):
            ignored[name] = "training progress or optimiser state"
            continue
        found = _VARIABLE.match(name)
        if found and found["field"] in _FIELDS:
            tower = "ema" if found["ema"] else "online"
            place = layers.setdefault((tower, found["kind"]), {}).setdefault(
                int(found["n"] or 0), {}
            )
            place[_FIELDS[found["field"]]] = _in_torch_order(value)
            continue
        found = _HEAD.match(name)
        if found and found["field"] in _FIELDS:
            tower = "ema" if found["ema"] else "online"
            kind = "linear" if found["kind"] == "dense" else "norm"
            key = f"{tower}.projector.{kind}{int(found['n']) + 1}.{_FIELDS[found['field']]}"
            tensors[key] = _in_torch_order(value)
            continue
        found = _CLASSIFIER.match(name)
        if found is None:
            raise EncoderError(f"variable {name} has no place in SimCLR's networks")
        tower = "ema" if found["ema"] else "online"
        tensors[f"{tower}.classifier.{_FIELDS[found['field']]}"] = _in_torch_order(value)
    for tower in ("online", "ema"):
        if (tower, "conv2d") in layers:
            convolutions = _in_order(layers[tower, "conv2d"], f"{tower} convolutions")
            norms = _in_order(
                layers.get((tower, "batch_normalization"), {}), f"{tower} batch norms"
            )
            kernels = [layer["weight"] for layer in convolutions if "weight" in layer]
            backbone = _named(kernels, norms)
            tensors |= {f"{tower}.backbone.{name}": value for name, value in backbone.items()}
    return tensors, ignored


def pytorch_tensors(resnet: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same from the converter's two state dicts, whose order is that of the graph as well."""
    convolutions: list[Tensor] = []
    norms: dict[str, Layer] = {}
    tensors: dict[str, Tensor] = {}
    for name, value in resnet.items():
        layer, _, field = name.rpartition(".")
        if layer == "fc":
            tensors[f"online.classifier.{field}"] = value
        elif value.ndim == 4:
            convolutions.append(value)
        else:
            norms.setdefault(layer, {})[field] = value
    backbone = _named(convolutions, list(norms.values()))
    tensors |= {f"online.backbone.{name}": value for name, value in backbone.items()}
    tensors |= {f"online.projector.{name}": value for name, value in head.items()}
    return tensors


def _named(convolutions: Sequence[Tensor], norms: Sequence[Layer]) -> Layer:
    for weight in convolutions:
        if weight.ndim != 4:
            raise EncoderError(f"a convolution's kernel is {tuple(weight.shape)}, which is not 4-d")
    kernels = [tuple(weight.permute(2, 3, 1, 0).shape) for weight in convolutions]
    names = tensorflow_order(infer_tensorflow_architecture(kernels))
    conv_names = [conv for conv, _ in names]
    norm_names = [norm for _, norm in names if norm is not None]
    if len(conv_names) != len(convolutions) or len(norm_names) != len(norms):
        raise EncoderError(
            f"{len(convolutions)} convolutions and {len(norms)} batch norms do not make a SimCLR ResNet, "
            f"which would have {len(conv_names)} and {len(norm_names)}"
        )
    tensors = {
        f"{name}.weight": value for name, value in zip(conv_names, convolutions, strict=True)
    }
    for name, norm in zip(norm_names, norms, strict=True):
        tensors |= {f"{name}.{field}": value for field, value in norm.items()}
    return tensors


def _in_order(numbered: Mapping[int, Layer], what: str) -> list[Layer]:
    """TF1 numbers layers from 0 within a model; a copy of it in the same graph may go on from there."""
    order = sorted(numbered)
    if order and order != list(range(order[0], order[0] + len(order))):
        gap = next(n for n in range(order[0], order[-1]) if n not in numbered)
        raise EncoderError(f"of the {what} number {gap} is missing")
    return [numbered[n] for n in order]


def _in_torch_order(value: Tensor) -> Tensor:
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1)
    return value.t() if value.ndim == 2 else value
