"""The networks that are trained: a ResNet-50 at 224 on a GPU, the bundled small one on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

import qscore_fast as qf
from qscore_fast.encoders import Encoder
from qscore_fast.finetuning.objective import Objective
from qscore_fast.finetuning.objectives import build_objective

SYSTEM = "simclr"


@dataclass(frozen=True)
class Case:
    """A network and how it is trained.

    Attributes:
        name: for people. encoder: untrained or bundled, on the CPU.
        batch_size: images a step; each has two views. side: of a view, pixels.
        bf16: under autocast, and channels-last; else float32.
    """

    name: str
    encoder: Encoder
    batch_size: int
    side: int
    bf16: bool

    def objective(self, device: torch.device) -> Objective:
        """SimCLR's, with fresh heads, on a device."""
        torch.manual_seed(0)
        objective = build_objective(SYSTEM, self.encoder).objective.to(device)
        if self.bf16:
            objective.to(memory_format=torch.channels_last)
        return objective

    def views(self, device: torch.device) -> list[torch.Tensor]:
        """Two views (N, C, side, side) float32 of noise, in memory."""
        shape = (self.batch_size, self.encoder.preprocess.channels, self.side, self.side)
        generator = torch.Generator(device).manual_seed(0)
        views = [torch.randn(shape, device=device, generator=generator) for _ in range(2)]
        if self.bf16:
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        return views


def case_of(device: torch.device, batch_size: int | None) -> Case:
    """The case that belongs to a device."""
    if device.type == "cuda":
        encoder = qf.load_encoder("torchvision:resnet50", SYSTEM, device="cpu", pretrained=False)
        return Case("ResNet-50, 224 x 224, bf16", encoder, batch_size or 128, 224, True)
    encoder = replace(qf.load_encoder("demo", device="cpu"), system=SYSTEM)
    return Case("the bundled ResNet, 28 x 28, float32", encoder, batch_size or 32, 28, False)
