"""Heat maps from the forward pass alone: the channels of the last feature map."""

from __future__ import annotations

import torch
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.encoders.inference import bare_network
from qscore_fast.errors import EncoderError
from qscore_fast.functional import score_maps
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
    maps = spatial_view(kept[0], size, patch_size(bare_network(encoder.module))) if kept else None
    if maps is None or maps.shape[:2] != h.shape:
        raise _changed(encoder, layer)
    own = chosen.indices is None
    found = score_maps(
        maps, chosen.mask, chosen.eps, combine if own and combine else "sum", rectify=True,
        two_sided=chosen.two_sided,
    )  # fmt: skip
    if not is_spatial_mean(found.h, h, maps.dtype):
        raise _changed(encoder, layer)
    heat = found.heat
    if chosen.indices is not None:
        heat = combined(maps[:, chosen.indices.to(maps.device)].float().relu(), combine)
        broken = found.q_score.isnan().view(-1, *[1] * (heat.ndim - 1))
        heat = heat.masked_fill(broken, torch.nan)
    return MapsOfBatch(heat, found.h, found.q_score, chosen.members(found.h), layer)


def _changed(encoder: Encoder, layer: str) -> EncoderError:
    return EncoderError(
        f"the representation of {encoder.name} is not the spatial mean of {layer} for these images as it "
        'was for others: use method="gradient"'
    )


def combined(maps: Tensor, combine: str | None) -> Tensor:
    """(B, K, height, width) over the features to (B, height, width); None leaves them as they are."""
    if combine is None:
        return maps
    if combine == "max":
        return maps.amax(1)
    return maps.sum(1) if combine == "sum" else maps.mean(1)
