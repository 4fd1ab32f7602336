"""Backbones under names of their own: SimCLR's PyTorch form, BYOL's Haiku, and XCiT."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from qscore_fast.encoders.networks import infer_architecture, tensorflow_order
from qscore_fast.errors import EncoderError

State = Mapping[str, Tensor]
Haiku = dict[str, dict[str, Tensor]]

_PLAIN = {
    "conv1": "net.0", "bn1": "net.1.0", "conv2": "net.2", "bn2": "net.3.0", "conv3": "net.4",
    "bn3": "net.5.0", "downsample.0": "projection.shortcut", "downsample.1": "projection.bn.0",
}  # fmt: skip
_SELECTIVE = {
    "conv1": "net.0", "bn1": "net.1.0", "sk.conv": "net.2.main_conv.0",
    "sk.bn": "net.2.main_conv.1.0", "sk.reduce": "net.2.mixing_conv.0",
    "sk.reduce_bn": "net.2.mixing_conv.1.0", "sk.expand": "net.2.mixing_conv.2", "conv3": "net.3",
    "bn3": "net.4.0", "downsample.0": "projection.shortcut.2", "downsample.1": "projection.bn.0",
}  # fmt: skip
_STEM = {
    "conv1": "net.0.0", "bn1": "net.0.1.0", "stem.0": "net.0.0", "stem.1": "net.0.1.0",
    "stem.3": "net.0.2", "stem.4": "net.0.3.0", "stem.6": "net.0.4", "stem.7": "net.0.5.0",
}  # fmt: skip
_IN_BLOCK = re.compile(r"layer(\d)\.(\d+)\.(.+)")


def simclr_v2_backbone(state: State) -> dict[str, Tensor]:
    """Names of Separius/SimCLRv2-Pytorch, in TensorFlow's order, which is all that its readers go by.

    Raises:
        EncoderError: not the state of a ResNet.
    """
    architecture = infer_architecture(state, padding="same_pool")
    inside = _SELECTIVE if architecture["name"] == "simclr_v2_resnet" else _PLAIN
    named: dict[str, Tensor] = {}
    for layers in tensorflow_order(architecture):
        for layer in filter(None, layers):
            block = _IN_BLOCK.fullmatch(layer)
            new = f"net.{block[1]}.blocks.{block[2]}.{inside[block[3]]}" if block else _STEM[layer]
            fields = {
                name[len(layer) + 1 :]: value
                for name, value in state.items()
                if name.startswith(f"{layer}.")
            }
            if not fields:
                raise EncoderError(
                    f"SimCLR's basic blocks project the input of the first stage, but the encoder has no "
                    f"{layer}"
                )
            named |= {f"{new}.{field}": value for field, value in fields.items()}
    return named


def haiku_backbone(state: State, root: str) -> tuple[Haiku, Haiku]:
    """Parameters and states of BYOL's ResNet by Haiku's paths.

    Args:
        state: of a ResNet.
        root: the network's own name, such as "res_net50".

    Raises:
        EncoderError: a layer has no place in that network.
    """
    layers = {name.rpartition(".")[0]: None for name in state}
    return haiku_layers(state, {layer: f"{root}/~/{_haiku_path(layer)}" for layer in layers})


def haiku_head(state: State, name: str) -> tuple[Haiku, Haiku]:
    """The same of ``linear1``, ``norm1``, ``linear2`` and so on: "projector/linear_1"."""
    paths = {}
    for layer in {key.rpartition(".")[0]: None for key in state}:
        kind, number = re.fullmatch(r"(linear|norm)(\d+)", layer).groups()  # type: ignore[union-attr]
        path = "linear" if kind == "linear" else "batch_norm"
        paths[layer] = f"{name}/{path}" + (f"_{int(number) - 1}" if number != "1" else "")
    return haiku_layers(state, paths)


def haiku_layers(state: State, paths: Mapping[str, str]) -> tuple[Haiku, Haiku]:
    """Parameters and states of layers, by path, with Haiku's shapes."""
    params: Haiku = {}
    states: Haiku = {}
    for layer, path in paths.items():
        fields = {
            name[len(layer) + 1 :]: value
            for name, value in state.items()
            if name.rpartition(".")[0] == layer
        }
        if "running_mean" not in fields:
            weight = fields["weight"]
            order = (2, 3, 1, 0) if weight.ndim == 4 else (1, 0)
            params[path] = {"w": weight.permute(order).contiguous()}
            if "bias" in fields:
                params[path]["b"] = fields["bias"]
            continue
        # A network's batch norms normalise maps, a head's vectors.
        shape = (1, -1) if "batch_norm" in path else (1, 1, 1, -1)
        params[path] = {
            "scale": fields["weight"].reshape(shape),
            "offset": fields["bias"].reshape(shape),
        }
        for statistic, field in (("mean", "running_mean"), ("var", "running_var")):
            average = fields[field].reshape(shape)
            counter = fields["num_batches_tracked"]
            states[f"{path}/~/{statistic}_ema"] = {
                "hidden": average.clone(),
                "average": average,
                "counter": counter.int(),
            }
    return params, states


def _haiku_path(layer: str) -> str:
    if layer in ("conv1", "bn1"):
        return "initial_conv" if layer == "conv1" else "initial_batchnorm"
    block = _IN_BLOCK.fullmatch(layer)
    if block is None:
        raise EncoderError(f"BYOL's ResNet has no layer {layer}")
    stage, index, inner = int(block[1]) - 1, block[2], block[3]
    if inner.startswith("downsample."):
        name = "shortcut_conv" if inner.endswith("0") else "shortcut_batchnorm"
    else:
        kind, number = re.fullmatch(r"(conv|bn)(\d)", inner).groups()  # type: ignore[union-attr]
        name = f"{'conv' if kind == 'conv' else 'batchnorm'}_{int(number) - 1}"
    return f"block_group_{stage}/~/block_{index}/~/{name}"


def xcit_backbone(state: State) -> dict[str, Tensor]:
    """facebookresearch/xcit's names from timm's; any other state as it is."""
    named: dict[str, Tensor] = {}
    for name, value in state.items():
        attention = re.fullmatch(r"(cls_attn_blocks\.\d+\.attn\.)([qkv])\.(weight|bias)", name)
        if name.startswith("pos_embed."):
            named[name.replace("pos_embed.", "pos_embeder.", 1)] = value
        elif attention:
            together = [state[f"{attention[1]}{letter}.{attention[3]}"] for letter in "qkv"]
            named[f"{attention[1]}qkv.{attention[3]}"] = torch.cat(together)
        else:
            named[name] = value
    return named
