"""Measure a training step and its input; needs torch, torchvision and, for the processes, lightning."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from qscore_fast.allocator import freed_memory_kept

from ..environment import describe
from ..results import RESULTS, write
from . import input_pipeline, processes, step_time
from .networks import case_of


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All of it; prints as it goes."""
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    case = case_of(device, options.batch_size)
    found: dict[str, Any] = {"schema": "qscore-fast.finetuning.1", "environment": describe(device)}
    with freed_memory_kept():
        step = found["step_time"] = step_time.measure(case, device, options.rounds)
    print(f"{step['network']}, {step['rows']} rows of {step['features']} features")
    for name, seconds in step["seconds"].items():
        ratio = seconds / step["seconds"]["without"]
        by_round = step["over_without_by_round"].get(name, 1.0)
        print(
            f"  {name:<14}{1e3 * seconds:9.3f} ms a step, {ratio:.4f} times that without "
            f"(median of the rounds' ratios {by_round:.4f})"
        )
    if not options.no_input:
        with freed_memory_kept():
            row = found["input_pipeline"] = input_pipeline.measure(
                case, device, options.steps, options.images, folder, options.workers
            )
        crops = 1e3 * row["seconds_from_crops_in_memory"]
        print(f"from crops in memory {crops:.1f} ms a step")
        alone = [row[f"{part}_alone_images_per_second"] for part in ("loader", "training")]
        print(
            f"from the disk {1e3 * row['seconds_from_disk']:.1f} ms a step, {row['over_memory']:.3f} times "
            f"that from memory with {row['workers']} workers; alone they decode {alone[0]:,.0f} images/s, "
            f"training takes {alone[1]:,.0f}: {row['bottleneck']} is the limit"
        )
    if device.type == "cpu" and not options.no_processes:
        (folder / "processes").mkdir()
        two = found["processes"] = processes.measure(folder / "processes", 40, 32)
        print(f"2 processes train {two['times_as_fast']:.2f} times as fast as 1")
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command's entry point."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == [processes.WORKER]:
        folder, steps, batch_size = words[1:]
        processes.train(Path(folder), int(steps), int(batch_size))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetuning", description=__doc__)
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument(
        "--batch-size", type=int, help="images a step (default: 128 on a GPU, 32 on a CPU)"
    )
    parser.add_argument("--rounds", type=int, default=100, help="steps of each contender")
    parser.add_argument("--steps", type=int, default=30, help="from memory and from the disk")
    parser.add_argument("--images", type=int, default=2048, help="files on the disk")
    parser.add_argument("--workers", type=int, help="decoding processes (default: one a core)")
    parser.add_argument("--no-input", action="store_true", help="the step alone")
    parser.add_argument("--no-processes", action="store_true", help="leave the two processes out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="qscore-finetuning-") as folder:
        found = run(options, Path(folder))
    print(f"written {write(found, options.out, 'finetuning')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
