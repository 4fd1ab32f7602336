"""The ways to read a checkpoint's names: as they are, and without what training loops add to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from qscore_fast.encoders.layouts.unwrap import Unwrapped

# What people call the entry that holds a state dict, or "flat" without one, says little about its names.
PLAIN = ("flat", "state_dict", "model", "model_state_dict", "other")
_COMPILED = "_orig_mod"
_MAX_WORDS = 4


@dataclass(frozen=True)
class Reading:
    """One way to read the names.

    Attributes:
        tensors: in the file's order.
        wrappers: the layouts for any of these are candidates.
        notes: what was done to the names, where a user should know.
    """

    tensors: Mapping[str, Tensor] = field(repr=False)
    wrappers: tuple[str, ...]
    notes: tuple[str, ...] = ()


def readings(unwrapped: Unwrapped) -> Iterator[Reading]:
    """From the most literal to the least; the first one that a layout fits counts.

    torch.compile's ``_orig_mod`` is never part of a name. Then a plain state dict may have been saved
    under another entry than its source uses, or under none; and words that all names begin with
    (``module.``, ``model.``, ``backbone.``) are left out, one after the other.
    """
    tensors = _without_compiled(unwrapped.tensors)
    yield Reading(tensors, (unwrapped.wrapper,))
    if unwrapped.wrapper not in PLAIN:
        return
    yield Reading(tensors, PLAIN)
    left_out = ""
    for _ in range(_MAX_WORDS):
        word = _common_word(tensors)
        if word is None:
            return
        left_out += f"{word}."
        tensors = {name[len(word) + 1 :]: tensor for name, tensor in tensors.items()}
        note = f"all names begin with {left_out}, which was left out: it does not tell the system"
        yield Reading(tensors, PLAIN, () if left_out == "module." else (note,))


def _without_compiled(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if not any(_COMPILED in name for name in tensors):
        return tensors
    shorter = {
        ".".join(word for word in name.split(".") if word != _COMPILED): tensor
        for name, tensor in tensors.items()
    }
    return shorter if len(shorter) == len(tensors) else tensors


def _common_word(tensors: Mapping[str, Tensor]) -> str | None:
    """The word before the first dot, if all names share it."""
    word, dot, rest = next(iter(tensors), "").partition(".")
    shared = dot and rest and all(name.startswith(f"{word}.") for name in tensors)
    return word if shared else None
