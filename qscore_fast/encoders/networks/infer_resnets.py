"""ResNets from names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qscore_fast.encoders.networks.resnet import STAGES
from qscore_fast.encoders.networks.state_shapes import count, shape_of
from qscore_fast.errors import EncoderError, SettingsError


def infer_resnet(state: Mapping[str, Tensor], padding: str, stem_padding: int) -> dict[str, Any]:
    """See ``infer_architecture``."""
    if stem_padding not in (1, 2):
        raise SettingsError(f"stem_padding must be 1 or 2, got {stem_padding!r}")
    width, in_channels, *kernel = shape_of(state, "conv1.weight", 4)
    if kernel == [7, 7]:
        stem = "imagenet"
    elif kernel == [3, 3]:
        stem = "cifar" if stem_padding == 1 else "cifar_padding_2"
    else:
        raise EncoderError(
            f"conv1.weight is {kernel[0]}x{kernel[1]}; known stems are 7x7 (ImageNet) and 3x3 (CIFAR)"
        )
    basic = "layer1.0.conv3.weight" not in state
    arguments = {
        "block": "basic" if basic else "bottleneck",
        "layers": _layers(state),
        "width": width,
        "in_channels": in_channels,
        "stem": stem,
        # Without a max-pool nothing is left that "same_pool" could pad.
        "padding": "torch" if padding == "same_pool" and stem != "imagenet" else padding,
        "first_projection": basic and "layer1.0.downsample.0.weight" in state,
    }
    return {"name": "resnet", "arguments": arguments}


def infer_simclr_v2_resnet(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """See ``infer_architecture``."""
    in_channels = shape_of(state, "stem.0.weight", 4)[1]
    width = shape_of(state, "stem.6.weight", 4)[0]
    arguments = {"layers": _layers(state), "width": width, "in_channels": in_channels}
    return {"name": "simclr_v2_resnet", "arguments": arguments}


def infer_lightly_zoo_resnet(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """See ``infer_architecture``."""
    width, in_channels = shape_of(state, "conv1.weight", 4)[:2]
    features = shape_of(state, "reduce.weight", 4)[0]
    arguments = {
        "layers": _layers(state),
        "width": width,
        "in_channels": in_channels,
        "features": features,
    }
    return {"name": "lightly_zoo_resnet", "arguments": arguments}


def _layers(state: Mapping[str, Tensor]) -> list[int]:
    return [count(state, rf"layer{stage}\.(\d+)\.conv1\.") for stage in range(1, STAGES + 1)]
