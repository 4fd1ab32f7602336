"""What the names and shapes of a state dict say about a network's size."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from qscore_fast.errors import EncoderError


def shape_of(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of one tensor.

    Raises:
        KeyError: with one sentence; the name is missing.
        EncoderError: it has another number of dimensions, or an empty one.
    """
    if name not in state:
        raise KeyError(f"{name} is missing")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise EncoderError(f"{name} must have {dimensions} dimensions, none empty; it is {shape}")
    return shape


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers follow each other from 0 where ``pattern`` has its group.

    Never more than there are names, so that a file cannot ask for more than it holds.

    Raises:
        KeyError: with one sentence; there is none.
        EncoderError: a number is left out.
    """
    matches = (re.match(pattern, name) for name in state)
    numbers = {int(match[1]) for match in matches if match and len(match[1]) < 6}
    if not numbers:
        raise KeyError(f"no name matches {pattern}")
    if numbers != set(range(len(numbers))):
        gap = next(number for number in range(len(numbers)) if number not in numbers)
        raise EncoderError(f"names that match {pattern} leave out number {gap}")
    return len(numbers)
