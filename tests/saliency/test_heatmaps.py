"""Heat maps from the forward pass against captum's Grad-CAM, for networks that pool their maps."""

from __future__ import annotations

import pytest
import timm
import torch
from captum.attr import LayerGradCam
from sample_data import small_module
from small_networks import SMALL, resnet18, small_encoder, with_statistics
from torch import Tensor, nn

import qscore_fast as qf
from qscore_fast.encoders import Encoder
from qscore_fast.encoders.networks.resnet import ResNet
from qscore_fast.encoders.networks.simclr_v2_resnet import SimCLRv2ResNet
from qscore_fast.images import Preprocess

FEATURES = [3, 0, 7, 7]


def images_for(encoder: Encoder, height: int, width: int, count: int = 3) -> Tensor:
    shape = (count, encoder.preprocess.channels, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(height))


def captum_maps(network: nn.Module, layer: str, images: Tensor, features: list[int]) -> Tensor:
    """(N, K, h, w), times the number of positions, which captum divides by."""
    cam = LayerGradCam(network, network.get_submodule(layer))
    maps = torch.cat([cam.attribute(images, target=j).detach() for j in features], 1)
    return maps * maps.shape[2] * maps.shape[3]


def grey(module: nn.Module) -> Encoder:
    return Encoder(module, Preprocess("L", 28, 28, mean=(0.3,), std=(0.3,)))


def own(**arguments: object) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return small_encoder(with_statistics(ResNet(**arguments)))


def timm_model(name: str, size: tuple[int, int] = (64, 64), **arguments: object) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        module = timm.create_model(name, num_classes=0, **arguments).eval()
    return Encoder(module, SMALL.changed(resize=size, crop=size))


def simclr_v2() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return small_encoder(with_statistics(SimCLRv2ResNet(layers=(1, 1, 1, 1), width=16)))


ENCODERS = {
    "torchvision": (lambda: small_encoder(resnet18()), "layer4", (64, 96)),
    "small_resnet": (lambda: grey(small_module()), "stages", (28, 28)),
    "basic": (lambda: own(block="basic", layers=(1, 1, 1, 1), width=16), "layer4", (64, 64)),
    "cifar": (
        lambda: own(block="bottleneck", layers=(1, 1, 1, 1), width=8, stem="cifar"), "layer4", (32, 40),
    ),
    "same_padding": (
        lambda: own(block="basic", layers=(1, 1, 1, 1), width=16, padding="same", first_projection=True),
        "layer4", (65, 64),
    ),
    "simclr_v2": (simclr_v2, "layer4", (64, 64)),
    "timm_resnet": (lambda: timm_model("resnet10t"), "layer4", (64, 64)),
}  # fmt: skip


@pytest.mark.parametrize("name", ENCODERS)
def test_every_feature_is_captums_map(name: str) -> None:
    make, layer, size = ENCODERS[name]
    encoder = make()
    images = images_for(encoder, *size)
    found = qf.heatmaps(encoder, images, FEATURES, None)
    assert (found.method, found.layer) == ("exact", layer)
    expected = captum_maps(encoder.module, layer, images, FEATURES)
    torch.testing.assert_close(found.maps, expected, rtol=1e-4, atol=1e-5)
    assert found.maps.abs().sum() > 0
    torch.testing.assert_close(found.h, encoder(images), rtol=1e-4, atol=1e-5)


def own_features_by_hand(h: Tensor, mask: Tensor, eps: float) -> list[list[int]]:
    """L & D, in float64."""
    h = h.double()
    active = h > (h.mean(1) + eps * h.std(1))[:, None]
    return [row.nonzero()[:, 0].tolist() for row in active & mask]


@pytest.mark.parametrize("combine", ["sum", "mean", "max"])
def test_each_images_own_features_combined(combine: str) -> None:
    encoder = small_encoder(resnet18())
    images = images_for(encoder, 64, 64)
    mask = torch.rand(512, generator=torch.Generator().manual_seed(0)) > 0.4
    found = qf.heatmaps(encoder, images, mask, combine, eps=1.5, batch_size=2)
    assert found.method == "exact"
    h = encoder(images)
    chosen = own_features_by_hand(h, mask, 1.5)
    assert [row.tolist() for row in found.features] == chosen
    torch.testing.assert_close(found.q_score, qf.q_score(h, mask, 1.5), rtol=1e-5, atol=1e-6)
    for i, features in enumerate(chosen):
        each = captum_maps(encoder.module, "layer4", images[i : i + 1], features)[0]
        reduce = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}[combine]
        torch.testing.assert_close(found.maps[i], reduce(each, 0), rtol=1e-4, atol=1e-4)


def test_a_d_brings_its_eps_and_its_sides() -> None:
    encoder = small_encoder(resnet18())
    images = images_for(encoder, 64, 64, 8)
    census = qf.FeatureCensus(512, 1.25, two_sided=True)
    census.update(encoder(images))
    d = qf.discriminative_features(census, 10, 90)
    found = qf.heatmaps(encoder, images, d)
    by_hand = qf.heatmaps(encoder, images, d.mask, eps=1.25, two_sided=True)
    torch.testing.assert_close(found.maps, by_hand.maps, rtol=0, atol=0)
    torch.testing.assert_close(found.q_score, qf.q_score(encoder(images), d), rtol=1e-5, atol=1e-6)
    assert found.maps.sum() > 0


@pytest.mark.parametrize("precision", ["bfloat16", "bfloat16-autocast"])
def test_an_optimised_encoder_has_about_the_same_maps(precision: str) -> None:
    encoder = small_encoder(resnet18())
    images = images_for(encoder, 64, 64)
    plain = qf.heatmaps(encoder, images, FEATURES, None)
    fast = encoder.optimised(precision, channels_last=True)
    found = qf.heatmaps(fast, images, FEATURES, None)
    assert (found.method, found.layer, found.maps.dtype) == ("exact", "layer4", torch.float32)
    scale = plain.maps.amax((2, 3), keepdim=True).clamp(min=0.1)
    torch.testing.assert_close(found.maps / scale, plain.maps / scale, rtol=0, atol=0.08)


def test_swin_and_pooled_tokens_need_no_gradient() -> None:
    swin = timm_model(
        "swin_tiny_patch4_window7_224", (64, 64), img_size=64, window_size=2, embed_dim=24, depths=(1, 1),
        num_heads=(2, 4),
    )  # fmt: skip
    vit = timm_model(
        "vit_tiny_patch16_224", (32, 48), img_size=(32, 48), patch_size=8, embed_dim=24, depth=2, num_heads=2,
        global_pool="avg", fc_norm=False,
    )  # fmt: skip
    for encoder, size, grid in ((swin, (64, 64), (8, 8)), (vit, (32, 48), (4, 6))):
        images = images_for(encoder, *size, 2)
        found = qf.heatmaps(encoder, images, [1, 5], None)
        assert (found.method, found.layer, found.maps.shape[2:]) == ("exact", "norm", grid)
        kept: list[Tensor] = []
        handle = encoder.module.norm.register_forward_hook(
            lambda m, a, o, kept=kept: kept.append(o)
        )
        encoder(images)
        handle.remove()
        tokens = kept[0] if kept[0].ndim == 4 else kept[0][:, 1:].unflatten(1, grid)
        expected = tokens[..., [1, 5]].permute(0, 3, 1, 2).relu()
        torch.testing.assert_close(found.maps, expected, rtol=1e-5, atol=1e-6)


def test_nothing_is_left_behind() -> None:
    module = resnet18().train()
    encoder = small_encoder(module)
    frozen = [parameter.requires_grad for parameter in module.parameters()]
    for method in ("exact", "gradient"):
        qf.heatmaps(encoder, images_for(encoder, 64, 64), FEATURES, method=method)
    for layer in module.modules():
        assert not layer._forward_hooks
        assert not layer._forward_pre_hooks
        assert layer.training
    assert [parameter.requires_grad for parameter in module.parameters()] == frozen
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.is_grad_enabled()


def test_a_network_that_changes_its_pooling_is_noticed() -> None:
    encoder = small_encoder(resnet18())
    images = images_for(encoder, 64, 64)
    qf.heatmaps(encoder, images, FEATURES)
    encoder.module.avgpool = nn.AdaptiveMaxPool2d(1)
    with pytest.raises(qf.QScoreError, match="not the spatial mean of layer4"):
        qf.heatmaps(encoder, images, FEATURES)
