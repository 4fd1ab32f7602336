"""Scoring with heat maps against scoring without, by the same encoder on the same images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import qscore_fast as qf
from qscore_fast.encoders import Encoder
from qscore_fast.images import Preprocess
from qscore_fast.saliency.feature_map import find_feature_map
from qscore_fast.saliency.layers import kept_output

from ..timing import interleaved

EPS = 2.0  # random weights have features that few images excite strongly


def resnet50(device: torch.device, size: int, precision: str = "float32") -> Encoder:
    """torchvision's with random weights, channels-last where that is the faster order."""
    preprocess = Preprocess(resize=size, crop=size)
    encoder = qf.load_encoder(
        "torchvision:resnet50", pretrained=False, device=device, preprocess=preprocess
    )
    gpu = device.type == "cuda"
    return encoder.optimised(precision, channels_last=gpu, fold_batch_norm=gpu)  # type: ignore[arg-type]


def encoders(device: torch.device) -> list[tuple[str, Encoder, int]]:
    """Name, encoder and batch size."""
    if device.type == "cuda":
        return [
            ("ResNet-50, 224 pixels, bfloat16", resnet50(device, 224, "bfloat16"), 256),
            ("ResNet-50, 224 pixels, float32", resnet50(device, 224), 256),
            ("bundled", qf.load_encoder("demo", device=device), 512),
        ]
    return [
        ("ResNet-50, 128 pixels, float32", resnet50(device, 128), 8),
        ("bundled", qf.load_encoder("demo", device=device), 64),
    ]


def make_images(encoder: Encoder, batch: int) -> Tensor:
    """Noise on the encoder's device."""
    shape = (batch, encoder.preprocess.channels, *encoder.preprocess.output_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return images.to(encoder.device)


def measure(name: str, encoder: Encoder, batch: int) -> dict[str, Any]:
    """Seconds a batch: scores alone; scores and maps; and ``heatmaps``, which also checks and reports."""
    images = make_images(encoder, batch)
    layer = find_feature_map(encoder, images)
    assert layer is not None

    def with_maps() -> Tensor:
        with kept_output(encoder, layer) as kept:
            encoder(images)
        return qf.score_maps(kept[0], eps=EPS).heat

    calls = {
        "encoder": lambda: encoder(images),
        "without": lambda: qf.q_score(encoder(images), eps=EPS),
        "with": with_maps,
        "heatmaps": lambda: qf.heatmaps(encoder, images, eps=EPS, batch_size=batch).maps,
    }
    found = qf.heatmaps(encoder, images, eps=EPS, batch_size=batch)
    times = interleaved(calls, encoder.device, rounds=15, seconds=6.0)
    seconds = {key: time.median for key, time in times.items()}
    return {
        "encoder": name,
        "precision": encoder.precision,
        "batch": batch,
        "active": float(found.members.sum(1).float().mean()),
        "seconds": seconds,
        "quartiles": {key: time.quartiles for key, time in times.items()},
        "with_over_without": seconds["with"] / seconds["without"],
        "heatmaps_over_without": seconds["heatmaps"] / seconds["without"],
    }
