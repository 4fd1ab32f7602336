"""Encoders from torchvision."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

from torch import nn

from qscore_fast.encoders.encoder import Encoder
from qscore_fast.encoders.pretrained import random_weights, unavailable
from qscore_fast.errors import EncoderError
from qscore_fast.images.preprocess import IMAGENET, Preprocess

HEADS = ("fc", "classifier", "head", "heads")


def load_torchvision(
    name: str, pretrained: bool = True, preprocess: Preprocess | None = None
) -> Encoder:
    """A classification model of torchvision whose last classifying layer is the identity.

    Args:
        name: torchvision's name of the model, such as "resnet50".
        pretrained: torchvision's default weights, with their transform; False gives random weights,
            always the same ones, with the ImageNet recipe (resize 256, crop 224, bilinear).
        preprocess: instead of those.

    Raises:
        EncoderError: torchvision does not know the name, or cannot get the weights.
    """
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = (
            f"did you mean {', '.join(near)}?" if near else "see torchvision.models.list_models()"
        )
        raise EncoderError(f"torchvision has no classification model {name!r}; {hint}")

    full_name = f"torchvision:{name}"
    weights = models.get_model_weights(name).DEFAULT if pretrained else None
    try:
        with random_weights(not pretrained), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The default weight initialization")
            module = models.get_model(name, weights=weights)
    except Exception as error:
        raise unavailable(full_name, error, pretrained) from error
    remove_classifier(module, full_name)
    if preprocess is None:
        preprocess = IMAGENET if weights is None else _preprocess(weights.transforms())
    return Encoder(module=module.eval(), preprocess=preprocess, name=full_name)


def remove_classifier(module: nn.Module, name: str) -> None:
    """Put the identity in place of the last linear layer (or convolution) of the model's head."""
    for head_name in HEADS:
        head = getattr(module, head_name, None)
        if head is None:
            continue
        layers = [
            path
            for path, layer in head.named_modules(prefix=head_name)
            if isinstance(layer, nn.Linear | nn.Conv2d)
        ]
        if layers:
            module.set_submodule(layers[-1], nn.Identity())
            return
    raise EncoderError(
        f"{name} has no classifier named {', '.join(HEADS)}: "
        "give a module that returns its representation instead"
    )


def _preprocess(transforms: Any) -> Preprocess:
    """The fields of torchvision's ``ImageClassification`` preset."""
    (resize,), (crop,) = transforms.resize_size, transforms.crop_size
    return Preprocess(
        resize=resize,
        crop=crop,
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
