"""What a checkpoint may and may not ask for."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from qscore_fast.encoders.networks import build_network
from qscore_fast.errors import EncoderError, MissingExtraError


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("resnet", "must be a mapping, got str"),
        ({"name": "vgg", "arguments": {}}, "unknown architecture 'vgg' .*resnet.*vit"),
        ({"name": ["resnet"], "arguments": {}}, "unknown architecture"),
        ({"name": "resnet"}, "arguments of resnet must be a mapping"),
        ({"name": "resnet", "arguments": {"width": True}}, "width of resnet"),
        ({"name": "resnet", "arguments": {"width": 10**9}}, "width of resnet .* 1 to 1024"),
        ({"name": "resnet", "arguments": {"layers": [1, 1, 1]}}, "must hold 4 numbers"),
        ({"name": "resnet", "arguments": {"layers": 4}}, "do not fit"),
        ({"name": "resnet", "arguments": {"layers": [65] * 4}}, "layers of resnet .* 64"),
        (
            {"name": "resnet", "arguments": {"padding": ["same"]}},
            "padding of resnet must be one of",
        ),
        ({"name": "resnet", "arguments": {"first_projection": 1}}, "one of True, False"),
        ({"name": "resnet", "arguments": {1: 1}}, "no argument 1"),
        (
            {"name": "resnet", "arguments": {"stem": "cifar", "padding": "same_pool"}},
            "max-pool, got stem cifar",
        ),
        ({"name": "simclr_v2_resnet", "arguments": {"width": 7}}, "width be even"),
        ({"name": "vit", "arguments": {"registers": 1000}}, "one of 0 to 64"),
        ({"name": "vit", "arguments": {"num_heads": 7}}, "384 does not divide into 7 heads"),
        ({"name": "vit", "arguments": {"depth": [1, 2]}}, "do not fit"),
        ({"name": "xcit", "arguments": {"patch_size": 14}}, "one of 8, 16"),
        ({"name": "xcit", "arguments": {"num_heads": 7}}, "does not divide"),
        ({"name": "dinov3_vit", "arguments": {"num_heads": 7}}, "does not divide"),
        ({"name": "dinov3_convnext", "arguments": {"depths": [1]}}, "need 4 numbers"),
    ],
)
def test_refused(architecture: Any, reason: str) -> None:
    with pytest.raises(EncoderError, match=reason) as raised:
        build_network(architecture)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["vit", "xcit", "dinov3_vit", "dinov3_convnext"])
def test_transformers_need_timm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("vit", "xcit", "dinov3"):
        monkeypatch.delitem(sys.modules, f"qscore_fast.encoders.networks.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"qscore-fast\[timm\]"):
        build_network({"name": name, "arguments": {}})


@pytest.mark.parametrize("name", ["resnet", "simclr_v2_resnet", "vit", "xcit", "dinov3_vit"])
def test_weights_are_on_meta(name: str) -> None:
    network = build_network({"name": name, "arguments": {}})
    assert all(weight.is_meta for weight in network.parameters())
    loose = dict(network.named_buffers()).keys() - network.state_dict().keys()
    assert not any(network.get_buffer(name).is_meta for name in loose)
