"""One loss in several processes: what each of them runs, and how they are started.

The rows of a batch go through one linear layer in float64, so that parts and whole have the same h, and then
as the dtype of the case into the loss.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

IN, FEATURES, EPS, LAMBDA1, LAMBDA2 = 12, 56, 1.5, 3.0, 0.02


@dataclass(frozen=True)
class Case:
    """``split`` has the rows of each process, ``nan_row`` a row of the whole batch that is broken."""

    backend: str
    split: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    reduction: str = "sum"
    two_sided: bool = False
    ddp: bool = False
    compiled: bool = False
    nan_row: int | None = None

    @property
    def mask(self) -> Tensor:
        return torch.arange(FEATURES) % 4 > 0

    def settings(self) -> tuple[Any, ...]:
        return self.mask, EPS, LAMBDA1, LAMBDA2, self.reduction

    def layer(self) -> nn.Linear:
        generator = torch.Generator().manual_seed(1)
        layer = nn.Linear(IN, FEATURES, dtype=torch.float64)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator).double())
        return layer

    def inputs(self) -> Tensor:
        """The whole batch, (N, IN). Later rows are of another kind, so that the parts differ."""
        generator = torch.Generator().manual_seed(sum(self.split))
        x = torch.randn(sum(self.split), IN, generator=generator).double()
        x *= torch.linspace(0.3, 3, max(len(x), 1))[: len(x), None]
        if self.nan_row is not None:
            x[self.nan_row, 0] = torch.nan
        return x

    def representations(self, output: Tensor) -> Tensor:
        return (output if self.two_sided else output.relu()).to(self.dtype)


@dataclass
class Outcome:
    """What one process got: the loss, the gradient of its rows, its parameters', and its collectives."""

    loss: Tensor
    dh: Tensor
    parameters: list[Tensor]
    forward_sizes: list[int]
    backward_sizes: list[int]
    value: Tensor  # where no gradient is asked for


def run_case(case: Case, rank: int, group: Any) -> Outcome:
    import qscore_fast as qf

    loss_module = qf.QScoreLoss(*case.settings(), group=group, two_sided=case.two_sided)
    if group == "world":
        loss_module = copy.deepcopy(loss_module)
    if case.compiled:
        loss_module = torch.compile(loss_module, backend="eager")
    layer = case.layer()
    model = layer
    if case.ddp:
        of_ddp = None if group == "world" else group
        model = nn.parallel.DistributedDataParallel(layer, process_group=of_ddp)
    begin = sum(case.split[:rank])
    x = case.inputs()[begin : begin + case.split[rank]]
    with qf.use_backend(case.backend):
        h = case.representations(model(x))
        h.retain_grad()
        with counted_collectives() as forward_sizes:
            loss = loss_module(h)
        with counted_collectives() as backward_sizes:
            loss.backward()
        value = loss_module(h.detach())
    gradients = [parameter.grad for parameter in layer.parameters()]
    if not case.ddp:
        for gradient in gradients:
            distributed.all_reduce(gradient, group=None if group == "world" else group)
            gradient /= len(case.split)
    return Outcome(loss.detach(), h.grad, gradients, forward_sizes, backward_sizes, value)


class counted_collectives:
    """The sizes of what is reduced inside the block through ``torch.distributed.all_reduce``."""

    def __enter__(self) -> list[int]:
        self.sizes: list[int] = []
        self.all_reduce = distributed.all_reduce

        def counted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.sizes.append(tensor.numel())
            return self.all_reduce(tensor, *args, **kwargs)

        distributed.all_reduce = counted
        return self.sizes

    def __exit__(self, *error: object) -> None:
        distributed.all_reduce = self.all_reduce


def in_process(
    rank: int, world: int, folder: str, job: Callable[[int, Any], Any], argument: Any
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    result = job(rank, argument)
    torch.save(result, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def in_processes(
    world: int, folder: Path, job: Callable[[int, Any], Any], argument: Any
) -> Sequence[Any]:
    """``job(rank, argument)`` in ``world`` processes of one gloo group; what each returned."""
    # Forked from a process that has imported all and has no threads: importing is what costs.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["qscore_fast.functional", "loss_processes"])
    processes = [
        context.Process(target=in_process, args=(rank, world, str(folder), job, argument))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * world, f"the processes ended with {codes}"
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]
