"""Encoders from timm."""

from __future__ import annotations

import difflib
import math
from typing import Any

from qscore_fast.encoders.encoder import Encoder
from qscore_fast.encoders.pretrained import random_weights, unavailable
from qscore_fast.errors import EncoderError, MissingExtraError
from qscore_fast.images.preprocess import Preprocess


def load_timm(name: str, pretrained: bool = True, preprocess: Preprocess | None = None) -> Encoder:
    """The model without its classifier (``num_classes=0``), with the transform of timm's data config.

    Args:
        name: timm's name of the model, with or without a tag: "resnet50", "resnet50.a1_in1k".
        pretrained: False gives random weights, always the same ones.
        preprocess: instead of timm's.

    Raises:
        MissingExtraError: timm is not installed.
        EncoderError: timm does not know the name, or cannot get the weights.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("timm", "timm") from error

    full_name = f"timm:{name}"
    if not name.startswith(("hf-hub:", "hf_hub:")):
        _check_name(timm, name, pretrained)
    try:
        with random_weights(not pretrained):
            module = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:
        raise unavailable(full_name, error, pretrained) from error
    if preprocess is None:
        preprocess = _preprocess(timm.data.resolve_model_data_config(module))
    return Encoder(module=module.eval(), preprocess=preprocess, name=full_name)


def _check_name(timm: Any, name: str, pretrained: bool) -> None:
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them all"
        raise EncoderError(f"timm has no model {base!r}; {hint}")
    with_weights = sorted({*timm.list_pretrained(f"{base}.*"), *timm.list_pretrained(base)})
    if pretrained and not with_weights:
        raise EncoderError(
            f"timm has no pretrained weights for {base}: choose another model, or take random "
            "weights with pretrained=False (--no-pretrained)"
        )
    if tag and name not in with_weights:
        raise EncoderError(
            f"timm has no weights {tag!r} for {base}; it has {', '.join(with_weights) or 'none'}"
        )


def _preprocess(config: dict[str, Any]) -> Preprocess:
    """timm's evaluation transform for this data config."""
    channels, height, width = config["input_size"]
    crop_pct, crop_mode = config["crop_pct"], config["crop_mode"]
    resize: int | tuple[int, int]
    if crop_mode == "squash":
        resize = (math.floor(height / crop_pct), math.floor(width / crop_pct))
    elif crop_mode == "center" and height == width:
        resize = math.floor(height / crop_pct)
    else:
        raise EncoderError(
            f"timm's crop mode {crop_mode!r} for {height} x {width} pixels is not supported: "
            "give preprocess=Preprocess(...)"
        )
    return Preprocess(
        mode="L" if channels == 1 else "RGB",
        resize=resize,
        crop=(height, width),
        interpolation="bicubic" if config["interpolation"] == "random" else config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
