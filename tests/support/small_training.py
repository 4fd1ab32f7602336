"""Small encoders with batch norm, D for them, and settings under which they train in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qscore_fast.encoders import Encoder
from qscore_fast.features import DiscriminativeFeatures, FeatureCensus, discriminative_features
from qscore_fast.finetuning import Settings
from qscore_fast.images import FolderSource, Preprocess, choose_decoder

GREY = Preprocess("L", 28, 28, "bilinear", (0.286,), (0.353,))
R = 48


class SmallNet(nn.Module):
    """(B, 1, H, W) to (B, 48), not negative."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, R, 3, stride=2, bias=False), nn.BatchNorm2d(R), nn.ReLU(),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images).mean((2, 3))


def small_encoder(seed: int = 0, system: str = "simsiam") -> Encoder:
    """Untrained, always the same for a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = SmallNet()
    return Encoder(module.eval(), GREY, "small", system)


def representations(encoder: Encoder, folder: Path | str, count: int = 10**9) -> torch.Tensor:
    """h (n, r) of the first images of a folder."""
    source = FolderSource(folder)
    decoder = choose_decoder()
    unit = source.units(len(source))[0]
    chosen = [sample for sample, _ in zip(source.read(unit), range(count), strict=False)]
    images = [encoder.preprocess(decoder.decode(s, encoder.preprocess.mode)) for s in chosen]
    return encoder(torch.stack(images)).clone()


def features_of(encoder: Encoder, folder: Path | str, eps: float = 1.0) -> DiscriminativeFeatures:
    """D over the images of a folder, at an eps at which few features are enough."""
    census = FeatureCensus(encoder.num_features, eps).update(representations(encoder, folder))
    return replace(discriminative_features(census), fingerprint=encoder.fingerprint)


def small_settings(**given: Any) -> Settings:
    """Every step logged, nothing in other processes, no event files."""
    usual: dict[str, Any] = {
        "batch_size": 16, "steps": 6, "lr": 0.01, "warmup_epochs": 0, "warm_up_heads": 0,
        "workers": 0, "log_every": 1, "monitor_every": 3, "save_every": 3, "tensorboard": False,
    }  # fmt: skip
    return Settings(**{**usual, **given})
