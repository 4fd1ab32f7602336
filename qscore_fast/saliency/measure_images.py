"""Masked images through the encoders: heat maps, and how they fit the masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qscore_fast.encoders import Encoder
from qscore_fast.errors import EncoderError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.saliency.heat_maps import HeatMaps
from qscore_fast.saliency.heatmaps import Combine, heatmaps
from qscore_fast.saliency.interpretation_rows import KINDS, PartRows
from qscore_fast.saliency.mask_frame import in_mask_frame
from qscore_fast.saliency.masked_images import MaskedImage
from qscore_fast.saliency.overlap import OverlapSettings, overlaps
from qscore_fast.saliency.salient_masks import SIDE


@dataclass(frozen=True, eq=False)
class Explained:
    """An encoder and the features whose heat maps are measured: of every image its own in L and D."""

    encoder: Encoder
    features: DiscriminativeFeatures


def measure_images(
    images: Sequence[MaskedImage],
    encoders: Sequence[Explained],
    combine: Combine,
    settings: OverlapSettings,
    rows: PartRows,
) -> None:
    """Add a row for each image, none of which has an error.

    Raises:
        EncoderError: out of memory, or the encoder does not take the images.
    """
    core, spurious = (_stacked([getattr(image.masks, kind) for image in images]) for kind in KINDS)
    q_scores, counts, found_overlaps = [], [], []
    for number, explained in enumerate(encoders):
        pixels = [image.pixels[number] for image in images]
        found, heat, seen = heat_on_masks(
            explained, pixels, [image.size for image in images], combine
        )
        q_scores.append(found.q_score.float().cpu().numpy())
        counts.append(found.members.sum(1).tolist())
        found_overlaps.append(overlaps(heat, (core, spurious), settings, seen))
    rows.add(images, q_scores, counts, found_overlaps)


def heat_on_masks(
    explained: Explained,
    pixels: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    combine: Combine,
) -> tuple[HeatMaps, Tensor, Tensor]:
    """The heat maps of a batch, and these in the frame of the masks, see :func:`in_mask_frame`.

    Args:
        pixels: of each image, uint8 (C, height, width) after the encoder's transform.
        sizes: width and height before it.

    Raises:
        EncoderError: out of memory, or the encoder does not take the images.
    """
    encoder = explained.encoder
    try:
        images = encoder.preprocess.normalise(torch.stack(list(pixels)).to(encoder.device))
        found = heatmaps(encoder, images, explained.features, combine, batch_size=len(images))
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise EncoderError(
            f"out of memory with {len(pixels)} images a batch on {encoder.device}: take a smaller "
            "batch_size (--batch-size); the finished parts stay"
        ) from error
    # Float64 is not on every accelerator.
    maps = found.maps if found.maps.is_cuda else found.maps.cpu()
    return found, *in_mask_frame(maps, encoder.preprocess, sizes)


def _stacked(masks: Sequence[np.ndarray | None]) -> Tensor:
    """(N, 224, 224) uint8, 0 where there is no mask."""
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    return torch.from_numpy(np.stack([nothing if mask is None else mask for mask in masks]))
