"""``load_encoder``: every way to name an encoder."""

from __future__ import annotations

import importlib.resources
import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from qscore_fast.encoders.containers import Container, read_container
from qscore_fast.encoders.encoder import Encoder
from qscore_fast.encoders.layouts import Recognised
from qscore_fast.encoders.networks.infer import POOLS
from qscore_fast.encoders.own_checkpoint import is_own, own_encoder
from qscore_fast.encoders.published import TOWERS, published_encoder
from qscore_fast.encoders.timm_models import load_timm
from qscore_fast.encoders.torchvision_models import load_torchvision
from qscore_fast.encoders.training_state import Tower
from qscore_fast.errors import EncoderError, SettingsError
from qscore_fast.images.preprocess import IMAGENET, Preprocess

DEMO_CHECKPOINT = "demo/data/encoder.pth"

Pool = Literal["cls", "patch_mean"]


def load_encoder(
    spec: str | os.PathLike[str] | nn.Module,
    system: str | None = None,
    *,
    tower: Tower | None = None,
    pool: Pool | None = None,
    device: torch.device | str | None = None,
    pretrained: bool = True,
    preprocess: Preprocess | None = None,
) -> Encoder:
    """Load an encoder.

    Args:
        spec: the path of a checkpoint, published by one of the self-supervised systems or zoos of
            docs/encoders.md, or of this project's own kind; "timm:NAME"; "torchvision:NAME"; "demo",
            the bundled encoder; or a module that maps (B, C, height, width) to (B, r). A TensorFlow
            checkpoint is named by its prefix, its .index file or its folder. Nothing in a file is
            executed.
        system: the SSL system, where a checkpoint does not tell ("simclr", "swav", "moco", "byol",
            "dino", "simsiam", "vicreg", "barlow_twins", ...). One that contradicts the file is an error.
        tower: of a checkpoint with two, "online" (trained by gradients) or "ema" (its moving average).
            By default the one that the system evaluates: DINO's teacher, the online one elsewhere.
        pool: of a transformer, "cls" (the class token after the last norm; the default) or "patch_mean"
            (the mean of the patch tokens after it). ResNets are averaged after the last ReLU.
        device: where to put it. By default a module stays where it is, everything else goes to the
            CUDA (or ROCm) device if there is one, otherwise to the CPU.
        pretrained: for timm and torchvision: the library's weights, or random ones that are the same
            each time.
        preprocess: the transform of its images. By default the checkpoint's or the library's own; for
            a module, the ImageNet recipe: RGB, short side 256, centre crop 224, bilinear, ImageNet
            mean and standard deviation.

    Returns:
        The encoder; ``training_state`` holds a checkpoint's heads, other tower, queue and centre.

    Raises:
        EncoderError: unknown name, a checkpoint that is damaged, of an unknown layout or not what
            ``system`` says, weights that cannot be had, wrong output.
        SettingsError: ``tower`` or ``pool`` has no such value, or makes no sense for this encoder.
        MissingExtraError: a library that it needs is not installed.
    """
    _check("tower", tower, TOWERS)
    _check("pool", pool, POOLS)
    if isinstance(spec, nn.Module):
        _only_checkpoints("a module", tower, pool)
        encoder = Encoder(spec, preprocess or IMAGENET, type(spec).__name__, system)
        return encoder if device is None else encoder.to(device)

    encoder = _load_named(os.fspath(spec), system, tower, pool, pretrained, preprocess)
    return encoder.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def load_checkpoint(
    path: str | os.PathLike[str],
    name: str | None = None,
    system: str | None = None,
    tower: Tower | None = None,
    pool: Pool | None = None,
) -> Encoder:
    """``load_encoder`` for a file, on the CPU.

    Args:
        path: the file.
        name: what to call the encoder; the path by default.
        system, tower, pool: as ``load_encoder``.
    """
    return read_checkpoint(path, name, system, tower, pool)[0]


def read_checkpoint(
    path: str | os.PathLike[str],
    name: str | None = None,
    system: str | None = None,
    tower: Tower | None = None,
    pool: Pool | None = None,
) -> tuple[Encoder, Container, Recognised | None]:
    """``load_checkpoint``, with the file's content and what was recognised in a published one."""
    name = name or os.fspath(path)
    container = read_container(path)
    own = is_own(container.content)
    if own:
        _only_checkpoints("a checkpoint of qscore-fast's own kind", tower, pool)
    try:
        if not own:
            encoder, found = published_encoder(container, name, system, tower, pool)
            return encoder, container, found
        return _with_system(own_encoder(container.content, name), system), container, None
    except (EncoderError, SettingsError) as error:
        raise EncoderError(f"cannot load the checkpoint {name}: {error}") from error


def _load_named(
    spec: str,
    system: str | None,
    tower: Tower | None,
    pool: Pool | None,
    pretrained: bool,
    preprocess: Preprocess | None,
) -> Encoder:
    library, _, name = spec.partition(":")
    if library in ("timm", "torchvision") and name:
        _only_checkpoints(spec, tower, pool)
        load = load_timm if library == "timm" else load_torchvision
        return _with_system(load(name, pretrained, preprocess), system)
    if spec == "demo":
        bundled = importlib.resources.files("qscore_fast") / DEMO_CHECKPOINT
        with importlib.resources.as_file(bundled) as path:
            encoder = load_checkpoint(path, "demo", system, tower, pool)
    elif Path(spec).exists() or Path(f"{spec}.index").exists():
        encoder = load_checkpoint(spec, None, system, tower, pool)
    else:
        raise EncoderError(
            f"no encoder {spec!r}: it is neither a file, nor demo, nor timm:NAME, nor "
            f"torchvision:NAME (did you mean torchvision:{spec} or timm:{spec}?)"
            if spec.isidentifier()
            else f"there is no checkpoint {spec!r}"
        )
    return encoder if preprocess is None else encoder.with_preprocess(preprocess)


def _with_system(encoder: Encoder, system: str | None) -> Encoder:
    if system is None:
        return encoder
    if encoder.system not in (None, system):
        raise EncoderError(f"{encoder.name} was trained with {encoder.system}, not with {system}")
    return replace(encoder, system=system)


def _check(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise SettingsError(f"{name} must be {' or '.join(map(repr, known))}, got {value!r}")


def _only_checkpoints(what: str, tower: str | None, pool: str | None) -> None:
    for name, value in (("tower", tower), ("pool", pool)):
        if value is not None:
            raise SettingsError(
                f"{name}={value} is for published checkpoints; {what} has one way: leave it out"
            )
