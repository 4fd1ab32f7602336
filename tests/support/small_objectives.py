"""Objectives around a small ResNet, and views for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qscore_fast.encoders import Encoder
from qscore_fast.encoders.networks.resnet import ResNet
from qscore_fast.finetuning.objective import Objective, StepPosition
from qscore_fast.finetuning.objectives import SYSTEMS, build_objective, objective_settings
from qscore_fast.images import IMAGENET, Preprocess

SMALL = Preprocess(resize=(16, 16), crop=None, mean=IMAGENET.mean, std=IMAGENET.std)
SETTINGS: dict[str, dict[str, Any]] = {
    "swav": {"prototypes": 20, "out": 16},
    "moco": {"queue_length": 24, "out": 16},
    "moco_v2": {"queue_length": 24, "out": 16},
    "moco_v3": {"out": 16},
    "byol": {"out": 16},
    "dino": {"out_dim": 40, "hidden": 32, "bottleneck": 16},
    "vicreg": {"hidden": 48, "out": 32},
    "barlow_twins": {"hidden": 48, "out": 32},
}
MULTI_CROP = ("swav", "dino")


def small_resnet_encoder(seed: int = 0, system: str | None = None) -> Encoder:
    """r = 64; random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResNet("basic", (1, 1, 1, 1), 8, 3, "cifar").eval()
        return Encoder(network, SMALL, "small", system)


def small_objective(system: str, **settings: Any) -> Objective:
    """In float64 and training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        values = objective_settings(system, {**SETTINGS.get(system, {}), **settings})
        return build_objective(system, small_resnet_encoder(), values).objective.double()


def small_views(system: str, images: int = 8, seed: int = 0) -> list[Tensor]:
    """Two views of random images, and two small crops where the system has them, float64."""
    generator = torch.Generator().manual_seed(seed)
    sides = (16, 16, 8, 8) if system in MULTI_CROP else (16, 16)
    kind = torch.float64
    return [torch.randn(images, 3, s, s, generator=generator, dtype=kind) for s in sides]


def sgd(objective: Objective, lr: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=lr)


def train_step(
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    views: list[Tensor],
    position: StepPosition,
) -> Tensor:
    """One step as a training loop makes it; the loss."""
    objective.before_step(position)
    loss = objective(views).loss
    optimiser.zero_grad()
    loss.backward()
    objective.before_update(position)
    optimiser.step()
    objective.after_step(position)
    return loss.detach()


def parameters_of(*modules: nn.Module) -> list[Tensor]:
    """Copies of the modules' parameters."""
    return [p.detach().clone() for module in modules for p in module.parameters()]


__all__ = [
    "MULTI_CROP",
    "SYSTEMS",
    "parameters_of",
    "sgd",
    "small_objective",
    "small_resnet_encoder",
    "small_views",
    "train_step",
]
