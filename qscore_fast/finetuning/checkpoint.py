"""Checkpoints of a training: all of its state, whole or not there, and exact when it is taken up again."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from qscore_fast.errors import StoreError
from qscore_fast.scoring.atomic import made_folder, replacing

FORMAT = "qscore-fast.finetuning"
FORMAT_VERSION = 1
LAST = "last.pt"
_NUMBERED = re.compile(r"step-(\d{9})\.pt")


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``step`` optimiser steps.

    Attributes:
        step: steps that were made, those of the heads alone included.
        objective, regulariser, optimiser: state dicts; those of process 0.
        processes: one mapping a process: "position" in its images, "rng" of its generators, and "buffers",
            those of the objective that differ from process 0's.
        watch: what the log goes on from.
    """

    step: int
    objective: dict[str, Tensor]
    regulariser: dict[str, Tensor]
    optimiser: dict[str, Any]
    processes: list[dict[str, Any]]
    watch: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            StoreError: it cannot be written.
        """
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **vars(self)}
        with replacing(path) as temporary:
            torch.save(content, temporary)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read one, on the CPU; nothing in it is executed.

        Raises:
            StoreError: it is missing, damaged or none.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise StoreError(f"there is no checkpoint {path}") from None
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).split("\n")[0]
            raise StoreError(f"the checkpoint {path} is damaged: {reason}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise StoreError(f"{path} is no checkpoint of qscore finetune")
        if content.get("format_version") != FORMAT_VERSION:
            raise StoreError(
                f"{path} has format version {content.get('format_version')!r}, this qscore-fast reads "
                f"{FORMAT_VERSION}"
            )
        return cls(**{name: content[name] for name in cls.__dataclass_fields__})


class CheckpointFolder:
    """The folder of a training's checkpoints.

    Args:
        path: the folder; made when something is written.
        keep: how many numbered ones to keep beside the last one.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = path
        self.keep = keep

    def latest(self) -> Checkpoint | None:
        """The last one, or None. A damaged one is an error, not passed over."""
        return Checkpoint.read(self.path / LAST) if (self.path / LAST).exists() else None

    def write(self, checkpoint: Checkpoint) -> Path:
        """Write ``last.pt``, and under its number too, and delete the oldest beyond ``keep``."""
        made_folder(self.path)
        last = self.path / LAST
        checkpoint.write(last)
        if self.keep:
            numbered = self.path / f"step-{checkpoint.step:09d}.pt"
            with replacing(numbered) as temporary:
                _link_or_copy(last, temporary)
            for path in self.numbered()[: -self.keep]:
                path.unlink(missing_ok=True)
        return last

    def numbered(self) -> list[Path]:
        """The numbered ones, oldest first."""
        return sorted(p for p in self.path.glob("step-*.pt") if _NUMBERED.fullmatch(p.name))


def generators_state() -> dict[str, Any]:
    """Of Python's, NumPy's and torch's generators in this process, the GPU's included."""
    kind, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": [str(kind), [int(key) for key in keys], int(place), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_generators(state: Mapping[str, Any]) -> None:
    """Put the generators where :func:`generators_state` found them."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def of_all_processes(own: dict[str, Any], objective: nn.Module) -> list[dict[str, Any]]:
    """One mapping a process: ``own`` of each, with the buffers in which it differs from process 0."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [{**own, "buffers": {}}]
    mine = {name: buffer.detach().cpu() for name, buffer in objective.named_buffers()}
    first = [mine if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(first, src=0)
    reference = first[0] or {}
    differing = {name: b for name, b in mine.items() if not torch.equal(b, reference[name])}
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, {**own, "buffers": differing})
    return gathered


def restore_buffers(objective: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Put back what was a process's own."""
    own = dict(objective.named_buffers())
    with torch.no_grad():
        for name, value in buffers.items():
            own[name].copy_(value)


def checked_processes(checkpoint: Checkpoint, world: int) -> Sequence[dict[str, Any]]:
    """Those of a checkpoint, for as many processes as there are.

    Raises:
        StoreError: it was written by another number of them.
    """
    if len(checkpoint.processes) != world:
        raise StoreError(
            f"the checkpoint was written by {len(checkpoint.processes)} processes and is taken up by "
            f"{world}: give --devices {len(checkpoint.processes)}, or start over with overwrite (--overwrite)"
        )
    return checkpoint.processes


def _link_or_copy(source: Path, target: Path) -> None:
    import os
    import shutil

    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
