"""SimCLR v2's selective kernels, and the order of TensorFlow's variables."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qscore_fast.encoders.networks import (
    build_network,
    infer_tensorflow_architecture,
    tensorflow_order,
    words,
)
from qscore_fast.errors import EncoderError
from tests.encoders.networks import plain_resnets
from tests.encoders.networks.random_weights import (
    assert_same_features,
    differ,
    random_images,
    random_network,
)

SMALL = {"layers": [2, 1, 1, 2], "width": 8}


@pytest.mark.parametrize("size", [(64, 64), (96, 65), (63, 47)])
def test_equals_plain_forward(size: tuple[int, int]) -> None:
    network, state = random_network("simclr_v2_resnet", **SMALL)
    images = random_images(*size)
    features = network(images)
    assert_same_features(features, plain_resnets.simclr_v2_resnet(state, images, (2, 1, 1, 2)))
    assert features.shape == (2, network.num_features) == (2, 256)
    assert (features >= 0).all()
    torch.testing.assert_close(features, network.forward_map(images).mean((2, 3)))


def test_branches_are_not_interchangeable() -> None:
    network, state = random_network("simclr_v2_resnet", **SMALL)
    images = random_images(64, 64)
    features = network(images)
    name = "layer2.0.sk.expand.weight"
    swapped = {**state, name: state[name].roll(len(state[name]) // 2, 0)}
    network.load_state_dict(swapped)
    assert differ(network(images), features)


def test_middle_of_the_kernel_is_a_sixteenth_and_at_least_32() -> None:
    network = build_network({"name": "simclr_v2_resnet", "arguments": {"width": 192}})
    assert network.layer1[0].sk.reduce.out_channels == 32
    assert network.layer4[0].sk.reduce.out_channels == 96


ARCHITECTURES: list[dict[str, Any]] = [
    {
        "name": "simclr_v2_resnet",
        "arguments": {"layers": [3, 8, 36, 3], "width": 192, "in_channels": 3},
    },
    {"name": "simclr_v2_resnet", "arguments": {**SMALL, "in_channels": 3}},
    *(
        {
            "name": "resnet",
            "arguments": {
                "block": block,
                "layers": layers,
                "width": width,
                "in_channels": 3,
                "stem": stem,
                "padding": "same_pool" if stem == "imagenet" else "torch",
                "first_projection": block == "basic",
            },
        }
        for block, layers, width, stem in [
            ("bottleneck", [3, 4, 6, 3], 256, "imagenet"),
            ("bottleneck", [1, 1, 1, 1], 8, "imagenet"),
            ("basic", [2, 2, 2, 2], 64, "imagenet"),
            ("bottleneck", [3, 4, 6, 3], 64, "cifar"),
        ]
    ),
]


def kernels_of(architecture: dict[str, Any]) -> list[tuple[int, ...]]:
    network = build_network(architecture)
    kernels = []
    for conv, _ in tensorflow_order(architecture):
        outputs, inputs, height, width = network.get_parameter(f"{conv}.weight").shape
        kernels.append((height, width, inputs, outputs))
    return kernels


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=words)
def test_order_names_every_layer_once(architecture: dict[str, Any]) -> None:
    network = build_network(architecture)
    order = tensorflow_order(architecture)
    named = [conv for conv, _ in order] + [norm for _, norm in order if norm]
    layers = {
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d)
    }
    assert set(named) == layers
    assert len(named) == len(layers)
    for conv, norm in order:
        if norm:
            assert network.get_submodule(norm).num_features == len(
                network.get_parameter(conv + ".weight")
            )


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=words)
def test_architecture_from_tensorflow_kernels(architecture: dict[str, Any]) -> None:
    assert infer_tensorflow_architecture(kernels_of(architecture)) == architecture


def test_projection_comes_first_in_a_block() -> None:
    assert tensorflow_order(ARCHITECTURES[3])[:5] == [
        ("conv1", "bn1"),
        ("layer1.0.downsample.0", "layer1.0.downsample.1"),
        ("layer1.0.conv1", "layer1.0.bn1"),
        ("layer1.0.conv2", "layer1.0.bn2"),
        ("layer1.0.conv3", "layer1.0.bn3"),
    ]


def test_kernels_that_do_not_fit() -> None:
    kernels = kernels_of(ARCHITECTURES[3])
    with pytest.raises(EncoderError, match="17 convolutions|has 17"):
        infer_tensorflow_architecture([*kernels, (1, 1, 8, 8)])
    wrong = [*kernels]
    wrong[3] = (3, 3, 8, 9)
    with pytest.raises(EncoderError):
        infer_tensorflow_architecture(wrong)
    with pytest.raises(EncoderError, match="0 convolutions"):
        infer_tensorflow_architecture([])
    with pytest.raises(EncoderError):
        infer_tensorflow_architecture([(7, 7, 3, 10**9)] * 9)


def test_order_of_other_networks() -> None:
    with pytest.raises(EncoderError, match="not of 'vit'"):
        tensorflow_order({"name": "vit", "arguments": {}})
