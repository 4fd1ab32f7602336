"""What a part was made with, as far as it can change the last digits of what the part holds."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from qscore_fast.backends import backend_on
from qscore_fast.encoders import Encoder
from qscore_fast.scoring.record import differences, library_versions
from qscore_fast.scoring.store import Store


def made_with(encoder: Encoder, batch_size: int) -> dict[str, Any]:
    """As JSON: batch size, device by its model, kernels, PyTorch's threads on a CPU, and libraries.

    A convolution adds up in another order in a batch of another size, on another device, and on a CPU
    with other threads.
    """
    kind = encoder.device.type
    content: dict[str, Any] = {
        "batch_size": batch_size,
        "device": kind,
        "kernels": backend_on(kind),
    }
    if kind == "cuda":
        content["device"] = f"{kind} {torch.cuda.get_device_name(encoder.device)}"
    elif kind == "cpu":
        content["device"] = f"{kind} {torch.backends.cpu.get_cpu_capability()}"
        content["threads"] = torch.get_num_threads()
    return {**content, "libraries": _libraries()}


def made_otherwise(store: Store, now: Mapping[str, Any]) -> list[str]:
    """How the parts that are there were made otherwise than ``now``: "batch_size: 64 -> 7", one a setting.

    What ``now`` or a part does not say is not compared.
    """

    def of_part(index: int) -> str:
        return json.dumps(store.made_with(index), sort_keys=True)

    found: dict[str, None] = {}
    for text in dict.fromkeys(store.each_unit(of_part)):
        before: Mapping[str, Any] = json.loads(text) or {}
        both = before.keys() & now.keys()
        changes = differences({k: before[k] for k in both}, {k: now[k] for k in both})
        found.update(dict.fromkeys(changes))
    return list(found)


def warn_of_other_settings(
    store: Store, now: dict[str, Any], *, on_other_machines: bool = False
) -> None:
    """A RuntimeWarning if parts that are still to come will be made otherwise than those that are there."""
    if on_other_machines:  # what their devices are shows only there
        now = {key: now[key] for key in ("batch_size", "libraries")}
    changes = made_otherwise(store, now)
    if changes and store.missing_units():
        warnings.warn(
            f"the run in {store.path} goes on under other settings than those of its finished parts "
            f"({'; '.join(changes)}): its scores may differ from those of one made under one of them, in "
            "their last digits",
            RuntimeWarning,
            stacklevel=3,
        )


@functools.cache
def _libraries() -> dict[str, str]:
    return library_versions()
