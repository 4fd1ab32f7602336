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
# Several times what the largest published file names; bounds the time that recognition takes.
MAX_NAMES = 10_000
_OTHERS = "tensors beside those that were taken"
_SOLO_SYSTEMS = {
    "simclr": "simclr", "mocov2plus": "moco_v2", "mocov3": "moco_v3", "byol": "byol", "dino": "dino",
    "simsiam": "simsiam", "swav": "swav", "vicreg": "vicreg", "barlow_twins": "barlow_twins",
}  # fmt: skip


@dataclass(frozen=True)
class Unwrapped:
    """A checkpoint's tensors.

    Attributes:
        wrapper: how they were found: "flat", "state_dict", "model", "model_state_dict", "teacher", "dino"
            (student and teacher), "classy" (VISSL), "haiku" (BYOL), "tensorflow", "resnet+head",
            "numbered" (SimCLRv2's layers), "other" (the only entry with tensors).
        tensors: in the file's order.
        ignored: other entries, and what they are.
        hints: "system" (perhaps none of SYSTEMS) and "dataset" where the file, or args.json beside it,
            names them.
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
    if container.format == "safetensors" and _is_numbered(content):
        raise EncoderError(
            "SimCLRv2's tensors (net.0.0.weight and so on) are told apart by their order, which "
            "safetensors does not keep: load the .pth file that it was made from"
        )
    wrapper, found, used = _wrapped(content)
    if not found:
        raise EncoderError(_without_tensors(content))
    if len(found) > MAX_NAMES:
        raise EncoderError(f"it names {len(found):,} tensors; no known network has {MAX_NAMES:,}")
    ignored = {
        str(key): _BESIDE.get(str(key), _OTHERS if _flat({key: value}) else _kind(value))
        for key, value in content.items()
        if key not in used
    }
    return Unwrapped(wrapper, found, ignored, hints)


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
    "qscore_fast": "transform of the images",
}


def _wrapped(content: Mapping[Any, Any]) -> tuple[str, dict[str, Tensor], set[Any]]:
    """How the content is wrapped, its tensors, and the entries that they come from."""
    classy = content.get("classy_state_dict")
    if isinstance(classy, Mapping):
        model = _at(classy, "base_model", "model")
        pieces = {**{k: model.get(k) for k in ("trunk", "heads")}, "loss": classy.get("loss")}
        return "classy", _flat(pieces), {"classy_state_dict"}
    if all(isinstance(content.get(name), Mapping) for name in ("student", "teacher")):
        used = ("student", "teacher", "dino_loss")
        return "dino", _flat({name: content.get(name) for name in used}), set(used)
    if isinstance(content.get("resnet"), Mapping):
        resnet, head = _flat(content["resnet"]), _flat(content.get("head"))
        return "resnet+head", simclr.pytorch_tensors(resnet, head), {"resnet", "head"}
    for name in ("state_dict", "model", "model_state_dict", "teacher"):
        if isinstance(content.get(name), Mapping) and (found := _flat(content[name])):
            return name, found, {name}
    flat = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if _is_numbered(flat):
        return "numbered", simclr.pytorch_tensors(flat, {}), set(content)
    if any("." in name for name in flat):
        return "flat", flat, {key for key, value in content.items() if isinstance(value, Tensor)}
    entries = _entries_with_tensors(content)
    if len(entries) == 1:
        return "other", _flat(content[entries[0]]), set(entries)
    return "flat", {}, set()


def _is_numbered(content: Mapping[Any, Any]) -> bool:
    return any(str(name).startswith("net.0.0.") for name in content)


def _entries_with_tensors(content: Mapping[Any, Any]) -> list[Any]:
    return [
        key
        for key, value in content.items()
        if "optim" not in str(key) and key not in _BESIDE and _flat(value)
    ]


def _without_tensors(content: Mapping[Any, Any]) -> str:
    entries = _entries_with_tensors(content)
    if entries:
        return (
            f"several of its entries hold tensors ({', '.join(map(str, entries[:6]))}): save the one that is "
            f"the encoder by itself, such as torch.save(checkpoint[{entries[0]!r}], FILE)"
        )
    names = ", ".join(list(map(str, content))[:6]) or "none"
    return f"no tensors where a checkpoint has them; its entries are {names}"


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
    method = str(settings.get("method"))
    # A method that is none of the systems here is a hint as well: not to take it for one of them.
    system = _SOLO_SYSTEMS.get(method, method) if "method" in settings else None
    hints = {"system": system, "dataset": dataset if isinstance(dataset, str) else None}
    return {key: value for key, value in hints.items() if value}


def _kind(value: object) -> str:
    return re.sub(r"^.*\.", "", value.name) if isinstance(value, Stub) else type(value).__name__
