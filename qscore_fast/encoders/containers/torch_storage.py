"""How the pickles of torch.save refer to the numbers that lie outside them."""

from __future__ import annotations

from typing import Any

import torch

from qscore_fast.encoders.containers.allowlist import STORAGES, Global
from qscore_fast.encoders.containers.values import Storage, brief
from qscore_fast.errors import EncoderError


def storage_identifier(identifier: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and number of entries of the storage that a persistent identifier names.

    Raises:
        EncoderError: it names something else, or a storage of a type that is not read.
    """
    if (
        not isinstance(identifier, tuple)
        or len(identifier) < 5
        or identifier[0] != "storage"
        or not isinstance(identifier[1], Global)
        or identifier[1].name not in STORAGES
        or not isinstance(identifier[2], str)
        or type(identifier[4]) is not int
        or not 0 <= identifier[4] < 2**48
    ):
        raise EncoderError(f"it holds a storage of an unknown kind ({brief(identifier)})")
    if identifier[3] == "meta":
        raise EncoderError("it holds a meta tensor, which has no numbers")
    return STORAGES[identifier[1].name], identifier[2], identifier[4]


def same_type(storage: Storage, dtype: torch.dtype, numel: int) -> Storage:
    """``storage``; raises EncoderError when it was declared differently before."""
    if storage.dtype != dtype or storage.numel != numel:
        raise EncoderError("two of its tensors disagree on the type or size of their storage")
    return storage
