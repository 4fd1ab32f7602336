"""Whether a result is right: only then has it a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

SAMPLE_ROWS = 512
OUTLIERS = 1e-4
"""Share of entries that may differ: those at the threshold, where the last bit of the mean decides."""


def agrees(actual: Any, expected: Any, features: int) -> bool:
    """Compare results on rows of ``features`` entries: tensors, NumPy arrays, or tuples of them, nested."""
    actual, expected = _flattened(actual, features), _flattened(expected, features)
    return len(actual) == len(expected) and all(map(_close, actual, expected))


def _flattened(result: Any, features: int) -> list[Tensor]:
    if isinstance(result, np.ndarray | np.generic):
        return [torch.from_numpy(np.atleast_1d(result))]
    if isinstance(result, Tensor):
        return [result.detach()]
    if _is_sparse(result):
        offsets, feature, value = result[:3]
        dense = _dense(offsets, feature, value, features)
        return [dense, *_flattened(tuple(result[3:]), features)]
    return [tensor for part in result for tensor in _flattened(part, features)]


def _is_sparse(result: tuple[Any, ...]) -> bool:
    """Seven fields, compressed sparse rows first; a flipped entry must not shift all others."""
    return len(result) == 7 and len(result[1]) == len(result[2])


def _dense(offsets: Any, feature: Any, value: Any, features: int) -> Tensor:
    offsets, feature, value = map(torch.as_tensor, (offsets, feature, value))
    row = torch.arange(len(offsets) - 1, device=offsets.device).repeat_interleave(offsets.diff())
    dense = value.new_zeros(len(offsets) - 1, features)
    dense[row, feature.long()] = value
    return dense


def _close(actual: Tensor, expected: Tensor) -> bool:
    if actual.numel() != expected.numel():
        return False
    expected = expected.to(actual.device).double().reshape(actual.shape)
    difference = actual.double().sub_(expected).abs_()
    if not actual.is_floating_point():
        # Counts: one more or fewer for each entry at the threshold.
        return bool(difference.sum() <= 2 + OUTLIERS * expected.sum())
    if not actual.numel():
        return True
    number = torch.finfo(actual.dtype)
    tolerance = (1e-5 + 4 * number.eps) * expected.abs().max() + number.smallest_normal * number.eps
    wrong = ~(difference <= tolerance)  # NaN is wrong
    return bool(wrong.double().mean() <= OUTLIERS)
