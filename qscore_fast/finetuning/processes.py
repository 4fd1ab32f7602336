"""Processes: how many train together, which of them this is; and the Trainer for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qscore_fast.errors import SettingsError
from qscore_fast.finetuning.lightning_library import lightning
from qscore_fast.finetuning.settings import Settings


@dataclass(frozen=True)
class Processes:
    """Who trains.

    Attributes:
        kind: "cpu" or "cuda".
        world: processes in all. rank: the number of this one, from 0.
        local_world: those on this machine. nodes: machines.
    """

    kind: str
    world: int = 1
    rank: int = 0
    local_world: int = 1
    local_rank: int = 0
    nodes: int = 1

    @classmethod
    def of(cls, device: str | None, devices: int) -> Processes:
        """From what was asked for, and from the environment that torchrun and Lightning's launcher make.

        Raises:
            SettingsError: no such device, or fewer GPUs than processes.
        """
        kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if kind not in ("cpu", "cuda"):
            raise SettingsError(f'device is {device!r} (--device): give "cpu" or "cuda"')
        if kind == "cuda" and not torch.cuda.is_available():
            raise SettingsError("device is cuda (--device), but torch sees no GPU: give cpu")
        if devices < 1:
            raise SettingsError(f"devices is {devices} (--devices): give 1 or more")
        variables = os.environ
        if "TORCHELASTIC_RUN_ID" in variables:
            world, local = int(variables["WORLD_SIZE"]), int(variables["LOCAL_WORLD_SIZE"])
            rank, local_rank = int(variables["RANK"]), int(variables["LOCAL_RANK"])
            if devices not in (1, local):
                raise SettingsError(
                    f"devices is {devices} and torchrun started {local} processes: leave --devices out"
                )
            found = cls(kind, world, rank, local, local_rank, world // local)
        else:
            local_rank = int(variables.get("LOCAL_RANK", 0)) if devices > 1 else 0
            found = cls(kind, devices, local_rank, devices, local_rank)
        if kind == "cuda" and torch.cuda.device_count() < found.local_world:
            raise SettingsError(
                f"{found.local_world} processes (--devices) need as many GPUs, torch sees "
                f"{torch.cuda.device_count()}"
            )
        return found

    @property
    def is_first(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    @property
    def device(self) -> str:
        """Of this process, such as "cuda:1"."""
        return self.kind if self.kind == "cpu" else f"cuda:{self.local_rank}"


def trainer(
    settings: Settings,
    processes: Processes,
    steps: int,
    callbacks: Sequence[Any],
    say: Callable[[str], None] | None = None,
) -> Any:
    """The Lightning Trainer of a training; logs and checkpoints are the callbacks' own."""
    several = processes.world > 1
    synchronised = settings.sync_batch_norm and several
    if synchronised and processes.kind == "cpu":
        synchronised = False
        if say is not None:
            say(
                "PyTorch synchronises batch norm on GPUs alone: each process has its own batch statistics"
            )
    strategy: Any = "auto"
    if several:
        from lightning.pytorch.strategies import DDPStrategy

        # Queues and running statistics may be a process's own, so nothing is copied over them.
        strategy = DDPStrategy(broadcast_buffers=False, find_unused_parameters=False)
    return lightning.Trainer(
        accelerator="gpu" if processes.kind == "cuda" else "cpu",
        devices=processes.local_world,
        num_nodes=processes.nodes,
        strategy=strategy,
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=settings.accumulate,
        sync_batchnorm=synchronised,
        callbacks=list(callbacks),
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
