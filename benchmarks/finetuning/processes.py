"""The whole loop in one process and in two: images a second as the log has them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..environment import ROOT

LOG_EVERY = 5
WORKER = "--one-of-the-processes"


def train(folder: Path, steps: int, batch_size: int) -> None:
    """A training of the bundled encoder, in whatever processes torchrun made."""
    from PIL import Image

    from qscore_fast.demo.fashion_mnist import read_idx
    from qscore_fast.finetuning.run import finetune
    from qscore_fast.finetuning.settings import Settings

    images = folder / "images"
    if not images.exists():
        images.mkdir()
        for number, pixels in enumerate(read_idx("discover", "images-idx3")[:4096]):
            Image.fromarray(pixels).save(images / f"{number:05d}.png", compress_level=1)
    processes = os.environ.get("WORLD_SIZE", "1")
    settings = Settings(
        regulariser="qscore", batch_size=batch_size, steps=steps, log_every=LOG_EVERY,
        monitor_every=10**6, save_every=10**6, workers=0, warm_up_heads=0, tensorboard=False,
    )  # fmt: skip
    finetune("demo", images, "auto", folder / f"run-{processes}", settings, device="cpu")


def measure(folder: Path, steps: int, batch_size: int, rounds: int = 3) -> dict[str, Any]:
    """Images a second with one process on one core, and with two on two, in turns."""
    found: dict[int, list[float]] = {1: [], 2: []}
    train_arguments = [WORKER, str(folder), str(steps), str(batch_size)]
    # Images and features are made once, by this first run.
    _run(1, train_arguments)
    for _ in range(rounds):
        for processes in found:
            run = folder / f"run-{processes}"
            for path in run.glob("*.json*"):
                path.unlink()
            for path in (run / "checkpoints").glob("*.pt"):
                path.unlink()
            _run(processes, train_arguments)
            lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            found[processes].append(
                statistics.median(line["images_per_second"] for line in lines[2:])
            )
    rates = {str(processes): statistics.median(values) for processes, values in found.items()}
    return {
        "batch_size": batch_size,
        "steps": steps,
        "rounds": rounds,
        "threads_of_a_process": 1,
        "images_per_second": rates,
        "times_as_fast": rates["2"] / rates["1"],
    }


def _run(processes: int, arguments: list[str]) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    subprocess.run(
        [sys.executable, *launch, "-m", "benchmarks.finetuning", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
