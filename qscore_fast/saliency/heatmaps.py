"""``heatmaps``: where in each image chosen features, or its own discriminative ones, have fired."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import SettingsError
from qscore_fast.reference import COMBINATIONS
from qscore_fast.saliency.chosen_features import ChosenFeatures, Features
from qscore_fast.saliency.exact_maps import exact_maps
from qscore_fast.saliency.feature_map import find_feature_map
from qscore_fast.saliency.gradient_maps import gradient_maps
from qscore_fast.saliency.heat_maps import HeatMaps, Method
from qscore_fast.saliency.image_batch import Images, normalised_images
from qscore_fast.saliency.maps_of_batch import MapsOfBatch

Combine = Literal["sum", "mean", "max"]


def heatmaps(
    encoder: Encoder | nn.Module,
    images: Images,
    features: Features = None,
    combine: Combine | None = "sum",
    *,
    eps: float | None = None,
    two_sided: bool | None = None,
    layer: str | None = None,
    method: Method | Literal["auto"] = "auto",
    batch_size: int = 32,
) -> HeatMaps:
    """Grad-CAM of features of the representation, for every image.

    Where the representation is the spatial mean of the last feature maps, as a ResNet's is, the Grad-CAM of a
    feature is its channel up to scale: all come with the forward pass. Elsewhere one backward pass for each
    feature, from the representation to ``layer`` and no further.

    Args:
        encoder: an Encoder, or a module that ``load_encoder`` takes.
        images: a normalised batch (N, C, height, width), or paths and Pillow images, one or several, which go
            through the encoder's own preprocessing.
        features: indices, the same for every image; ``DiscriminativeFeatures`` or a bool mask (r,): of every
            image its own features in L and D; None: its own in L.
        combine: "sum", "mean" or "max" over the features; None, for indices only: one map a feature.
        eps, two_sided: of L, as ``q_score``. A two-sided feature below the mean counts with its sign turned.
        layer: the name of the module whose activations are shown; the method is then "gradient". By default
            the last feature maps, or the last layer whose positions the representation depends on.
        method: "exact" to refuse gradients, "gradient" to use them in any case.
        batch_size: images a forward pass, when there are more.

    Returns:
        The maps, at the layer's resolution. What is below 0 in the map of a feature counts as 0.

    Raises:
        SettingsError: features out of range or of another encoder, wrong combine, method or layer; the
            candidates are named.
        EncoderError: the encoder does not take these images, or has no map of the image in it.
        ImageError: an image that cannot be read.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017.
    """
    if not isinstance(encoder, Encoder):
        encoder = load_encoder(encoder)
    chosen = ChosenFeatures.of(features, encoder.num_features, eps, two_sided)
    _check(combine, chosen, method, layer, batch_size)
    batch = normalised_images(encoder, images)
    source = None
    if layer is None and method != "gradient":
        source = find_feature_map(encoder, batch[:1])
        if source is None and method == "exact":
            raise SettingsError(
                f"{encoder.name} has no feature map whose spatial mean is the representation: its heat maps "
                'need gradients, method="gradient"'
            )
    parts: list[MapsOfBatch] = []
    for rows in batch.split(batch_size):
        if source is not None:
            parts.append(exact_maps(encoder, source, rows, chosen, combine))
        else:
            parts.append(gradient_maps(encoder, rows, chosen, combine, layer))
    maps, h, q, members = (torch.cat(field) for field in list(zip(*parts, strict=True))[:4])
    return HeatMaps(
        maps=maps,
        h=h,
        q_score=q,
        members=members,
        crop_size=(batch.shape[2], batch.shape[3]),
        layer=parts[0].layer,
        method="gradient" if source is None else "exact",
    )


def _check(
    combine: str | None, chosen: ChosenFeatures, method: str, layer: str | None, batch_size: int
) -> None:
    if combine is None:
        if chosen.indices is None:
            raise SettingsError(
                "combine=None gives one map a feature, so features must be indices: an image's own "
                'features differ in number; choose "sum", "mean" or "max"'
            )
    elif combine not in COMBINATIONS:
        raise SettingsError(f"combine is {combine!r}; choose one of {', '.join(COMBINATIONS)}")
    if method not in ("auto", "exact", "gradient"):
        raise SettingsError(f'method is {method!r}; choose "auto", "exact" or "gradient"')
    if layer is not None and method == "exact":
        raise SettingsError(
            f'layer {layer!r} needs method="gradient": exact maps are of the last one'
        )
    if batch_size < 1:
        raise SettingsError(f"batch_size is {batch_size}; it must be 1 or more")
