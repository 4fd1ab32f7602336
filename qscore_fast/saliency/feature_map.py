"""The last feature map of an encoder whose representation is its spatial mean."""

from __future__ import annotations

import torch
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.encoders.inference import bare_network
from qscore_fast.saliency.layers import LayerCache, hookable, recorded_outputs
from qscore_fast.saliency.spatial import patch_size, spatial_view

_cache = LayerCache()


def find_feature_map(encoder: Encoder, images: Tensor) -> str | None:
    """The name of the layer whose output (B, r, h, w) has h as its spatial mean; None without one.

    Looked for once a network and image size, with an image of noise: a real one may be NaN, or black.

    Args:
        images: of the size that is asked about; nothing else of them is used.
    """
    size = tuple(images.shape[1:])
    known = _cache.of(encoder)
    if size not in known:
        known[size] = _find(hookable(encoder), size)
    found: str | None = known[size]
    return found


def noise(shape: tuple[int, ...]) -> Tensor:
    """One image of standard normal pixels, always the same."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


def is_spatial_mean(pooled: Tensor, h: Tensor, dtype: torch.dtype) -> bool:
    """Whether ``h`` (B, r) is ``pooled``, the spatial mean of maps of ``dtype``, up to its rounding.

    Rows that are not finite tell nothing.
    """
    if pooled.shape != h.shape:
        return False
    exact, h = pooled.float(), h.float()
    tolerance = max(1e-4, 8 * torch.finfo(dtype).eps) * exact.abs().amax(1, keepdim=True)
    return bool(((exact - h).abs() <= tolerance).all(1).logical_or(~exact.isfinite().all(1)).all())


def _find(encoder: Encoder, size: tuple[int, ...]) -> str | None:
    with recorded_outputs(encoder) as outputs:
        h = encoder(noise(size))
    patch = patch_size(bare_network(encoder.module))
    found, area = None, 1  # a map of one position shows nothing
    for name, output in outputs.items():
        if not output.is_floating_point():
            continue
        maps = spatial_view(output, (size[1], size[2]), patch)
        if maps is None or maps[0, 0].numel() < max(area, 2):
            continue
        if is_spatial_mean(maps.float().mean((2, 3)), h, maps.dtype):
            found, area = name, maps[0, 0].numel()
    return found
