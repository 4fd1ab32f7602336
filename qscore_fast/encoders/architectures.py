"""The architectures that a checkpoint may name, with bounds on the arguments that it may give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from qscore_fast.encoders.small_resnet import SmallResNet
from qscore_fast.errors import EncoderError

# A checkpoint is data from elsewhere: it must not be able to ask for a network that takes minutes or
# all memory to build. Largest value of each argument; a list holds at most MAX_STAGES of them.
_BOUNDS: dict[str, dict[str, int]] = {
    "small_resnet": {
        "stem_channels": 4096,
        "stem_stride": 16,
        "planes": 4096,
        "blocks": 64,
        "strides": 16,
    },
}
_CLASSES: dict[str, type[nn.Module]] = {"small_resnet": SmallResNet}
MAX_STAGES = 8


def build_on_meta(architecture: object) -> nn.Module:
    """The network that ``{"name": ..., "arguments": {...}}`` describes, without memory for weights.

    Raises:
        EncoderError: unknown name, unknown argument, or a value out of bounds.
    """
    if not isinstance(architecture, Mapping):
        raise EncoderError(f"architecture must be a mapping, got {type(architecture).__name__}")
    name, arguments = architecture.get("name"), architecture.get("arguments")
    if name not in _CLASSES:
        known = ", ".join(sorted(_CLASSES))
        raise EncoderError(f"unknown architecture {name!r} (this version knows: {known})")
    if not isinstance(arguments, Mapping):
        raise EncoderError(f"the arguments of {name} must be a mapping, got {arguments!r:.80}")
    for key, value in arguments.items():
        _check_argument(name, key, value)
    try:
        with torch.device("meta"):
            return _CLASSES[name](**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EncoderError(f"the arguments of {name} do not fit: {error}") from error


def _check_argument(name: str, key: object, value: Any) -> None:
    bound = _BOUNDS[name].get(key) if isinstance(key, str) else None
    if bound is None:
        raise EncoderError(f"{name} has no argument {key!r:.80}")
    numbers = value if isinstance(value, list | tuple) else [value]
    if len(numbers) > MAX_STAGES or not all(
        type(number) is int and 1 <= number <= bound for number in numbers
    ):
        raise EncoderError(
            f"argument {key} of {name} must hold whole numbers from 1 to {bound}, "
            f"at most {MAX_STAGES}; got {value!r:.80}"
        )
