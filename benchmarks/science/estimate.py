"""How long the chain will take: measured rates, times what there is to do."""

from __future__ import annotations

import time

import torch

from qscore_fast.encoders import Encoder, encoder_throughput

# Of one probe, counting its search for C; of the probes of a curve, trained together.
PROBE_PASSES, CURVE_PASSES = 400, 100
RESAMPLING_SECONDS = 0.26e-3  # a test image and score, 10,000 resamples, as measured on two cores


def estimate(
    encoder: Encoder,
    num_train: int,
    num_test: int,
    num_classes: int,
    num_probes: int,
    device: str = "cpu",
) -> dict[str, float]:
    """Seconds a step: an order of magnitude. Decoding is not counted; it runs beside the encoder.

    The encoder's speed is measured on synthetic images and that of matrix products on a small one, both here
    and now.
    """
    per_second = max(
        row.images_per_second
        for row in encoder_throughput(
            encoder, batch_size=32, seconds=1.0, device=device, variants=[{}]
        )
        if row.images_per_second
    )
    r = encoder.num_features
    block, weight = torch.randn(8192, r, device=device), torch.randn(r, 512, device=device)
    float((block @ weight).sum())
    began = time.perf_counter()
    for _ in range(4):
        product = block @ weight
    float(product.sum())
    flops = 4 * 2 * 8192 * r * 512 / (time.perf_counter() - began)
    one_pass = 4 * num_train * r * num_classes / flops
    return {
        "score": (num_train + num_test) / per_second,
        "probe": PROBE_PASSES * one_pass,
        "failure": 2 * num_train * num_test * r / flops + 18 * num_test * RESAMPLING_SECONDS,
        "compression": CURVE_PASSES * num_probes * one_pass,
        "measures": 4 * 1.25 * num_train * r * r / flops,
    }


def lines(seconds: dict[str, float]) -> list[str]:
    """For a terminal."""
    found = [f"  {name}: {_duration(value)}" for name, value in seconds.items()]
    return ["estimated time:", *found, f"  together: {_duration(sum(seconds.values()))}"]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
