"""Thirty features an image: ours against captum, pytorch-grad-cam and a careful loop in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import qscore_fast as qf
from qscore_fast.encoders import Encoder
from qscore_fast.encoders.inference import bare_network
from qscore_fast.saliency.heat_maps import upsample

from ..implementations import WrongResult
from ..timing import interleaved

NUM_FEATURES = 30
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}

MapsOf = Callable[[], Tensor]
ToMap = Callable[[Tensor], Tensor] | None


def captum(network: nn.Module, layer: nn.Module, images: Tensor, features: list[int]) -> MapsOf:
    """One forward and one backward pass a feature."""
    from captum.attr import LayerGradCam

    cam = LayerGradCam(network, layer)
    return lambda: torch.cat(
        [cam.attribute(images, target=feature).detach() for feature in features], 1
    )


def pytorch_grad_cam(
    network: nn.Module, layer: nn.Module, images: Tensor, features: list[int], to_map: ToMap
) -> MapsOf:
    """The same; its maps are scaled to 1 and to the size of the image, as NumPy arrays."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cam = GradCAM(network, [layer], reshape_transform=to_map)

    def maps() -> Tensor:
        each = []
        for feature in features:
            targets = [ClassifierOutputTarget(feature)] * len(images)
            each.append(torch.from_numpy(cam(input_tensor=images, targets=targets)))
        return torch.stack(each, 1)

    return maps


def plain_loop(
    network: nn.Module, layer: nn.Module, images: Tensor, features: list[int], to_map: ToMap
) -> MapsOf:
    """One forward pass and one backward pass a feature, as far as the layer."""
    as_map = to_map or (lambda tensor: tensor)

    def maps() -> Tensor:
        kept: list[Tensor] = []
        handle = layer.register_forward_hook(lambda module, args, output: kept.append(output))
        h = network(images)
        handle.remove()
        each = []
        for feature in features:
            (gradient,) = torch.autograd.grad(h[:, feature].sum(), kept[0], retain_graph=True)
            weights = as_map(gradient).mean((2, 3), keepdim=True)
            each.append((weights * as_map(kept[0]).detach()).sum(1))
        return torch.stack(each, 1)

    return maps


def tokens_to_map(tokens: Tensor) -> Tensor:
    """(B, 1 + side^2, C) to (B, C, side, side)."""
    side = round((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)


def measure(name: str, encoder: Encoder, layer: str, images: Tensor) -> dict[str, Any]:
    """Seconds for all maps of the batch; the rivals that are not installed are named with the reason.

    Every implementation's maps are first compared with the plain loop's, each scaled to its largest.
    """
    network = bare_network(encoder.module)
    module = network.get_submodule(layer)
    dtype = next(network.parameters()).dtype
    typed = images.to(dtype)
    generator = torch.Generator().manual_seed(2)
    features = torch.randperm(encoder.num_features, generator=generator)[:NUM_FEATURES].tolist()
    to_map = tokens_to_map if "vit" in name else None
    calls: dict[str, MapsOf] = {
        "ours": lambda: qf.heatmaps(encoder, images, features, None, batch_size=len(images)).maps,
        "plain loop": plain_loop(network, module, typed, features, to_map),
    }
    left_out = {}
    try:
        if to_map is None:
            calls["captum"] = captum(network, module, typed, features)
        else:
            left_out["captum"] = "its LayerGradCam takes the tokens for channels"
    except ImportError as error:
        left_out["captum"] = str(error)
    try:
        calls["pytorch-grad-cam"] = pytorch_grad_cam(network, module, typed, features, to_map)
    except ImportError as error:
        left_out["pytorch-grad-cam"] = str(error)
    expected = _scaled(calls["plain loop"]())
    for key, call in calls.items():
        wanted, found = expected, _scaled(call())
        if key == "pytorch-grad-cam":
            wanted, found = _as_pytorch_grad_cam(expected, images), call()
        error = (found - wanted.to(found.device)).abs().max()
        if not error <= TOLERANCE[dtype]:
            raise WrongResult(f"{key}: its maps differ from the plain loop's by {float(error):.2g}")
    times = interleaved(calls, encoder.device, rounds=7, seconds=3.0)
    seconds = {key: time.median for key, time in times.items()}
    return {
        "encoder": name,
        "precision": encoder.precision,
        "layer": layer,
        "images": len(images),
        "features": NUM_FEATURES,
        "seconds": seconds,
        "quartiles": {key: time.quartiles for key, time in times.items()},
        "times_faster": {key: value / seconds["ours"] for key, value in seconds.items()},
        "left_out": left_out,
    }


def _scaled(maps: Tensor) -> Tensor:
    """What is above 0 of the maps (N, K, h, w), each divided by its largest."""
    maps = maps.detach().float().relu()
    return maps / maps.amax((2, 3), keepdim=True).clamp(min=1e-30)


def _as_pytorch_grad_cam(maps: Tensor, images: Tensor) -> Tensor:
    """Maps as that library returns them: 0 to 1 before and after their resizing."""

    def from_0_to_1(maps: Tensor) -> Tensor:
        maps = maps - maps.amin((2, 3), keepdim=True)
        return maps / (1e-7 + maps.amax((2, 3), keepdim=True))

    return from_0_to_1(upsample(from_0_to_1(maps), (images.shape[2], images.shape[3])))
