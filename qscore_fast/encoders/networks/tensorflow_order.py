"""The order in which TensorFlow creates the variables of SimCLR's ResNets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qscore_fast.encoders.networks.resnet import STAGES
from qscore_fast.errors import EncoderError

Layer = tuple[str, str | None]


def tensorflow_order(architecture: Mapping[str, Any]) -> list[Layer]:
    """(convolution, batch norm behind it or None) of a "resnet" or "simclr_v2_resnet", in TF's order.

    The n-th convolution is ``conv2d_n`` (``conv2d`` for n = 0) of a SimCLR checkpoint, the n-th batch
    norm ``batch_normalization_n``. A block's projection comes first. Names are those of the modules:
    "layer1.0.conv1", "layer1.0.bn1".

    Raises:
        EncoderError: another architecture.

    Source: google-research/simclr, resnet.py (TF1), in the order of its calls.
    """
    name, arguments = architecture.get("name"), architecture.get("arguments", {})
    if name == "simclr_v2_resnet":
        order: list[Layer] = [("stem.0", "stem.1"), ("stem.3", "stem.4"), ("stem.6", "stem.7")]
        inside: list[Layer] = [
            ("conv1", "bn1"),
            ("sk.conv", "sk.bn"),
            ("sk.reduce", "sk.reduce_bn"),
            ("sk.expand", None),
            ("conv3", "bn3"),
        ]
    elif name == "resnet":
        order = [("conv1", "bn1")]
        inside = [("conv1", "bn1"), ("conv2", "bn2")]
        if arguments.get("block", "bottleneck") == "bottleneck":
            inside.append(("conv3", "bn3"))
    else:
        raise EncoderError(f"TensorFlow's order is known of SimCLR's ResNets, not of {name!r}")
    for stage, depth in enumerate(arguments.get("layers", (3, 4, 6, 3)), start=1):
        for block in range(depth):
            path = f"layer{stage}.{block}."
            if block == 0:
                order.append((path + "downsample.0", path + "downsample.1"))
            order += [(path + conv, path + norm if norm else None) for conv, norm in inside]
    return order


def infer_tensorflow_architecture(kernels: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The architecture of a SimCLR checkpoint, from its convolutions alone.

    Args:
        kernels: (height, width, inputs, outputs) of ``conv2d``, ``conv2d_1``, ..., in this order.

    Returns:
        {"name", "arguments"} of "simclr_v2_resnet" (selective kernels), or of "resnet" with
        ``padding="same_pool"``, or of a "resnet" with the CIFAR stem.

    Raises:
        EncoderError: these are not SimCLR's convolutions; the first one that does not fit is named.
    """
    shapes = [tuple(int(size) for size in kernel) for kernel in kernels]
    if len(shapes) < STAGES * 2 or any(len(shape) != 4 for shape in shapes):
        raise EncoderError(f"{len(shapes)} convolutions cannot be one of SimCLR's ResNets")
    stem_size, in_channels = shapes[0][0], shapes[0][2]
    selective = len(shapes) > 2 and shapes[1][0] == 3 and shapes[2][0] == 3 and stem_size == 3
    selective = selective and shapes[2][3] == 2 * shapes[0][3]
    width = shapes[2][3] if selective else shapes[0][3]
    branches = 2 if selective else 1
    outputs = [shape[3] for shape in shapes[3 if selective else 1 :] if shape[0] == 3]
    counts = [outputs.count(branches * width * 2**stage) for stage in range(STAGES)]

    arguments: dict[str, Any]
    if selective:
        arguments = {"layers": counts, "width": width, "in_channels": in_channels}
        architecture = {"name": "simclr_v2_resnet", "arguments": arguments}
    else:
        basic = all(shape[0] != 1 for shape in shapes[2:4])
        arguments = {
            "block": "basic" if basic else "bottleneck",
            "layers": [count // 2 for count in counts] if basic else counts,
            "width": width,
            "in_channels": in_channels,
            "stem": "imagenet" if stem_size == 7 else "cifar",
            "padding": "same_pool" if stem_size == 7 else "torch",
            "first_projection": basic,
        }
        architecture = {"name": "resnet", "arguments": arguments}
    _check(architecture, shapes)
    return architecture


def _check(architecture: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
    from qscore_fast.encoders.networks.build import build_network

    network = build_network(architecture)
    order = tensorflow_order(architecture)
    for number, ((conv, _), shape) in enumerate(zip(order, shapes, strict=False)):
        outputs, inputs, height, width = network.get_parameter(f"{conv}.weight").shape
        if shape != (height, width, inputs, outputs):
            raise EncoderError(
                f"the nearest of SimCLR's ResNets is {architecture['arguments']}, but convolution "
                f"{number} is {shape}, not {(height, width, inputs, outputs)}"
            )
    if len(order) != len(shapes):
        raise EncoderError(
            f"the nearest of SimCLR's ResNets, {architecture['arguments']}, has {len(order)} "
            f"convolutions, not {len(shapes)}"
        )
