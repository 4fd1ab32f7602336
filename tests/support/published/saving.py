"""Writing files as their makers did: old or new torch container, tensors from a GPU, foreign globals."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor


def save(content: Any, path: Path, *, legacy: bool = False, cuda: bool = True) -> None:
    """torch.save in the container of before torch 1.6 (`legacy`) or after; with `cuda`, storages say
    that they come from "cuda:0", as those of a model saved where it was trained."""
    if not cuda:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        return
    with mock.patch.object(torch.serialization, "location_tag", lambda storage: "cuda:0"):
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)


@contextmanager
def importable(objects: Mapping[str, Any]) -> Iterator[None]:
    """Make objects importable under dotted names while a pickle that names them is written."""
    stand_ins: list[str] = []
    kept_names = []
    for dotted, value in objects.items():
        module, name = dotted.rsplit(".", 1)
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules:
                sys.modules[path] = types.ModuleType(path)
                stand_ins.append(path)
        value.__module__, value.__qualname__, value.__name__ = module, name, name
        kept_names.append((sys.modules[module], name, getattr(sys.modules[module], name, None)))
        setattr(sys.modules[module], name, value)
    try:
        yield
    finally:
        for owner, name, before in kept_names:
            if before is None:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
        for added in stand_ins:
            sys.modules.pop(added, None)


def sgd_state(
    state: Mapping[str, Tensor], key: str = "momentum_buffer", **group: Any
) -> dict[str, Any]:
    """An optimiser's state_dict with buffers for the first parameters."""
    shapes = [tensor.shape for tensor in state.values() if tensor.is_floating_point()][:4]
    options = {"lr": 0.03, "momentum": 0.9, "weight_decay": 1e-4, **group}
    return {
        "state": {index: {key: torch.full(shape, 0.01)} for index, shape in enumerate(shapes)},
        "param_groups": [{**options, "params": list(range(len(shapes)))}],
    }


def adamw_state(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """AdamW's state_dict with moments for the first parameters."""
    shapes = [tensor.shape for tensor in state.values() if tensor.is_floating_point()][:4]
    moments = {
        index: {
            "step": 100,
            "exp_avg": torch.full(shape, 0.01),
            "exp_avg_sq": torch.full(shape, 1e-4),
        }
        for index, shape in enumerate(shapes)
    }
    group = {"lr": 5e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.04, "amsgrad": False}
    return {"state": moments, "param_groups": [{**group, "params": list(range(len(shapes)))}]}


def grad_scaler_state() -> dict[str, Any]:
    return {
        "scale": 65536.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 2000,
        "_growth_tracker": 7,
    }
