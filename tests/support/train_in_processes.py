"""A short training in whatever processes torchrun made: ``python train_in_processes.py IMAGES OUT``."""

from __future__ import annotations

import sys

import torch
from small_training import GREY, features_of, small_settings
from torch import nn

from qscore_fast.encoders import Encoder
from qscore_fast.finetuning import FineTuneRun, finetune


class WithoutNorm(nn.Module):
    """(B, 1, H, W) to (B, 40) without batch statistics, which processes of a CPU would not share."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 40, 7, stride=3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).relu().mean((2, 3))


def train(images: str, out: str) -> FineTuneRun:
    """Eight steps of MoCo v1, whose head has no batch norm either."""
    torch.manual_seed(0)
    encoder = Encoder(WithoutNorm().eval(), GREY, "without norm", "moco")
    settings = small_settings(
        steps=8, batch_size=16, accumulate=2, lr=0.1, save_every=4, lambda1=2.0, lambda2=0.1,
        objective={"queue_length": 32}, seed=3,
    )  # fmt: skip
    features = features_of(encoder, images)
    return finetune(encoder, images, features, out, settings, device="cpu")


if __name__ == "__main__":
    train(*sys.argv[1:])
