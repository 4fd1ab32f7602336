"""From a container's content to one flat mapping of names to tensors, and what lies beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from qscore_fast.encoders.containers import Container, Stub
from qscore_fast.encoders.layouts import haiku, simclr
from qscore_fast.errors import EncoderError

MAX_ARGS_JSON_BYTES = 2**20
_SOLO_SYSTEMS = {
    "simclr": "simclr", "mocov2plus": "moco_v2", "mocov3": "moco_v3", "byol": "byol", "dino": "dino",
    "simsiam": "simsiam", "swav": "swav", "vicreg": "vicreg", "barlow_twins": "barlow_twins",
}  # fmt: skip


@dataclass(frozen=True)
class Unwrapped:
    """A checkpoint's tensors.

    Attributes:
        wrapper: how they were found: "flat", "state_dict", "model", "model_state_dict", "teacher", "dino"
            (student and teacher), "classy" (VISSL), "haiku" (BYOL), "tensorflow", "resnet+head".
        tensors: in the file's order.
        ignored: other entries, and what they are.
        hints: "system" and "dataset" where the file, or args.json beside it, names them.
    """

    wrapper: str
    tensors: dict[str, Tensor] = field(repr=False)
    ignored: dict[str, str]
    hints: dict[str, str]


def unwrap(container: Container) -> Unwrapped:
    """Find the tensors.

    Raises:
        EncoderError: there are none, or they are in a form that cannot be used.
    """
    content = container.content
    if not isinstance(content, Mapping):
        raise EncoderError(
            f"it holds a {_kind(content)}, not a checkpoint's mapping of names to tensors"
        )
    if content.get("type") in ("shard", "shard_list", "slice", "slice_list"):
        raise EncoderError(
            f"it is a piece or the list of a divided VISSL checkpoint (type {content['type']}): put it "
            "together with VISSL's own consolidation script first"
        )
    hints = _hints(content, container.path)
    if haiku.is_byol(content):
        tensors, ignored = haiku.byol_tensors(content)
        return Unwrapped("haiku", tensors, ignored, hints)
    if container.format == "tensorflow":
        if not simclr.is_simclr(content):
            raise EncoderError(
                "its variables are not those of SimCLR (base_model/conv2d/kernel and so on); it has "
                + ", ".join(list(map(str, content))[:3])
            )
        tensors, ignored = simclr.tensorflow_tensors(content)
        return Unwrapped("tensorflow", tensors, ignored, hints)
    for wrapper, found in _wrappers(content):
        beside = [key for key in content if not _holds_tensors(content[key]) or key in _BESIDE]
        ignored = {str(key): _BESIDE.get(str(key), _kind(content[key])) for key in beside}
        return Unwrapped(wrapper, found, ignored, hints)
    raise EncoderError(
        "no tensors where a checkpoint has them; its entries are "
        + (", ".join(list(map(str, content))[:6]) or "none")
    )


_BESIDE = {
    "optimizer": "optimiser state",
    "optimizer_states": "optimiser state",
    "scaler": "loss scaling",
    "fp16_scaler": "loss scaling",
    "callbacks": "state of Lightning",
    "loops": "state of Lightning",
    "pytorch-lightning_version": "state of Lightning",
    "native_amp_scaling_state": "loss scaling",
    "amp": "loss scaling",
    "lr_schedulers": "schedules",
    "scheduler": "schedules",
    "message_hub": "log",
    "epoch": "training progress",
    "global_step": "training progress",
    "arch": "name of the network",
    "args": "settings of the training",
    "hyper_parameters": "settings of the training",
    "meta": "settings of the training",
}


def _wrappers(content: Mapping[Any, Any]) -> list[tuple[str, dict[str, Tensor]]]:
    """The ways in which the content can be unwrapped; the first one counts."""
    found: list[tuple[str, dict[str, Tensor]]] = []
    classy = content.get("classy_state_dict")
    if isinstance(classy, Mapping):
        model = _at(classy, "base_model", "model")
        pieces = {**{k: model.get(k) for k in ("trunk", "heads")}, "loss": classy.get("loss")}
        found.append(("classy", _flat(pieces)))
    elif isinstance(content.get("student"), Mapping) and isinstance(
        content.get("teacher"), Mapping
    ):
        found.append(
            ("dino", _flat({k: content.get(k) for k in ("student", "teacher", "dino_loss")}))
        )
    elif isinstance(content.get("resnet"), Mapping):
        resnet, head = _flat(content["resnet"]), _flat(content.get("head") or {})
        found.append(("resnet+head", simclr.pytorch_tensors(resnet, head)))
    else:
        for name in ("state_dict", "model", "model_state_dict", "teacher"):
            if isinstance(content.get(name), Mapping):
                found.append((name, _flat(content[name])))
    flat = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not found and flat:
        if any(name.startswith("net.0.0.") for name in flat):
            found.append(("vissl-sk", simclr.pytorch_tensors(flat, {})))
        else:
            found.append(("flat", flat))
    return [(wrapper, tensors) for wrapper, tensors in found if tensors]


def _flat(tree: object, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of nested mappings, names joined by dots."""
    if isinstance(tree, Stub):
        tree = dict(tree.items_)
    if not isinstance(tree, Mapping):
        return {}
    tensors: dict[str, Tensor] = {}
    for key, value in tree.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{key}"] = value
        else:
            tensors |= _flat(value, f"{prefix}{key}.")
    return tensors


def _at(tree: Mapping[Any, Any], *path: str) -> Mapping[Any, Any]:
    for name in path:
        tree = tree.get(name, {})
        if not isinstance(tree, Mapping):
            return {}
    return tree


def _holds_tensors(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, Mapping) and bool(_flat(value)))


def _hints(content: Mapping[Any, Any], path: Path) -> dict[str, str]:
    """What solo-learn says of method and data set, in the file or in args.json beside it."""
    settings: Any = content.get("hyper_parameters")
    if not isinstance(settings, Mapping) or "method" not in settings:
        beside = path.parent / "args.json"
        if (
            path.suffix != ".ckpt"
            or not beside.is_file()
            or beside.stat().st_size > MAX_ARGS_JSON_BYTES
        ):
            return {}
        try:
            settings = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
    if not isinstance(settings, Mapping):
        return {}
    data = settings.get("data")
    dataset = data.get("dataset") if isinstance(data, Mapping) else settings.get("dataset")
    system = _SOLO_SYSTEMS.get(str(settings.get("method")))
    hints = {"system": system, "dataset": dataset if isinstance(dataset, str) else None}
    return {key: value for key, value in hints.items() if value}


def _kind(value: object) -> str:
    if isinstance(value, Stub):
        return re.sub(r"^.*\.", "", value.name)
    return type(value).__name__
