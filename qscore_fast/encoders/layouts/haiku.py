"""BYOL's Haiku parameters, as torch tensors under this project's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qscore_fast.encoders.containers import Stub
from qscore_fast.errors import EncoderError

# The order of _ByolExperimentState's fields.
FIELDS = ("online_params", "target_params", "online_state", "target_state", "opt_state")
_PARAMS = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias"}
_STATES = {"mean_ema": "running_mean", "var_ema": "running_var"}
_BLOCK = re.compile(
    r"block_group_(\d{1,6})/~/block_(\d{1,6})/~/(shortcut_)?(conv|batchnorm)(?:_(\d{1,6}))?$"
)
_HEAD = re.compile(r"(projector|predictor)/(?:~/)?(linear|batch_norm)(?:_(\d{1,6}))?$")


def is_byol(content: object) -> bool:
    """Whether this is what BYOL's code pickles."""
    return isinstance(content, Mapping) and "experiment_state" in content


def byol_tensors(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """``online.backbone.conv1.weight`` and so on, and what was left out and why.

    Convolutions go from (h, w, in, out) to (out, in, h, w), matrices from (in, out) to (out, in).

    Raises:
        EncoderError: the state has other fields, or a parameter no place.
    """
    state = _fields(content["experiment_state"])
    tensors: dict[str, Tensor] = {}
    for tower, params, running in (
        ("online", "online_params", "online_state"),
        ("ema", "target_params", "target_state"),
    ):
        for path, name, value in _leaves(state.get(params, {})):
            tensors[f"{tower}.{_module(path)}.{_PARAMS.get(name, name)}"] = _in_torch_order(
                value, path
            )
        for path, name, value in _leaves(state.get(running, {})):
            module, _, statistic = path.rpartition("/~/")
            if name == "average" and statistic in _STATES:
                tensors[f"{tower}.{_module(module)}.{_STATES[statistic]}"] = value.reshape(-1)
    ignored = {"opt_state": "optimiser state"} if "opt_state" in state else {}
    ignored |= {str(key): "training progress" for key in content if key != "experiment_state"}
    return tensors, ignored


def _fields(state: object) -> Mapping[str, Any]:
    if isinstance(state, Stub):
        state = state.kwargs or dict(zip(FIELDS, state.args, strict=False)) or state.state
    elif isinstance(state, tuple | list):
        state = dict(zip(FIELDS, state, strict=False))
    if not isinstance(state, Mapping) or "online_params" not in state:
        raise EncoderError(f"its experiment_state does not have BYOL's fields {', '.join(FIELDS)}")
    return state


def _leaves(tree: object) -> list[tuple[str, str, Tensor]]:
    if not isinstance(tree, Mapping):
        raise EncoderError(
            f"Haiku parameters must be a mapping of modules, got a {type(tree).__name__}"
        )
    leaves = []
    for path, fields in tree.items():
        if not isinstance(fields, Mapping):
            raise EncoderError(f"Haiku module {path} is a {type(fields).__name__}, not a mapping")
        leaves += [
            (str(path), str(name), value)
            for name, value in fields.items()
            if isinstance(value, Tensor)
        ]
    return leaves


def _module(path: str) -> str:
    """Haiku's path of a module as "backbone.layer1.0.conv1", "projector.0" or "classifier"."""
    head = _HEAD.search(path)
    if head:
        kind = "linear" if head[2] == "linear" else "norm"
        return f"{head[1]}.{kind}{int(head[3] or 0) + 1}"
    block = _BLOCK.search(path)
    if block:
        stage, index, shortcut, kind, number = block.groups()
        layer = f"backbone.layer{int(stage) + 1}.{index}"
        if shortcut:
            return f"{layer}.downsample.{0 if kind == 'conv' else 1}"
        return f"{layer}.{'conv' if kind == 'conv' else 'bn'}{int(number or 0) + 1}"
    last = path.rpartition("/")[2]
    if last.startswith("initial_"):
        return "backbone.conv1" if last.startswith("initial_conv") else "backbone.bn1"
    if last == "classifier":
        return "classifier"
    raise EncoderError(f"Haiku module {path} has no place in BYOL's networks")


def _in_torch_order(value: Tensor, path: str) -> Tensor:
    if "batch" in path.rpartition("/")[2]:
        return value.reshape(-1)
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1)
    return value.t() if value.ndim == 2 else value
