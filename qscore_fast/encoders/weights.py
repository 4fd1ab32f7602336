"""A checkpoint's tensors against the network that is to hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from qscore_fast.errors import EncoderError


def checked_state(state: object, module: nn.Module) -> dict[str, Tensor]:
    """The tensors in the module's dtypes, once names, shapes and values are known to fit.

    Counters of batch norms that the file lacks are 0: they take no part in evaluation.

    Raises:
        EncoderError: a name is missing or not known, a shape differs, a weight is not finite.
    """
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise EncoderError("its state_dict must map names to tensors")
    expected = module.state_dict()
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - state.keys() - counters)
    unknown = sorted(map(str, state.keys() - expected.keys()))
    if missing or unknown:
        raise EncoderError(
            f"its weights do not fit the architecture: missing {few(missing)}; not known {few(unknown)}"
        )
    checked = {}
    for key, wanted in expected.items():
        value = state.get(key)
        if value is None:
            checked[key] = torch.zeros((), dtype=wanted.dtype)
            continue
        if value.shape != wanted.shape or value.is_floating_point() != wanted.is_floating_point():
            raise EncoderError(
                f"{key} is {value.dtype} {tuple(value.shape)}, "
                f"the architecture needs {wanted.dtype} {tuple(wanted.shape)}"
            )
        # A copy: the file's memory may change or go away while the encoder is in use.
        checked[key] = value.to(wanted.dtype).clone(memory_format=torch.contiguous_format)
        if not checked[key].isfinite().all():
            raise EncoderError(f"{key} holds NaN or infinite weights")
    return checked


def few(names: Iterable[str]) -> str:
    """At most three names, long ones cut short, and how many more there are."""
    listed = list(names)
    shown = ", ".join(f"{name:.80}" for name in listed[:3]) or "none"
    return f"{shown} and {len(listed) - 3} more" if len(listed) > 3 else shown
