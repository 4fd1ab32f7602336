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
from qscore_fast.saliency.heatmaps import Combine, heatmaps
from qscore_fast.saliency.interpretation_rows import PartRows
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
    core = _stacked([image.masks.core for image in images if image.masks is not None])
    spurious = _stacked([image.masks.spurious for image in images if image.masks is not None])
    sizes = [image.size for image in images]
    q_scores, counts, found_overlaps = [], [], []
    for number, explained in enumerate(encoders):
        encoder = explained.encoder
        pixels = torch.stack([image.pixels[number] for image in images]).to(encoder.device)
        try:
            found = heatmaps(
                encoder,
                encoder.preprocess.normalise(pixels),
                explained.features,
                combine,
                batch_size=len(images),
            )
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise EncoderError(
                f"out of memory with {len(images)} images a batch on {encoder.device}: take a smaller "
                "batch_size (--batch-size); the finished parts stay"
            ) from error
        # Float64 is not on every accelerator.
        maps = found.maps if found.maps.is_cuda else found.maps.cpu()
        heat, seen = in_mask_frame(maps, encoder.preprocess, sizes)
        q_scores.append(found.q_score.float().cpu().numpy())
        counts.append([len(own) for own in found.features])
        found_overlaps.append(overlaps(heat, (core, spurious), settings, seen))
    rows.add(images, q_scores, counts, found_overlaps)


def _stacked(masks: Sequence[np.ndarray | None]) -> Tensor:
    """(N, 224, 224) uint8, 0 where there is no mask."""
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    return torch.from_numpy(np.stack([nothing if mask is None else mask for mask in masks]))
