"""The optimiser of a recipe, and its rates at a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qscore_fast.finetuning.lars import LARS, LARS_OPTIONS
from qscore_fast.finetuning.parameter_groups import parameter_groups, set_rates
from qscore_fast.finetuning.plan import Plan


def build_optimiser(objective: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """The optimiser over what is trained, in the groups of the recipe."""
    recipe = plan.recipe
    groups = parameter_groups(objective, recipe.like)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=plan.peak_lr, weight_decay=recipe.weight_decay)
    values: dict[str, Any] = {
        "lr": plan.peak_lr,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
    }
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, **values)
    return LARS(groups, **values, **LARS_OPTIONS.get(recipe.like, {}))


def set_step(optimiser: Any, plan: Plan, done: int) -> None:
    """Give every group its rate and weight decay for the step after ``done`` steps."""
    fixed = plan.heads_lr if plan.warms_up(done) else plan.peak_lr
    set_rates(optimiser.param_groups, plan.lr(done), plan.weight_decay(done), fixed)
