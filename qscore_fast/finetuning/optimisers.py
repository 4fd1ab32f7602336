"""The optimiser of a recipe, and its rates at a step."""

from __future__ import annotations

from typing import Any

import torch

from qscore_fast.finetuning.objective import Objective
from qscore_fast.finetuning.plan import Plan
from qscore_fast.finetuning.recipes import Recipe


def build_optimiser(objective: Objective, recipe: Recipe, peak_lr: float) -> torch.optim.Optimizer:
    """The optimiser, with one group for weights and one for one-dimensional parameters.

    Each group has ``share``, its rate over the peak, and ``decays``, whether it has weight decay.
    """
    trained = [p for p in objective.parameters() if p.requires_grad]
    bias_share = 1.0 if recipe.bias_lr is None else recipe.bias_lr / recipe.lr
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "share": 1.0, "decays": True},
        {"params": [p for p in trained if p.ndim <= 1], "share": bias_share, "decays": False},
    ]
    groups = [group for group in groups if group["params"]]
    for group in groups:
        group["weight_decay"] = recipe.weight_decay if group["decays"] else 0.0
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=peak_lr)
    return torch.optim.SGD(groups, lr=peak_lr, momentum=recipe.momentum)


def set_rates(optimiser: Any, plan: Plan, done: int) -> None:
    """Give every group its rate and weight decay for the step after ``done`` steps."""
    rate, decay = plan.lr(done), plan.weight_decay(done)
    for group in optimiser.param_groups:
        group["lr"] = group.get("share", 1.0) * rate
        if group.get("decays"):
            group["weight_decay"] = decay
