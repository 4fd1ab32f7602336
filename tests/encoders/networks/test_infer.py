"""Architectures from names and shapes, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from qscore_fast.encoders.networks import build_network, infer_architecture, timm_state, words
from qscore_fast.errors import EncoderError, SettingsError
from tests.encoders.networks import official_states

State = dict[str, Tensor]


def state_of(name: str, **arguments: Any) -> State:
    return build_network({"name": name, "arguments": arguments}).state_dict()


RESNETS: list[tuple[str, dict[str, Any]]] = [
    ("ResNet-18", {"block": "basic", "layers": [2, 2, 2, 2]}),
    ("ResNet-34", {"block": "basic", "layers": [3, 4, 6, 3]}),
    ("ResNet-50", {}),
    ("ResNet-50 x2", {"width": 128}),
    ("ResNet-50 x5", {"width": 320}),
    ("ResNet-101", {"layers": [3, 4, 23, 3]}),
    ("ResNet-152 x3", {"layers": [3, 8, 36, 3], "width": 192}),
    ("ResNet-200 x2", {"layers": [3, 24, 36, 3], "width": 128}),
    ("ResNet-18 (CIFAR stem)", {"block": "basic", "layers": [2, 2, 2, 2], "stem": "cifar"}),
    ("ResNet [1, 1, 1, 1], stem 16", {"layers": [1, 1, 1, 1], "width": 16}),
    (
        "ResNet [1, 2, 1, 1], basic blocks, stem 16",
        {"block": "basic", "layers": [1, 2, 1, 1], "width": 16, "first_projection": True},
    ),
    ("ResNet-50, stem 16", {"width": 16, "in_channels": 1}),
]


@pytest.mark.parametrize(("text", "arguments"), RESNETS, ids=[text for text, _ in RESNETS])
def test_resnets(text: str, arguments: dict[str, Any]) -> None:
    inferred = infer_architecture(state_of("resnet", **arguments))
    assert inferred["name"] == "resnet"
    assert inferred["arguments"].items() >= arguments.items()
    assert words(inferred) == text


def test_what_shapes_cannot_tell_of_a_resnet() -> None:
    state = state_of("resnet")
    assert words(infer_architecture(state, padding="same")) == "ResNet-50 (SAME padding)"
    assert words(infer_architecture(state, padding="same_pool")) == "ResNet-50 (SAME max-pool)"
    cifar = state_of("resnet", block="basic", layers=[2, 2, 2, 2], stem="cifar")
    inferred = infer_architecture(cifar, stem_padding=2, padding="same_pool")
    assert inferred["arguments"]["padding"] == "torch"
    assert words(inferred) == "ResNet-18 (CIFAR stem, padding 2)"


@pytest.mark.parametrize(
    ("text", "state", "given"),
    [
        (
            "SimCLRv2 ResNet-152 x3 sk1",
            lambda: state_of("simclr_v2_resnet", layers=[3, 8, 36, 3], width=192),
            {},
        ),
        ("ViT-S/16", lambda: state_of("vit"), {}),
        ("ViT-S/16 (12 heads)", lambda: state_of("vit"), {"num_heads": 12}),
        (
            "ViT-B/8 (mean of patches)",
            lambda: state_of("vit", patch_size=8, width=768, num_heads=12, mlp_width=3072),
            {"pool": "patch_mean"},
        ),
        (
            "ViT-g/14 (4 registers)",
            lambda: state_of(
                "vit",
                patch_size=14,
                width=1536,
                depth=40,
                num_heads=24,
                mlp_width=4096,
                mlp="swiglu",
                layer_scale=True,
                registers=4,
                image_size=518,
            ),
            {},
        ),
        (
            "ViT [width 48, depth 2]/8 (3 heads)",
            lambda: official_states.vit(),
            {"num_heads": 3},
        ),
        ("XCiT small 12/16", lambda: state_of("xcit"), {}),
        ("XCiT medium 24/8", lambda: state_of("xcit", patch_size=8, width=512, depth=24), {}),
        ("DINOv3 ViT-S/16 (4 registers)", lambda: state_of("dinov3_vit"), {}),
        (
            "DINOv3 ViT-S+/16 (4 registers)",
            lambda: state_of("dinov3_vit", mlp="swiglu"),
            {},
        ),
        ("DINOv3 ConvNeXt tiny", lambda: state_of("dinov3_convnext"), {}),
        (
            "DINOv3 ConvNeXt [1, 2, 1, 1], widths [8, 16, 24, 32]",
            lambda: timm_state(official_states.dinov3_convnext()),
            {},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_families(text: str, state: Callable[[], State], given: dict[str, Any]) -> None:
    tensors = state()
    inferred = infer_architecture(tensors, **given)
    assert words(inferred) == text
    rebuilt = build_network(inferred).state_dict()
    counters = {name for name in rebuilt if name.endswith("num_batches_tracked")}
    assert rebuilt.keys() - counters <= tensors.keys()
    assert all(rebuilt[name].shape == tensors[name].shape for name in rebuilt.keys() - counters)


def test_classifier_and_counters_do_not_matter() -> None:
    state = {
        name: value
        for name, value in state_of("resnet").items()
        if not name.endswith("num_batches_tracked")
    }
    state["fc.weight"] = torch.zeros(1000, 2048)
    assert words(infer_architecture(state)) == "ResNet-50"
    vit = {**state_of("vit"), "head.weight": torch.zeros(1000, 384)}
    assert words(infer_architecture(vit)) == "ViT-S/16"


def without(state: State, *names: str) -> State:
    return {name: value for name, value in state.items() if name not in names}


def with_shape(state: State, name: str, *shape: int) -> State:
    return {**state, name: torch.empty(shape, device="meta")}


SMALL = {"layers": [1, 1, 1, 1], "width": 8}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (lambda s: {}, "no known network has these names: none"),
        (lambda s: {"a": s["conv1.weight"]}, "no known network has these names: a. Known .*conv1"),
        (lambda s: {3: s["conv1.weight"]}, "maps names to tensors, not 3"),
        (lambda s: {**s, "conv1.weight": [1]}, "maps names to tensors"),
        (lambda s: without(s, "conv1.weight"), "nearest .* a resnet, but conv1.weight is missing"),
        (lambda s: without(s, "bn1.bias"), r"stem 8, but .*missing bn1.bias$"),
        (
            lambda s: {**s, "projector.0.weight": s["conv1.weight"]},
            "not known projector.0.weight$",
        ),
        (
            lambda s: with_shape(s, "layer2.0.conv2.weight", 16, 16, 5, 5),
            r"layer2.0.conv2.weight is \(16, 16, 5, 5\), not \(16, 16, 3, 3\)$",
        ),
        (lambda s: with_shape(s, "conv1.weight", 8, 3, 5, 5), "conv1.weight is 5x5; known stems"),
        (lambda s: with_shape(s, "conv1.weight", 8, 3, 49), "must have 4 dimensions"),
        (lambda s: with_shape(s, "conv1.weight", 0, 3, 7, 7), "none empty"),
        (lambda s: with_shape(s, "conv1.weight", 2**40, 3, 7, 7), "width of resnet .* 1024"),
        (
            lambda s: s | {f"layer1.{n}.conv1.weight": s["conv1.weight"] for n in range(9999)},
            "layers of resnet .* 64",
        ),
        (lambda s: {**s, "layer1.7.conv1.weight": s["conv1.weight"]}, "leave out number 1"),
        (
            lambda s: {k: v for k, v in s.items() if not k.startswith("layer3")},
            r"no name matches layer3",
        ),
    ],
)
def test_resnets_that_do_not_fit(state: Callable[[State], State], reason: str) -> None:
    with pytest.raises(EncoderError, match=reason) as raised:
        infer_architecture(state(state_of("resnet", **SMALL)))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 700


@pytest.mark.parametrize(
    ("state", "given", "reason"),
    [
        (lambda s: s, {}, "48 is no multiple of 64.* give num_heads"),
        (lambda s: s, {"num_heads": 5}, "does not divide into 5 heads"),
        (lambda s: s, {"num_heads": 0}, "num_heads of vit .* from 1 to 256"),
        (lambda s: s, {"num_heads": 3, "positions": "linear"}, "positions of vit"),
        (
            lambda s: with_shape(s, "pos_embed", 1, 19, 48),
            {"num_heads": 3},
            "18 patches, .* square",
        ),
        (lambda s: with_shape(s, "pos_embed", 1, 1, 48), {"num_heads": 3}, "0 patches"),
        (
            lambda s: with_shape(s, "pos_embed", 1, 2**20 + 1, 48),
            {"num_heads": 3},
            "image_size of vit .* 4096",
        ),
        (
            lambda s: with_shape(s, "patch_embed.proj.weight", 48, 3, 8, 4),
            {"num_heads": 3},
            "8x4 pixels are not square",
        ),
        (
            lambda s: with_shape(s, "blocks.1.attn.qkv.weight", 96, 48),
            {"num_heads": 3},
            r"blocks.1.attn.qkv.weight is \(96, 48\), not \(144, 48\)",
        ),
        (
            lambda s: {**s, "blocks.0.attn.gate": s["cls_token"]},
            {"num_heads": 3},
            "not known blocks.0.attn.gate",
        ),
        (
            lambda s: {
                **without(s, "patch_embed.proj.weight"),
                "patch_embed.proj.0.weight": s["patch_embed.proj.weight"],
            },
            {"num_heads": 3},
            "convolutional stem",
        ),
    ],
)
def test_vits_that_do_not_fit(
    state: Callable[[State], State], given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(EncoderError, match=reason):
        infer_architecture(state(official_states.vit()), **given)


def test_settings() -> None:
    state = state_of("resnet", **SMALL)
    with pytest.raises(SettingsError, match="stem_padding must be 1 or 2, got 3"):
        infer_architecture(state, stem_padding=3)
    with pytest.raises(SettingsError, match="cls for a resnet; got 'patch_mean'"):
        infer_architecture(state, pool="patch_mean")
    with pytest.raises(SettingsError, match="got 'mean'"):
        infer_architecture(state_of("vit"), pool="mean")
    with pytest.raises(EncoderError, match="padding of resnet must be one of 'torch'"):
        infer_architecture(state, padding="valid")
