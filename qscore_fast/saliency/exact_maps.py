"""Heat maps from the forward pass alone: the channels of the last feature map."""

from __future__ import annotations

import torch
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.encoders.inference import bare_network
from qscore_fast.errors import EncoderError
from qscore_fast.functional import highly_active, q_score, score_maps
from qscore_fast.saliency.chosen_features import ChosenFeatures
from qscore_fast.saliency.feature_map import is_spatial_mean
from qscore_fast.saliency.layers import hookable, kept_output
from qscore_fast.saliency.maps_of_batch import MapsOfBatch
from qscore_fast.saliency.spatial import patch_size, spatial_view


def exact_maps(
    encoder: Encoder, layer: str, images: Tensor, chosen: ChosenFeatures, combine: str | None
) -> MapsOfBatch:
    """One forward pass; the maps of each image's own features in the same read of the feature map.

    Args:
        layer: that of ``find_feature_map``.
        images: (B, C, height, width), normalised.
        combine: as ``heatmaps``.
    """
    encoder = hookable(encoder)
    with kept_output(encoder, layer) as kept:
        h = encoder(images)
    size = (images.shape[2], images.shape[3])
    patch = patch_size(bare_network(encoder.module))
    maps = spatial_view(kept[0], size, patch) if kept else None
    finite = h.isfinite().all(1)
    if maps is None or not is_spatial_mean(maps[finite], h[finite]):
        raise EncoderError(
            f"the representation of {encoder.name} is no longer the spatial mean of {layer}: it computes "
            'something else for these images; use method="gradient"'
        )
    if chosen.indices is None:
        mask = None if chosen.mask is None else chosen.mask.to(maps.device)
        found = score_maps(
            maps, mask, chosen.eps, combine or "sum", rectify=True, two_sided=chosen.two_sided
        )
        own = highly_active(found.h, chosen.eps, two_sided=chosen.two_sided)
        if mask is not None:
            own = own & mask
        features = tuple(row.nonzero().squeeze(1) for row in own.cpu())
        return MapsOfBatch(found.heat, found.h, found.q_score, features, layer)
    indices = chosen.indices.to(maps.device)
    h = maps.float().mean((2, 3))
    q = q_score(h, None, chosen.eps, two_sided=chosen.two_sided)
    selected = combined(maps[:, indices].float().relu(), combine)
    shape = (-1, *[1] * (selected.ndim - 1))
    selected = selected.masked_fill(q.isnan().view(shape), torch.nan)
    return MapsOfBatch(selected, h, q, (chosen.indices.cpu(),) * len(images), layer)


def combined(maps: Tensor, combine: str | None) -> Tensor:
    """(B, K, height, width) over the features to (B, height, width); None leaves them as they are."""
    if combine is None:
        return maps
    if combine == "max":
        return maps.amax(1)
    return maps.sum(1) if combine == "sum" else maps.mean(1)
