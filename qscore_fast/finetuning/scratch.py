"""Encoders that nobody has trained yet: where pre-training with this loop begins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import torch

from qscore_fast.encoders import Encoder
from qscore_fast.encoders.fingerprint import fingerprint_of_module
from qscore_fast.encoders.networks import words
from qscore_fast.encoders.networks.resnet import ResNet
from qscore_fast.errors import SettingsError
from qscore_fast.finetuning.objectives import SYSTEMS
from qscore_fast.images import Preprocess

UNTRAINED = "untrained"
_PADDING = {"simclr": "same_pool", "byol": "same"}


def untrained_encoder(
    system: str,
    preprocess: Preprocess,
    *,
    block: Literal["basic", "bottleneck"] = "bottleneck",
    layers: Sequence[int] = (3, 4, 6, 3),
    width: int = 64,
    seed: int = 0,
) -> Encoder:
    """A ResNet with random weights, padded as the system's official code pads, so that its layout holds it.

    ``finetune`` trains it like any other encoder (with ``regulariser="none"`` it needs no D), but warms up
    no heads: there is no trained backbone that they could disturb.

    Args:
        system: whose objective will train it.
        preprocess: of its images; grey or colour.
        block, layers, width: see ``ResNet``; the representation has 8 ``width`` entries, times 4 with
            bottlenecks.
        seed: of the weights.

    Raises:
        SettingsError: no such system, or a network that cannot be built.
    """
    if system not in SYSTEMS:
        raise SettingsError(f"no objective for {system!r}: choose one of {', '.join(SYSTEMS)}")
    channels = 1 if preprocess.mode == "L" else 3
    arguments = {
        "block": block,
        "layers": tuple(layers),
        "width": width,
        "in_channels": channels,
        "padding": _PADDING.get(system, "torch"),
        # SimCLR's and BYOL's basic blocks project the input of the first stage.
        "first_projection": system in _PADDING,
    }
    architecture = {"name": "resnet", "arguments": arguments}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            module = ResNet(**arguments)  # type: ignore[arg-type]
        except (KeyError, ValueError, RuntimeError) as error:
            raise SettingsError(f"there is no such ResNet ({error}): {arguments}") from error
    return Encoder(
        module=module.eval().requires_grad_(False),
        preprocess=preprocess,
        name=f"{UNTRAINED} {words(architecture)}",
        system=system,
        num_features=module.num_features,
        fingerprint=fingerprint_of_module(module, json.dumps(architecture, sort_keys=True)),
        source=UNTRAINED,
        architecture=words(architecture),
    )


def is_untrained(encoder: Encoder) -> bool:
    """Whether an encoder is one of ``untrained_encoder``."""
    return encoder.source == UNTRAINED
