"""SGD probes: a grid of learning rates at once, one by one, and as PyTorch's modules and optimiser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.sgd import PROTOCOLS, SGDFit, SGDProtocol, accuracies, fit_sgd
from qscore_fast.evaluation.sgd.batches import Batches

from .features import Problem
from .turns import in_turns


def grid(problem: Problem, device: str, rounds: int, epochs: int) -> dict[str, Any]:
    """DINOv2's thirteen rates for ``epochs``: all at once against one by one and a loop over modules."""
    protocol = replace(PROTOCOLS["dinov2"], epochs=epochs)
    rows = FeatureRows.of(problem.x)

    def at_once() -> list[SGDFit]:
        return fit_sgd(rows, problem.y, problem.num_classes, protocol, device=device)

    def one_by_one() -> list[SGDFit]:
        return [
            fit_sgd(
                rows,
                problem.y,
                problem.num_classes,
                replace(protocol, rates=(rate,)),
                device=device,
            )[0]
            for rate in protocol.rates
        ]

    def modules() -> list[torch.nn.Linear]:
        return _modules(problem, protocol, device)

    fit_sgd(
        FeatureRows.of(problem.x[:2048]), problem.y[:2048], problem.num_classes, protocol,
        device=device,
    )  # fmt: skip
    calls = {"at once": at_once, "one by one": one_by_one, "torch modules": modules}
    times = in_turns(calls, device, rounds)
    test = FeatureRows.of(problem.test_x)
    together, apart = (
        accuracies(times[name].result, test, problem.test_y, np.arange(len(test)))
        for name in ("at once", "one by one")
    )
    return {
        **problem.describe(),
        "protocol": "dinov2",
        "rates": len(protocol.rates),
        "epochs": epochs,
        "batch_size": protocol.batch_size,
        "seconds": {name: timed.to_json() for name, timed in times.items()},
        "best_accuracy": max(together),
        "largest_difference_of_accuracy": float(np.abs(np.subtract(together, apart)).max()),
        "times_faster": {
            name: times[name].median / times["at once"].median
            for name in ("one by one", "torch modules")
        },
    }


def whole(problem: Problem, name: str, device: str, epochs: int) -> dict[str, Any]:
    """One protocol, once: seconds, steps a second, and test accuracy."""
    protocol = replace(PROTOCOLS[name], epochs=epochs)
    rows, test = FeatureRows.of(problem.x), FeatureRows.of(problem.test_x)

    def run() -> list[SGDFit]:
        return fit_sgd(rows, problem.y, problem.num_classes, protocol, device=device)

    timed = in_turns({"run": run}, device, 1)["run"]
    steps = epochs * -(-len(problem.x) // protocol.batch_size)
    return {
        **problem.describe(),
        "protocol": name,
        "epochs": epochs,
        "epochs_of_protocol": PROTOCOLS[name].epochs,
        "seconds": timed.median,
        "steps_per_second": steps / timed.median,
        "accuracy": max(accuracies(timed.result, test, problem.test_y, np.arange(len(test)))),
    }


def _modules(problem: Problem, protocol: SGDProtocol, device: str) -> list[torch.nn.Linear]:
    """The usual code: a module and a parameter group a rate, one loss, autograd; rows on the device."""
    batches = Batches(
        FeatureRows.of(problem.x), problem.y, protocol.batch_size, seed=0, device=device
    )
    made = []
    for _ in protocol.rates:
        layer = torch.nn.Linear(problem.x.shape[1], problem.num_classes, device=device)
        torch.nn.init.normal_(layer.weight, 0, 0.01)
        torch.nn.init.zeros_(layer.bias)
        made.append(layer)
    optimiser = torch.optim.SGD(
        [
            {"params": layer.parameters(), "lr": rate}
            for layer, rate in zip(made, protocol.used_rates, strict=True)
        ],
        momentum=protocol.momentum,
    )
    steps = protocol.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for epoch in range(protocol.epochs):
        for x, y in batches.epoch(epoch):
            losses = [torch.nn.functional.cross_entropy(layer(x), y) for layer in made]
            optimiser.zero_grad()
            torch.stack(losses).sum().backward()
            optimiser.step()
            schedule.step()
    return made
