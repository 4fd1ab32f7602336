"""Grad-CAM at any layer: gradients of features, weighing the layer's channels."""

from __future__ import annotations

import difflib

import torch
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.encoders.inference import bare_network
from qscore_fast.errors import EncoderError, SettingsError
from qscore_fast.functional import q_score
from qscore_fast.saliency.chosen_features import ChosenFeatures
from qscore_fast.saliency.feature_map import noise
from qscore_fast.saliency.layers import LayerCache, hookable, output_as_leaf, recorded_outputs
from qscore_fast.saliency.maps_of_batch import MapsOfBatch
from qscore_fast.saliency.spatial import patch_size, spatial_view

NAMED = 12  # candidates that an error lists

_cache = LayerCache()


def gradient_maps(
    encoder: Encoder,
    images: Tensor,
    chosen: ChosenFeatures,
    combine: str | None,
    layer: str | None,
) -> MapsOfBatch:
    """One forward pass, and one backward pass from the representation to the layer for each feature.

    Memory: the graph behind the layer for the batch, and one gradient of the layer's size, however many
    features there are. Weights and maps are float32 whatever the encoder's precision.

    Args:
        images: (B, C, height, width), normalised.
        layer: the name of a module; None for the last that serves.

    Raises:
        SettingsError: no such layer, or its output is no map of the image.
        EncoderError: no layer serves.
    """
    encoder = hookable(encoder)
    layer = _checked_layer(encoder, layer, tuple(images.shape[1:]))
    size = (images.shape[2], images.shape[3])
    patch = patch_size(bare_network(encoder.module))
    with torch.inference_mode(False), output_as_leaf(encoder, layer) as leaves:
        # Outside of inference mode such a tensor may not enter a graph; its copy may.
        h = _forward(encoder, images.clone() if images.is_inference() else images)
        if not leaves or spatial_view(leaves[0], size, patch) is None:
            raise _not_spatial(encoder, layer, leaves, tuple(images.shape[1:]))
        (leaf,) = leaves
        activations = spatial_view(leaf.detach(), size, patch)
        assert activations is not None
        scored = h.detach().float()
        q = q_score(scored, chosen.mask, chosen.eps, two_sided=chosen.two_sided)
        members, signs = chosen.members(scored), _signs(scored, chosen)
        # The features of each image first, in order; how many it has.
        order = members.int().argsort(dim=1, descending=True, stable=True)
        if chosen.indices is not None:
            order = chosen.indices.to(h.device).expand(len(h), -1)
        numbers = (
            members.sum(1) if chosen.indices is None else torch.full_like(q, order.shape[1]).int()
        )
        count = int(numbers.max())
        shape = (len(images), *activations.shape[2:])
        total = torch.zeros(shape, device=h.device)
        lowest = torch.full_like(total, -torch.inf)
        separate: list[Tensor] = []
        for k in range(count):
            direction = torch.zeros_like(h)
            has, feature = k < numbers, order[:, k : k + 1]
            direction.scatter_(1, feature, (signs.gather(1, feature) * has[:, None]).to(h.dtype))
            gradient = None
            if h.requires_grad:
                (gradient,) = torch.autograd.grad(
                    h, leaf, direction, retain_graph=k + 1 < count, allow_unused=True
                )
            if gradient is None:
                raise SettingsError(
                    f"the representation of {encoder.name} does not depend on layer {layer!r}: "
                    f"{_candidates(encoder, tuple(images.shape[1:]))}"
                )
            heat = _cam(activations, spatial_view(gradient, size, patch))
            if combine is None:
                separate.append(heat)
            elif combine == "max":
                lowest = torch.where(has[:, None, None], torch.maximum(lowest, heat), lowest)
            else:
                total += heat * has[:, None, None]
    if combine is None:
        total = torch.stack(separate, 1)
    elif combine == "max":
        total = lowest.masked_fill(lowest.isneginf(), 0)
    elif combine == "mean":
        total = total / numbers.clamp(min=1)[:, None, None]
    broken = q.isnan().view(-1, *[1] * (total.ndim - 1))
    return MapsOfBatch(total.masked_fill(broken, torch.nan), scored, q, members, layer)


def spatial_layers(encoder: Encoder, shape: tuple[int, ...]) -> list[str]:
    """The names of the layers whose output is a map of the image, in the order in which they run.

    Args:
        shape: of an image, (C, height, width).
    """
    encoder = hookable(encoder)
    with recorded_outputs(encoder) as outputs:
        encoder(noise(shape))
    return [name for name, output in outputs.items() if _view(encoder, output, shape) is not None]


def _cam(activations: Tensor, gradient: Tensor | None) -> Tensor:
    """The weighted sum of the channels, from (B, C, h, w) each; what is below 0 counts as 0."""
    assert gradient is not None
    weights = gradient.float().sum((2, 3))
    return torch.einsum("nc,nchw->nhw", weights, activations.float()).relu()


def _signs(h: Tensor, chosen: ChosenFeatures) -> Tensor:
    """+1, or -1 for a two-sided feature of the image's own below the mean: (B, r)."""
    if chosen.indices is not None or not chosen.two_sided:
        return torch.ones_like(h)
    return torch.where(h < h.mean(1, keepdim=True), -1.0, 1.0)


def _forward(encoder: Encoder, images: Tensor) -> Tensor:
    """As the encoder's call, but in the caller's gradient mode."""
    module = encoder.module
    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    dtypes = (tensor.dtype for tensor in module.parameters() if tensor.is_floating_point())
    try:
        h = module(images.to(encoder.device, next(dtypes, images.dtype)))
    finally:
        for layer in training:
            layer.training = True
    return h.flatten(1)


def _view(encoder: Encoder, output: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """The output as a map of more than one position."""
    if not output.is_floating_point():
        return None
    patch = patch_size(bare_network(encoder.module))
    maps = spatial_view(output, (shape[1], shape[2]), patch)
    return maps if maps is not None and maps[0, 0].numel() > 1 else None


def _checked_layer(encoder: Encoder, layer: str | None, shape: tuple[int, ...]) -> str:
    if layer is None:
        return _last_layer(encoder, shape)
    names = {name for name, _ in bare_network(encoder.module).named_modules() if name}
    if layer not in names:
        near = difflib.get_close_matches(layer, names, n=3)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise SettingsError(
            f"{encoder.name} has no layer {layer!r}; {hint}{_candidates(encoder, shape)}"
        )
    return layer


def _not_spatial(
    encoder: Encoder, layer: str, leaves: list[Tensor], shape: tuple[int, ...]
) -> SettingsError:
    what = (
        f"returns {tuple(leaves[0].shape)}" if leaves else "is not run, or returns no activations"
    )
    return SettingsError(
        f"layer {layer!r} of {encoder.name} {what}: that is no map of the image; "
        f"{_candidates(encoder, shape)}"
    )


def _candidates(encoder: Encoder, shape: tuple[int, ...]) -> str:
    names = spatial_layers(encoder, shape)
    if not names:
        return "none of its layers has one"
    last = names[-NAMED:]
    return f"the last {len(last)} of {len(names)} with a map are {', '.join(last)}"


def _last_layer(encoder: Encoder, shape: tuple[int, ...]) -> str:
    """The last layer that runs and has a gradient in its positions; one with r channels if there is any.

    That rules out what comes after the positions were mixed for the last time: behind the last attention a
    class token depends on no patch any more.
    """
    known = _cache.of(encoder)
    if shape not in known:
        known[shape] = _find_last_layer(encoder, shape)
    if known[shape] is None:
        raise EncoderError(
            f"{encoder.name} has no layer whose output is a map of its images of {shape[1]} x {shape[2]} "
            "pixels: it has no heat maps"
        )
    found: str = known[shape]
    return found


def _find_last_layer(encoder: Encoder, shape: tuple[int, ...]) -> str | None:
    with torch.inference_mode(False), torch.enable_grad(), recorded_outputs(encoder) as outputs:
        image = noise(shape).requires_grad_()
        h = _forward(encoder, image.clone())
        spatial = {
            name: output
            for name, output in outputs.items()
            if output.requires_grad and _view(encoder, output, shape) is not None
        }
        if not spatial:
            return None
        direction = torch.randn(h.shape, generator=torch.Generator().manual_seed(1)).to(h)
        gradients = torch.autograd.grad(h, [*spatial.values()], direction, allow_unused=True)
    found, found_r = None, None
    for (name, _), gradient in zip(spatial.items(), gradients, strict=True):
        view = None if gradient is None else _view(encoder, gradient, shape)
        if view is None or not view.any():
            continue
        found = name
        if view.shape[1] == h.shape[1]:
            found_r = name
    return found_r or found
