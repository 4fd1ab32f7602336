"""The identity of an encoder: its architecture and every byte of its weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def fingerprint_of_module(module: nn.Module, architecture: str) -> str:
    """SHA-256 (hex) over ``architecture`` and the state dict's names, dtypes, shapes and bytes, in order.

    The device does not enter. Preprocessing is not part of it: a run records that separately.
    """
    digest = hashlib.sha256(architecture.encode())
    for name, value in module.state_dict().items():
        if not isinstance(value, torch.Tensor):
            digest.update(f"\n{name} {value!r}".encode())
            continue
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
