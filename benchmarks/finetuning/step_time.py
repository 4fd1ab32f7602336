"""Seconds of a training step without the regulariser, with it, and with its formula in plain PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from qscore_fast import reference
from qscore_fast.finetuning.objective import Objective, StepPosition
from qscore_fast.nn import QScoreLoss

from .networks import Case

WARM_STEPS = 5
TOLERANCE = 1e-4

Regulariser = Callable[[Tensor], Tensor] | None


def regularisers(case: Case, device: torch.device) -> dict[str, Regulariser]:
    """The contenders: the same function twice, and nothing."""
    r = case.encoder.num_features
    mask = (torch.arange(r, device=device) * 7919 % r) < 0.45 * r
    fused = QScoreLoss(mask).to(device)

    def plain(h: Tensor) -> Tensor:
        return reference.q_score_loss(h, mask, 4.0, 1e-4, 1e-4, "sum", False)

    return {"without": None, "with": fused, "plain PyTorch": plain}


def check(case: Case, objective: Objective, views: list[Tensor], device: torch.device) -> float:
    """The largest relative difference of the two losses on the representations; an error above 1e-4."""
    contenders = regularisers(case, device)
    with torch.no_grad():
        h = torch.cat([objective.backbone(view) for view in views]).float()
    fused, plain = (contenders[name](h) for name in ("with", "plain PyTorch"))  # type: ignore[misc]
    difference = float(((fused - plain) / plain).abs())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the regularisers differ by {difference:g}, more than {TOLERANCE:g}")
    return difference


class Step:
    """One optimiser step after the other, of one network."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.objective = case.objective(device)
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        self.optimiser = torch.optim.SGD(parameters, lr=1e-5, momentum=0.9)
        self.position = StepPosition(0, 1000, 100)
        self.device, self.bf16 = device, case.bf16

    def __call__(self, views: list[Tensor], regulariser: Regulariser) -> None:
        """Forward, backward, optimiser."""
        self.objective.before_step(self.position)
        autocast = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with autocast:
            output = self.objective(views)
            loss = output.loss
            if regulariser is not None:
                loss = loss + regulariser(output.representations)
        loss.backward()
        self.objective.before_update(self.position)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.objective.after_step(self.position)

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """Medians over the rounds; in every round each contender makes one step, each time in another order."""
    step, views = Step(case, device), case.views(device)
    difference = check(case, step.objective, views, device)
    contenders = regularisers(case, device)
    for regulariser in contenders.values():
        for _ in range(WARM_STEPS):
            step(views, regulariser)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    busy: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            step.synchronise()
            start, cpu = time.perf_counter(), time.process_time()
            step(views, contenders[name])
            step.synchronise()
            seconds[name].append(time.perf_counter() - start)
            busy[name].append(time.process_time() - cpu)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    # Of each round's own ratio: what changes from round to round meets both of its steps.
    ratios, cpu_ratios = (
        {
            name: statistics.median(a / b for a, b in zip(one[name], one["without"], strict=True))
            for name in ("with", "plain PyTorch")
        }
        for one in (seconds, busy)
    )
    return {
        "network": case.name,
        "batch_size": case.batch_size,
        "rows": 2 * case.batch_size,
        "features": case.encoder.num_features,
        "rounds": rounds,
        "seconds": medians,
        "quartiles": {name: statistics.quantiles(v, n=4)[::2] for name, v in seconds.items()},
        "over_without": {name: medians[name] / medians["without"] for name in ratios},
        "over_without_by_round": ratios,
        # Of the processor's time, in which other programs of the machine have no part.
        "cpu_time_over_without_by_round": cpu_ratios,
        "largest_difference": difference,
        "images_per_second": case.batch_size / medians["with"],
    }
