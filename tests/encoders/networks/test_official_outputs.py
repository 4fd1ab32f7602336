"""ResNets against the outputs of the official TensorFlow and Haiku code, run on small nets.

``official_outputs.npz`` holds what google-research/simclr resnet.py (TensorFlow 2.21, in TF1 mode) and
deepmind-research byol/utils/networks.py (Haiku 0.0.17, JAX 0.10) computed for one image. Weights and
image are drawn again here: NumPy's RandomState gives the same stream in every version.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import RandomState

from qscore_fast.encoders.networks import build_network, tensorflow_order
from tests.encoders.networks.random_weights import assert_same_features, differ, network_with

OUTPUTS = Path(__file__).parent / "official_outputs.npz"

NETWORKS: dict[str, dict[str, Any]] = {
    "sk1": {"name": "simclr_v2_resnet", "arguments": {"layers": [2, 1, 1, 2], "width": 8}},
    "sk0": {
        "name": "resnet",
        "arguments": {"layers": [2, 1, 1, 2], "width": 8, "padding": "same_pool"},
    },
    "basic": {
        "name": "resnet",
        "arguments": {
            "block": "basic",
            "layers": [1, 2, 1, 1],
            "width": 8,
            "padding": "same_pool",
            "first_projection": True,
        },
    },
    "cifar": {"name": "resnet", "arguments": {"layers": [1, 1, 1, 1], "width": 8, "stem": "cifar"}},
    "byol": {
        "name": "resnet",
        "arguments": {"layers": [2, 1, 1, 1], "width": 8, "padding": "same"},
    },
    "byol-basic": {
        "name": "resnet",
        "arguments": {
            "block": "basic",
            "layers": [1, 2, 1, 1],
            "width": 8,
            "padding": "same",
            "first_projection": True,
        },
    },
}


def drawn_state(architecture: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights drawn layer by layer in TensorFlow's order, as they were for the official run."""
    stream = RandomState(3)
    network = build_network(architecture)
    state = {name: torch.tensor(0) for name in network.state_dict() if name.endswith("tracked")}
    for conv, norm in tensorflow_order(architecture):
        shape = tuple(network.get_parameter(f"{conv}.weight").shape)
        weight = stream.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
        state[f"{conv}.weight"] = torch.from_numpy(weight.astype(np.float32))
        if norm:
            drawn = {
                "weight": 0.5 + stream.random_sample(shape[0]),
                "bias": 0.2 * stream.standard_normal(shape[0]),
                "running_mean": 0.2 * stream.standard_normal(shape[0]),
                "running_var": 0.5 + stream.random_sample(shape[0]),
            }
            for field, value in drawn.items():
                state[f"{norm}.{field}"] = torch.from_numpy(value.astype(np.float32))
    return state


def image(height: int) -> torch.Tensor:
    pixels = RandomState(7).random_sample((2, 3, height, height + 1))[:1]
    return torch.from_numpy(pixels.astype(np.float32))


@pytest.mark.parametrize("height", [64, 47])
@pytest.mark.parametrize("key", NETWORKS)
def test_equals_the_official_code(key: str, height: int) -> None:
    expected = torch.from_numpy(np.load(OUTPUTS)[f"{key}-{height}"])
    network = network_with(NETWORKS[key], drawn_state(NETWORKS[key]))
    assert_same_features(network(image(height)), expected)


@pytest.mark.parametrize(("key", "padding"), [("sk0", "torch"), ("sk0", "same"), ("byol", "torch")])
def test_another_padding_does_not(key: str, padding: str) -> None:
    expected = torch.from_numpy(np.load(OUTPUTS)[f"{key}-64"])
    architecture = NETWORKS[key]
    other = {**architecture, "arguments": {**architecture["arguments"], "padding": padding}}
    network = network_with(other, drawn_state(architecture))
    assert differ(network(image(64)), expected)
