"""The ResNets of the published checkpoints."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch.nn import functional

from qscore_fast.encoders.networks.same_padding import SameConv2d, SameMaxPool2d, same_pads
from tests.encoders.networks import plain_resnets
from tests.encoders.networks.random_weights import (
    assert_same_features,
    differ,
    random_images,
    random_network,
)

SMALL = {"layers": [2, 1, 1, 1], "width": 8}
SIZES = [(64, 64), (96, 65), (63, 47)]


@pytest.mark.parametrize(("name", "block"), [("resnet18", "basic"), ("resnet50", "bottleneck")])
def test_equals_torchvision_bit_for_bit(name: str, block: str) -> None:
    layers = {"basic": [2, 2, 2, 2], "bottleneck": [3, 4, 6, 3]}[block]
    network, state = random_network("resnet", block=block, layers=layers)
    theirs = torchvision.models.get_model(name)
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(state)
    theirs.eval()
    images = random_images(64, 97)
    with torch.no_grad():
        assert torch.equal(network(images), theirs(images))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", ["torch", "same", "same_pool"])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_equals_plain_forward(block: str, padding: str, size: tuple[int, int]) -> None:
    network, state = random_network(
        "resnet", block=block, padding=padding, first_projection=block == "basic", **SMALL
    )
    images = random_images(*size)
    expected = plain_resnets.resnet(
        state, images, (2, 1, 1, 1), bottleneck=block == "bottleneck", padding=padding
    )
    assert_same_features(network(images), expected)


@pytest.mark.parametrize("size", [(32, 32), (33, 30)])
@pytest.mark.parametrize("stem", ["cifar", "cifar_padding_2"])
def test_cifar_stems(stem: str, size: tuple[int, int]) -> None:
    network, state = random_network("resnet", block="basic", stem=stem, **SMALL)
    images = random_images(*size)
    expected = plain_resnets.resnet(state, images, (2, 1, 1, 1), bottleneck=False, stem=stem)
    assert_same_features(network(images), expected)
    other = plain_resnets.resnet(
        state,
        images,
        (2, 1, 1, 1),
        bottleneck=False,
        stem="cifar" if stem != "cifar" else "cifar_padding_2",
    )
    assert differ(other, expected)


@pytest.mark.parametrize("size", [(64, 64), (224, 224), (223, 225)])
def test_padding_changes_the_features(size: tuple[int, int]) -> None:
    features = {}
    for padding in ("torch", "same", "same_pool"):
        network, _ = random_network("resnet", padding=padding, **SMALL)
        features[padding] = network(random_images(*size))
    # On odd sizes SAME pads the first layers as torchvision does, and differs further in.
    assert differ(features["same"], features["torch"])
    if size[0] % 2 == 0:
        assert differ(features["same_pool"], features["torch"])
        assert differ(features["same_pool"], features["same"])


def test_first_projection_changes_the_network() -> None:
    with_it, _ = random_network("resnet", block="basic", first_projection=True, **SMALL)
    without, _ = random_network("resnet", block="basic", **SMALL)
    assert with_it.state_dict().keys() - without.state_dict().keys() >= {
        "layer1.0.downsample.0.weight"
    }


def test_explicit_border_of_swav_and_vicreg_is_padding_3() -> None:
    network, state = random_network("resnet", **SMALL)
    images = random_images(65, 64)
    bordered = functional.pad(images, (1, 1, 1, 1))
    theirs = functional.conv2d(bordered, state["conv1.weight"], stride=2, padding=2)
    assert torch.equal(network.conv1(images), theirs)


def test_map_is_not_negative_and_pools_to_the_features() -> None:
    network, _ = random_network("resnet", **SMALL)
    images = random_images(64, 96)
    feature_map = network.forward_map(images)
    assert feature_map.shape == (2, 8 * 8 * 4, 2, 3)
    assert (feature_map >= 0).all()
    torch.testing.assert_close(network(images), feature_map.mean((2, 3)))


@pytest.mark.parametrize("width", [64, 128, 256, 320])
def test_widths_scale_every_plane(width: int) -> None:
    from qscore_fast.encoders.networks import build_network

    network = build_network({"name": "resnet", "arguments": {"width": width}})
    assert network.num_features == 32 * width
    assert network.layer4[2].conv2.weight.shape == (8 * width, 8 * width, 3, 3)


def test_same_pads_of_the_usual_layers() -> None:
    assert same_pads(224, 7, 2) == (2, 3)
    assert same_pads(112, 3, 2) == (0, 1)
    assert same_pads(225, 7, 2) == (3, 3)
    assert same_pads(56, 1, 2) == (0, 0)


def test_same_pads_follow_the_documented_rule() -> None:
    for size in range(1, 40):
        for kernel in (1, 2, 3, 5, 7):
            for stride in (1, 2, 3):
                expected = plain_resnets.tensorflow_pads(size, kernel, stride)
                assert same_pads(size, kernel, stride) == expected
                padded = size + sum(expected)
                assert (padded - kernel) // stride + 1 == -(-size // stride)


def test_border_of_the_max_pool_never_wins() -> None:
    images = -1 - random_images(8, 8)
    assert (SameMaxPool2d()(images) < 0).all()


def test_same_convolution_by_hand() -> None:
    conv = SameConv2d(1, 1, 3, stride=2, bias=False)
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.arange(16.0).reshape(1, 1, 4, 4))
    assert out.flatten().tolist() == [45.0, 39.0, 66.0, 50.0]
