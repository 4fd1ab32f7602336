"""``load_encoder``: every way to name an encoder."""

from __future__ import annotations

import importlib.resources
import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from qscore_fast.encoders.checkpoint import load_checkpoint
from qscore_fast.encoders.encoder import Encoder
from qscore_fast.encoders.timm_models import load_timm
from qscore_fast.encoders.torchvision_models import load_torchvision
from qscore_fast.errors import EncoderError
from qscore_fast.images.preprocess import IMAGENET, Preprocess

DEMO_CHECKPOINT = "demo/data/encoder.pth"


def load_encoder(
    spec: str | os.PathLike[str] | nn.Module,
    system: str | None = None,
    *,
    device: torch.device | str | None = None,
    pretrained: bool = True,
    preprocess: Preprocess | None = None,
) -> Encoder:
    """Load an encoder.

    Args:
        spec: the path of a checkpoint of this project's kind; "timm:NAME"; "torchvision:NAME"; "demo",
            the bundled encoder; or a module that maps (B, C, height, width) to (B, r).
        system: the SSL system. A checkpoint names its own: another one given here is an error.
        device: where to put it. By default a module stays where it is, everything else goes to the
            CUDA (or ROCm) device if there is one, otherwise to the CPU.
        pretrained: for timm and torchvision: the library's weights, or random ones that are the same
            each time.
        preprocess: the transform of its images. By default the checkpoint's or the library's own; for
            a module, the ImageNet recipe: RGB, short side 256, centre crop 224, bilinear, ImageNet
            mean and standard deviation.

    Raises:
        EncoderError: unknown name, unusable checkpoint, weights that cannot be had, wrong output.
        MissingExtraError: timm is asked for and not installed.
    """
    if isinstance(spec, nn.Module):
        encoder = Encoder(spec, preprocess or IMAGENET, type(spec).__name__, system)
        return encoder if device is None else encoder.to(device)

    encoder = _load_named(os.fspath(spec), pretrained, preprocess)
    if system is not None:
        if encoder.system not in (None, system):
            raise EncoderError(
                f"{encoder.name} was trained with {encoder.system}, not with {system}"
            )
        encoder = replace(encoder, system=system)
    return encoder.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _load_named(spec: str, pretrained: bool, preprocess: Preprocess | None) -> Encoder:
    library, _, name = spec.partition(":")
    if library == "timm" and name:
        return load_timm(name, pretrained, preprocess)
    if library == "torchvision" and name:
        return load_torchvision(name, pretrained, preprocess)
    if spec == "demo":
        bundled = importlib.resources.files("qscore_fast") / DEMO_CHECKPOINT
        with importlib.resources.as_file(bundled) as path:
            encoder = load_checkpoint(path, name="demo")
    elif Path(spec).exists():
        encoder = load_checkpoint(spec)
    else:
        raise EncoderError(
            f"no encoder {spec!r}: it is neither a file, nor demo, nor timm:NAME, nor "
            f"torchvision:NAME (did you mean torchvision:{spec} or timm:{spec}?)"
            if spec.isidentifier()
            else f"there is no checkpoint {spec!r}"
        )
    return encoder if preprocess is None else replace(encoder, preprocess=preprocess)
