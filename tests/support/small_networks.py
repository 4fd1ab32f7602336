"""Small untrained networks with batch statistics that matter, for the tests of running an encoder."""

from __future__ import annotations

from dataclasses import replace

import torch
import torchvision
from torch import nn

from qscore_fast.encoders import Encoder
from qscore_fast.images import IMAGENET

SMALL = replace(IMAGENET, resize=32, crop=32)


def with_statistics(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, with every batch norm's tensors far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for name, tensor in layer.state_dict().items():
                if name in ("weight", "running_var"):
                    tensor.uniform_(0.5, 1.5, generator=generator)
                elif name in ("bias", "running_mean"):
                    tensor.normal_(0, 0.3, generator=generator)
    return module.eval()


def resnet18(seed: int = 0) -> nn.Module:
    """torchvision's, without its classifier; r = 512."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = torchvision.models.resnet18(weights=None)
    module.fc = nn.Identity()
    return with_statistics(module, seed)


class TokenMean(nn.Module):
    """Linear layers only; r = 6."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 16)
        self.norm = nn.LayerNorm(16)
        self.out = nn.Linear(16, 6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(images.flatten(2).transpose(1, 2))
        return self.out(self.norm(tokens)).mean(1)


def small_encoder(module: nn.Module | None = None, name: str = "small") -> Encoder:
    """An encoder of 32 x 32 images."""
    return Encoder(resnet18() if module is None else module, SMALL, name)
