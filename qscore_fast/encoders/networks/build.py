"""The networks that a checkpoint may name, with bounds on the arguments that it may give."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qscore_fast.errors import EncoderError, MissingExtraError

MAX_STAGES = 8


@dataclass(frozen=True)
class _Network:
    """Where a network lives, and what it accepts: largest whole number of an argument, or its choices."""

    module: str
    class_name: str
    largest: Mapping[str, int]
    choices: Mapping[str, tuple[object, ...]]
    library: str | None = None


# A checkpoint is data from elsewhere: it must not be able to ask for a network that takes minutes or
# all memory to build. A list of numbers holds at most MAX_STAGES of them.
_FLAG = (True, False)
_POOL = ("cls", "patch_mean")
_TOKENS = {
    "patch_size": 64,
    "width": 8192,
    "depth": 64,
    "num_heads": 256,
    "mlp_width": 65536,
    "in_channels": 64,
}
_NETWORKS = {
    "small_resnet": _Network(
        "small_resnet",
        "SmallResNet",
        {"stem_channels": 4096, "stem_stride": 16, "planes": 4096, "blocks": 64, "strides": 16},
        {},
    ),
    "resnet": _Network(
        "resnet",
        "ResNet",
        {"layers": 64, "width": 1024, "in_channels": 64},
        {
            "block": ("basic", "bottleneck"),
            "stem": ("imagenet", "cifar", "cifar_padding_2"),
            "padding": ("torch", "same", "same_pool"),
            "first_projection": _FLAG,
        },
    ),
    "simclr_v2_resnet": _Network(
        "simclr_v2_resnet",
        "SimCLRv2ResNet",
        {"layers": 64, "width": 1024, "in_channels": 64},
        {},
    ),
    "lightly_zoo_resnet": _Network(
        "lightly_zoo",
        "LightlyZooResNet",
        {"layers": 64, "width": 1024, "in_channels": 64, "features": 8192},
        {},
    ),
    "vit": _Network(
        "vit",
        "VisionTransformer",
        {**_TOKENS, "image_size": 4096},
        {
            "mlp": ("gelu", "swiglu"),
            "layer_scale": _FLAG,
            "registers": tuple(range(65)),
            "positions": ("dino", "antialias"),
            "pool": _POOL,
        },
        "timm",
    ),
    "xcit": _Network(
        "xcit",
        "XCiT",
        {
            "width": 8192,
            "depth": 64,
            "num_heads": 256,
            "cls_depth": 64,
            "in_channels": 64,
        },
        {"patch_size": (8, 16), "tokens_norm": _FLAG},
        "timm",
    ),
    "dinov3_vit": _Network(
        "dinov3",
        "DINOv3ViT",
        _TOKENS,
        {
            "mlp": ("gelu", "swiglu"),
            "registers": tuple(range(65)),
            "qkv_bias": _FLAG,
            "pool": _POOL,
        },
        "timm",
    ),
    "dinov3_convnext": _Network(
        "dinov3",
        "DINOv3ConvNeXt",
        {"depths": 64, "widths": 8192, "in_channels": 64},
        {},
        "timm",
    ),
}


def build_network(architecture: object) -> nn.Module:
    """The network that ``{"name": ..., "arguments": {...}}`` describes, on the "meta" device.

    Weights take no memory until ``load_state_dict(..., assign=True)``, or ``to_empty`` and an
    initialisation, bring them.

    Args:
        architecture: name ("small_resnet", "resnet", "simclr_v2_resnet", "lightly_zoo_resnet", "vit",
            "xcit", "dinov3_vit", "dinov3_convnext") and the arguments of the class of that name in this
            package.

    Returns:
        A module with ``num_features`` (r) and ``forward(images (B, C, H, W)) -> (B, r)``.

    Raises:
        EncoderError: unknown name, unknown argument, or a value out of bounds.
        MissingExtraError: the network needs timm, which is not installed.
    """
    if not isinstance(architecture, Mapping):
        raise EncoderError(f"architecture must be a mapping, got {type(architecture).__name__}")
    name, arguments = architecture.get("name"), architecture.get("arguments")
    if not isinstance(name, str) or name not in _NETWORKS:
        known = ", ".join(sorted(_NETWORKS))
        raise EncoderError(f"unknown architecture {name!r:.80} (this version knows: {known})")
    if not isinstance(arguments, Mapping):
        raise EncoderError(f"the arguments of {name} must be a mapping, got {arguments!r:.80}")
    for key, value in arguments.items():
        _check_argument(name, key, value)
    network = _class_of(_NETWORKS[name])
    try:
        with torch.device("meta"):
            return network(**arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise EncoderError(f"the arguments of {name} do not fit: {error}") from error


def _class_of(network: _Network) -> type[nn.Module]:
    path = f"{__package__}.{network.module}"
    try:
        return getattr(importlib.import_module(path), network.class_name)
    except ImportError as error:
        if network.library is None or (error.name or "").split(".")[0] != network.library:
            raise
        raise MissingExtraError(network.library, network.library) from error


def _check_argument(name: str, key: object, value: Any) -> None:
    network = _NETWORKS[name]
    if isinstance(key, str) and key in network.choices:
        allowed = network.choices[key]
        if not any(type(value) is type(choice) and value == choice for choice in allowed):
            shown = ", ".join(map(repr, allowed)) if len(allowed) < 9 else f"0 to {allowed[-1]}"
            raise EncoderError(
                f"argument {key} of {name} must be one of {shown}; got {value!r:.80}"
            )
        return
    bound = network.largest.get(key) if isinstance(key, str) else None
    if bound is None:
        raise EncoderError(f"{name} has no argument {key!r:.80}")
    numbers = value if isinstance(value, list | tuple) else [value]
    if len(numbers) > MAX_STAGES or not all(
        type(number) is int and 1 <= number <= bound for number in numbers
    ):
        raise EncoderError(
            f"argument {key} of {name} must hold whole numbers from 1 to {bound}, "
            f"at most {MAX_STAGES}; got {value!r:.80}"
        )
