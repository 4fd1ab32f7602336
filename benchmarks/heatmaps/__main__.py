"""``python -m benchmarks.heatmaps``: the kernel, scoring with heat maps, and 30 features an image.

Needs the source tree, torch and torchvision; timm for the vision transformer; captum and grad-cam, where
they are installed, are measured as well. On a GPU with --device cuda.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import torch

import qscore_fast as qf
from qscore_fast.errors import QScoreError

from ..environment import describe
from ..implementations import WrongResult
from ..results import RESULTS, write
from . import map_kernels, rivals, with_encoder


def run(device: torch.device, quick: bool) -> dict[str, Any]:
    """All measurements, printed as they come."""
    found: dict[str, Any] = {
        "schema": "qscore-fast.heatmaps.1",
        "environment": describe(device),
        "quick": quick,
        "load_average": os.getloadavg(),  # of the machine before: above its cores, others take part
        "kernels": [],
        "with_encoder": [],
        "rivals": [],
    }
    for case in map_kernels.cases(device, quick):
        row = map_kernels.measure(case, device)
        found["kernels"].append(row)
        shape = f"{case.samples} x {case.channels} x {case.side} x {case.side} {case.dtype}"
        order = "channels last" if case.channels_last else "contiguous"
        s = row["seconds"]
        print(
            f"{shape:<36}{order:<15}{s['ours'] * 1e3:9.3f} ms {row['gigabytes_per_second']:7.0f} GB/s "
            f"{row['times_limit']:6.2f}x limit; without map {s['without heat map'] * 1e3:.3f} ms, plain "
            f"{s['plain'] * 1e3:.3f} ms, {row['active']:.1f} active",
            flush=True,
        )
    for name, encoder, batch in with_encoder.encoders(device):
        row = with_encoder.measure(name, encoder, batch)
        found["with_encoder"].append(row)
        s = row["seconds"]
        print(
            f"{name:<36}batch {batch:<5}scores {s['without'] * 1e3:9.2f} ms, with heat maps "
            f"{s['with'] * 1e3:9.2f} ms = {row['with_over_without']:.3f}x; heatmaps() "
            f"{row['heatmaps_over_without']:.3f}x, {row['active']:.1f} active",
            flush=True,
        )
    for name, encoder, layer, batch in _rival_cases(device):
        row = rivals.measure(name, encoder, layer, with_encoder.make_images(encoder, batch))
        found["rivals"].append(row)
        others = ", ".join(
            f"{key} {value:.3f} s ({row['times_faster'][key]:.1f}x)"
            for key, value in row["seconds"].items()
            if key != "ours"
        )
        print(
            f"{name}, {batch} images, {rivals.NUM_FEATURES} features: {row['seconds']['ours']:.4f} s; "
            + others
            + "".join(f"; {key} left out: {why}" for key, why in row["left_out"].items()),
            flush=True,
        )
    return found


def _rival_cases(device: torch.device) -> list[tuple[str, qf.Encoder, str, int]]:
    gpu = device.type == "cuda"
    size, batch = (224, 32) if gpu else (96, 2)
    cases = [(f"ResNet-50 at {size}", with_encoder.resnet50(device, size), "layer4", batch)]
    try:
        name = "vit_small_patch16_224" if gpu else "vit_tiny_patch16_224"
        vit = qf.load_encoder(f"timm:{name}", pretrained=False, device=device)
        last = len(vit.module.blocks) - 1  # type: ignore[arg-type]
        cases.append((f"{name} (gradients)", vit, f"blocks.{last}.norm1", batch))
    except QScoreError as error:
        print(f"no vision transformer: {error}")
    return cases


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heatmaps", description=__doc__)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    parser.add_argument("--quick", action="store_true", help="fewer shapes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args(arguments)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        found = run(device, options.quick)
    except WrongResult as error:
        print(f"wrong result: {error}")
        return 1
    print(f"written to {write(found, options.out, 'heatmaps')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
