"""Run by torch's launcher-free spawn in test_distributed: the batch over processes against the whole.

``python two_processes.py RANK WORLD FILE``; the process of rank 0 writes what went wrong, a line each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
from small_objectives import SYSTEMS, small_objective, small_views
from torch import Tensor, nn

from qscore_fast.finetuning.objective import Objective, StepPosition
from qscore_fast.finetuning.objectives.barlow_twins import barlow_twins_terms
from qscore_fast.finetuning.objectives.shuffle_bn import shuffled
from qscore_fast.finetuning.objectives.vicreg import vicreg_terms

N = 8
SETTINGS = {"swav": {"queue_length": 8, "queue_start_epoch": 0, "freeze_prototypes_steps": 0}}
STEPS = 2


def trained(system: str, piece: slice) -> tuple[Objective, list[Tensor]]:
    """Some steps of plain SGD on a piece of each batch, gradients as DistributedDataParallel takes them."""
    objective = small_objective(system, **SETTINGS.get(system, {}))
    for layer in objective.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()  # statistics of a process's own are another matter
    losses = []
    for step in range(STEPS):
        position = StepPosition(step, 10, 1)
        objective.before_step(position)
        output = objective([view[piece] for view in small_views(system, N, step)])
        output.loss.backward()
        objective.before_update(position)
        loss = output.loss.detach().clone()
        for tensor in [loss, *(p.grad for p in objective.parameters() if p.grad is not None)]:
            if dist.is_initialized():
                dist.all_reduce(tensor)
                tensor /= dist.get_world_size()
        with torch.no_grad():
            for parameter in objective.parameters():
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad
                    parameter.grad = None
        objective.after_step(position)
        losses.append(loss)
    return objective, losses


def pieces(rank: int, world: int) -> slice:
    return slice(rank * N // world, (rank + 1) * N // world)


def compare(name: str, found: Tensor, expected: Tensor, problems: list[str]) -> None:
    if not torch.allclose(found, expected, rtol=1e-9, atol=1e-11):
        problems.append(f"{name}: off by {(found - expected).abs().max():.3g}")


def terms(loss: Callable[..., tuple[Tensor, ...]], rank: int, world: int) -> list[Tensor]:
    """A loss's terms and gradients, on a piece of standardised columns, over the processes."""
    generator = torch.Generator().manual_seed(5)
    whole = [torch.randn(N, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    whole = [((z - z.mean(0)) / z.std(0)).requires_grad_() for z in whole]
    found = loss(*(z[pieces(rank, world)] for z in whole))
    sum(found[1:], found[0]).backward()
    result = [torch.stack(found).detach(), *(z.grad for z in whole if z.grad is not None)]
    for tensor in result:
        if world > 1:
            dist.all_reduce(tensor)
            tensor /= world
    return result


def check_shuffling(rank: int, world: int, problems: list[str]) -> None:
    images = torch.arange(rank * 4, rank * 4 + 4, dtype=torch.float64)[:, None]
    mine, restore = shuffled(images)
    compare("restored order", restore(mine * 10), images * 10, problems)
    everyone = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(everyone, mine)
    dealt = torch.cat(everyone).flatten()
    compare("dealt images", dealt.sort().values, torch.arange(4.0 * world).double(), problems)
    if torch.equal(dealt, dealt.sort().values):
        problems.append("nothing was shuffled")


def main(rank: int, world: int, file: str) -> None:
    torch.manual_seed(rank)
    losses = {"vicreg": vicreg_terms, "barlow_twins": barlow_twins_terms}
    whole_terms = {name: terms(loss, 0, 1) for name, loss in losses.items()}
    whole = {system: trained(system, slice(N)) for system in SYSTEMS}
    dist.init_process_group("gloo", init_method=f"file://{file}.store", rank=rank, world_size=world)
    problems: list[str] = []
    check_shuffling(rank, world, problems)
    for name, loss in losses.items():
        for found, expected in zip(terms(loss, rank, world), whole_terms[name], strict=True):
            compare(f"{name} of projections", found, expected, problems)
    for system in SYSTEMS:
        objective, found_losses = trained(system, pieces(rank, world))
        compare(f"{system} losses", *map(torch.stack, (found_losses, whole[system][1])), problems)
        expected_state = whole[system][0].state_dict()
        for name, tensor in objective.state_dict().items():
            compare(f"{system} {name}", tensor.double(), expected_state[name].double(), problems)
    dist.destroy_process_group()
    with open(f"{file}.{rank}", "w", encoding="utf-8") as report:
        report.write("\n".join(problems))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
