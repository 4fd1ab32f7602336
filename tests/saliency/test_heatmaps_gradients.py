"""Grad-CAM at any layer against captum's, which sees tokens through a marked map of them."""

from __future__ import annotations

import pytest
import timm
import torch
from captum.attr import LayerGradCam
from small_networks import SMALL, resnet18, small_encoder
from torch import Tensor, nn

import qscore_fast as qf
from qscore_fast.encoders import Encoder

FEATURES = [2, 0, 9]


class MarkedMap(nn.Module):
    """A layer of tokens whose patches pass through an identity as (B, C, h, w), for captum to hook."""

    def __init__(self, layer: nn.Module, grid: tuple[int, int]) -> None:
        super().__init__()
        self.layer, self.grid, self.mark = layer, grid, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if y.ndim == 4:
            return self.mark(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        first = y.shape[1] - self.grid[0] * self.grid[1]
        maps = self.mark(y[:, first:].unflatten(1, self.grid).permute(0, 3, 1, 2))
        return torch.cat([y[:, :first], maps.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def captum_maps(network: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    cam = LayerGradCam(network, layer)
    maps = torch.cat([cam.attribute(images, target=j).detach() for j in FEATURES], 1)
    return maps.relu() * maps.shape[2] * maps.shape[3]


def transformer(kind: str) -> tuple[Encoder, tuple[int, int]]:
    """A small one, and its grid."""
    name, size, grid, arguments = {
        "vit": ("vit_tiny_patch16_224", (32, 48), (4, 6), {}),
        "registers": ("vit_tiny_patch16_224", (32, 32), (4, 4), {"reg_tokens": 4}),
        "swin": ("swin_tiny_patch4_window7_224", (32, 32), (4, 4), {}),
    }[kind]
    if kind == "swin":
        arguments = {"window_size": 2, "embed_dim": 24, "depths": (1, 2), "num_heads": (2, 4)}
    else:
        arguments |= {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=0, img_size=size, **arguments).eval()
        for parameter in module.parameters():  # tokens that start at 0 would hide a wrong prefix
            parameter.data += 0.2 * torch.randn_like(parameter)
    return Encoder(module, SMALL.changed(resize=size, crop=size)), grid


def noise(encoder: Encoder, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, *encoder.preprocess.output_size, generator=generator)


@pytest.mark.parametrize("layer", ["layer3", "layer2.0.conv1", "bn1", "layer4.1.bn2"])
def test_any_layer_of_a_resnet(layer: str) -> None:
    encoder = small_encoder(resnet18())
    images = noise(encoder)
    found = qf.heatmaps(encoder, images, FEATURES, None, layer=layer)
    assert (found.method, found.layer) == ("gradient", layer)
    network = resnet18()
    for module in network.modules():
        if isinstance(module, nn.ReLU):  # in place it would change what captum has kept
            module.inplace = False
    expected = captum_maps(network, network.get_submodule(layer), images)
    assert expected.sum() > 0
    scale = expected.max()
    torch.testing.assert_close(found.maps / scale, expected / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "layer", "default"),
    [
        ("vit", "blocks.2.norm1", True),
        ("vit", "blocks.1", False),
        ("registers", "blocks.2.norm1", True),
        ("registers", "blocks.0.mlp", False),
        ("swin", "layers.1.blocks.0", False),
    ],
)
def test_tokens_and_windows(kind: str, layer: str, default: bool) -> None:
    encoder, grid = transformer(kind)
    images = noise(encoder)
    found = qf.heatmaps(encoder, images, FEATURES, None, layer=None if default else layer)
    assert (found.method, found.layer, found.maps.shape[2:]) == ("gradient", layer, grid)
    parent, _, child = layer.rpartition(".")
    marked = MarkedMap(encoder.module.get_submodule(layer), grid)
    setattr(encoder.module.get_submodule(parent), child, marked)
    expected = captum_maps(encoder.module, marked.mark, images)
    assert (expected.flatten(2).amax(2) > 0).any()
    scale = expected.max()
    torch.testing.assert_close(found.maps / scale, expected / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("combine", ["sum", "mean", "max"])
def test_own_features_one_by_one(combine: str, two_sided: bool) -> None:
    """Images with different numbers of features in one batch: each as it is alone, feature by feature."""
    encoder, _ = transformer("vit")
    images = noise(encoder, 4)
    found = qf.heatmaps(encoder, images, None, combine, eps=1.3, two_sided=two_sided)
    h = encoder(images)
    assert len({len(own) for own in found.features}) > 1
    torch.testing.assert_close(found.q_score, qf.q_score(h, None, 1.3, two_sided=two_sided))
    for i, own in enumerate(found.features):
        each = []
        for j in own.tolist():
            sign = -1 if two_sided and h[i, j] < h[i].mean() else 1
            leaf_map = signed_map(encoder, images[i : i + 1], j, sign)
            each.append(leaf_map)
        stack = torch.stack(each) if each else torch.zeros(1, *found.maps.shape[1:])
        reduce = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}[combine]
        torch.testing.assert_close(found.maps[i], reduce(stack, 0), rtol=1e-3, atol=1e-5)


def signed_map(encoder: Encoder, image: Tensor, feature: int, sign: int) -> Tensor:
    """Grad-CAM of sign * h_j at the layer that is the default, written out."""
    kept: list[Tensor] = []
    layer = encoder.module.blocks[2].norm1
    handle = layer.register_forward_hook(lambda module, args, output: kept.append(output))
    h = encoder.module(image)
    handle.remove()
    (gradient,) = torch.autograd.grad(sign * h[0, feature], kept[0])
    weights = gradient[0, 1:].sum(0)
    return (kept[0][0, 1:].detach() @ weights).relu().reshape(4, 6)


@pytest.mark.parametrize("precision", ["bfloat16", "bfloat16-autocast"])
def test_low_precision(precision: str) -> None:
    encoder, _ = transformer("vit")
    images = noise(encoder)
    plain = qf.heatmaps(encoder, images, FEATURES, None)
    fast = qf.heatmaps(encoder.optimised(precision), images, FEATURES, None)
    assert (fast.layer, fast.maps.dtype) == (plain.layer, torch.float32)
    scale = plain.maps.max()
    torch.testing.assert_close(fast.maps / scale, plain.maps / scale, rtol=0, atol=0.05)


def test_gradients_are_recorded_behind_the_layer_only() -> None:
    encoder = small_encoder(resnet18())
    recorded: dict[str, bool] = {}
    for name in ("layer2", "layer4"):
        encoder.module.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: recorded.update({name: output.requires_grad})
        )
    qf.heatmaps(encoder, noise(encoder), FEATURES, layer="layer3")
    assert recorded == {"layer2": False, "layer4": True}


@pytest.mark.parametrize("outer", [torch.no_grad, torch.inference_mode])
def test_inside_of_other_gradient_modes(outer: type) -> None:
    encoder, _ = transformer("vit")
    expected = qf.heatmaps(encoder, noise(encoder), FEATURES)
    with outer():
        found = qf.heatmaps(encoder, noise(encoder), FEATURES)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(found.maps, expected.maps)
    batched = qf.heatmaps(encoder, noise(encoder), FEATURES, batch_size=1)
    torch.testing.assert_close(batched.maps, expected.maps, rtol=1e-4, atol=1e-5)


def test_frozen_parameters_do_not_matter() -> None:
    encoder, _ = transformer("vit")
    expected = qf.heatmaps(encoder, noise(encoder), FEATURES).maps
    frozen, _ = transformer("vit")
    frozen.module.requires_grad_(False)
    torch.testing.assert_close(qf.heatmaps(frozen, noise(frozen), FEATURES).maps, expected)
