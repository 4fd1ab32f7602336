"""Architectures in the words that people use for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RESNETS = {
    ("basic", (2, 2, 2, 2)): "18",
    ("basic", (3, 4, 6, 3)): "34",
    ("bottleneck", (3, 4, 6, 3)): "50",
    ("bottleneck", (3, 4, 23, 3)): "101",
    ("bottleneck", (3, 8, 36, 3)): "152",
    ("bottleneck", (3, 24, 36, 3)): "200",
}
_STEMS = {"cifar": "CIFAR stem", "cifar_padding_2": "CIFAR stem, padding 2"}
_PADDINGS = {"same": "SAME padding", "same_pool": "SAME max-pool"}
_VITS = {
    (192, 12): "Ti",
    (384, 12): "S",
    (768, 12): "B",
    (1024, 24): "L",
    (1280, 32): "H",
    (1536, 40): "g",
    (4096, 40): "7B",
}
_XCITS = {128: "nano", 192: "tiny", 384: "small", 512: "medium", 768: "large"}
_CONVNEXTS = {
    ((3, 3, 9, 3), 96): "tiny",
    ((3, 3, 27, 3), 96): "small",
    ((3, 3, 27, 3), 128): "base",
    ((3, 3, 27, 3), 192): "large",
}


def words(architecture: Mapping[str, Any]) -> str:
    """Such as "ResNet-50 x2", "ResNet-18 (CIFAR stem)", "SimCLRv2 ResNet-152 x3 sk1", "ViT-S/16".

    Args:
        architecture: {"name", "arguments"} as ``build_network`` takes them, all arguments given.
    """
    name, arguments = architecture["name"], architecture["arguments"]
    if name in ("resnet", "simclr_v2_resnet"):
        return _resnet(name, arguments)
    if name == "lightly_zoo_resnet":
        layers = "-".join(str(blocks) for blocks in arguments["layers"])
        return f"lightly ResNet {layers}, stem {arguments['width']}"
    if name in ("vit", "dinov3_vit"):
        return _vit(name, arguments)
    if name == "xcit":
        size = _XCITS.get(arguments["width"], f"width {arguments['width']},")
        return f"XCiT {size} {arguments['depth']}/{arguments['patch_size']}"
    if name == "dinov3_convnext":
        depths, widths = tuple(arguments["depths"]), list(arguments["widths"])
        size = _CONVNEXTS.get((depths, widths[0]), f"{list(depths)}, widths {widths}")
        return f"DINOv3 ConvNeXt {size}"
    return "small ResNet" if name == "small_resnet" else str(name)


def _resnet(name: str, arguments: Mapping[str, Any]) -> str:
    block, layers = arguments.get("block", "bottleneck"), tuple(arguments["layers"])
    width = arguments["width"]
    depth = _RESNETS.get((block, layers))
    text = f"ResNet-{depth}" if depth else f"ResNet {list(layers)}"
    if not depth and block == "basic":
        text += ", basic blocks"
    multiple, rest = divmod(width, 64)
    if rest:
        text += f", stem {width}"
    elif multiple > 1:
        text += f" x{multiple}"
    if name == "simclr_v2_resnet":
        return f"SimCLRv2 {text} sk1"
    details = [_STEMS.get(arguments.get("stem", "")), _PADDINGS.get(arguments.get("padding", ""))]
    return text + _bracket(details)


def _vit(name: str, arguments: Mapping[str, Any]) -> str:
    width, depth, patch = arguments["width"], arguments["depth"], arguments["patch_size"]
    heads, swiglu = arguments["num_heads"], arguments.get("mlp") == "swiglu"
    prefix = "DINOv3 ViT" if name == "dinov3_vit" else "ViT"
    size = _VITS.get((width, depth))
    if size in ("S", "H") and swiglu:
        size += "+"
    text = (
        f"{prefix}-{size}/{patch}" if size else f"{prefix} [width {width}, depth {depth}]/{patch}"
    )
    usual = width // 128 if size == "7B" else width // 64
    registers = arguments.get("registers", 0)
    details = [
        f"{heads} heads" if heads != usual else None,
        f"{registers} registers" if registers else None,
        "mean of patches" if arguments.get("pool") == "patch_mean" else None,
    ]
    return text + _bracket(details)


def _bracket(details: list[str | None]) -> str:
    given = [detail for detail in details if detail]
    return f" ({', '.join(given)})" if given else ""
